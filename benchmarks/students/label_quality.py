"""What labels are worth: how their distances rank the classes, and the scale they are read at.

The logits of the teacher serve for comparison only.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from db3kd.data.arguments import ImagesLike
from db3kd.labels.labels import Labels
from db3kd.labels.soft_labels import margin_soft_labels
from db3kd.scale.choice import ScaleChoice
from db3kd.scale.search import search_scale
from db3kd.training.loop import Model
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings


def chosen_scale(
    student: Model,
    images: ImagesLike,
    labels: Labels,
    loss: KDLoss,
    training: TrainSettings,
    students: int,
) -> ScaleChoice:
    """Chooses the scale of margin soft labels as `db3kd distill` does, by shorter trainings.

    `students` students try each scale.
    """
    return search_scale(
        student,
        images,
        labels.distances,
        labels.decision,
        margin_soft_labels,
        loss,
        training,
        students=students,
    )


def margins(labels: Labels, scale: float, loss: KDLoss) -> Tensor:
    """Margin soft labels at a scale, [N, C] float32, at the temperature of the loss."""
    return margin_soft_labels(labels.distances, labels.decision, scale, loss.temperature)


def queries_per_sample(labels: Labels) -> float:
    """The mean number of queries that a sample cost."""
    return labels.queries.sum().item() / len(labels)


def logit_gaps(labels: Labels, logits: Tensor) -> Labels:
    """Replaces distances by the gap between the greatest logit and each other logit.

    Args:
        labels: The labels.
        logits: [N, C] float32, the teacher's.

    Returns:
        The labels with gaps for distances. A gap is never 0, as a distance is never 0. Decisions
        stay as they are, even if rounding makes another logit the greatest.
    """
    gaps = (logits.amax(1, keepdim=True) - logits).clamp_min(torch.finfo(logits.dtype).eps)
    return replace(labels, distances=gaps, snapshots={})


def rank_correlation(labels: Labels, logits: Tensor) -> float:
    """The mean of Spearman's correlation between -distance and logit over the other classes."""
    keep_others = ~F.one_hot(labels.decision, labels.classes).bool()
    shape = len(labels), labels.classes - 1
    near = -labels.distances[keep_others].view(shape)
    ranks = [
        values.argsort(1).argsort(1).double() for values in (near, logits[keep_others].view(shape))
    ]
    centred = [rank - rank.mean(1, keepdim=True) for rank in ranks]
    first, second = (values / values.norm(dim=1, keepdim=True) for values in centred)
    return (first * second).sum(1).mean().item()


def runner_up_share(labels: Labels, logits: Tensor) -> float:
    """The share of samples whose nearest other class has the greatest other logit."""
    predicted = labels.decision[:, None]
    nearest = labels.distances.scatter(1, predicted, torch.inf).argmin(1)
    return (nearest == logits.scatter(1, predicted, -torch.inf).argmax(1)).double().mean().item()
