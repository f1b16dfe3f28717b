"""What labels are worth: how their distances order the classes, and the scale they are read at.

Shared by the benchmarks; the logits of a teacher that shows them serve comparison alone.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from db3kd.data.image_source import Images
from db3kd.distillation.scale import ScaleChoice, choose_scale
from db3kd.distillation.student import KDLoss
from db3kd.distillation.training import Model, TrainSettings
from db3kd.labelling.labels import Labels
from db3kd.labelling.soft_labels import margin_soft_labels


def chosen_scale(
    student: Model,
    images: Images,
    labels: Labels,
    loss: KDLoss,
    training: TrainSettings,
    students: int,
) -> ScaleChoice:
    """The scale of margin soft labels as `db3kd distill` chooses it, by shorter trainings."""
    return choose_scale(
        student,
        images,
        labels.distances,
        labels.decision,
        margin_soft_labels,
        loss,
        training,
        folds=5,
        students=students,
    )


def logit_gaps(labels: Labels, logits: Tensor) -> Labels:
    """`labels` with the greatest logit less each of them for distances, as the white box has it.

    No gap is 0, as no distance is; a decision that rounding tipped the other way stays as it is.
    """
    gaps = (logits.amax(1, keepdim=True) - logits).clamp_min(torch.finfo(logits.dtype).eps)
    return replace(labels, distances=gaps, snapshots={})


def rank_correlation(labels: Labels, logits: Tensor) -> float:
    """Spearman's, over the other classes of a sample, between -distance and logit; the mean."""
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
    """Share of samples whose nearest other class has the greatest logit of the other classes."""
    own = labels.decision[:, None]
    nearest = labels.distances.scatter(1, own, torch.inf).argmin(1)
    return (nearest == logits.scatter(1, own, -torch.inf).argmax(1)).double().mean().item()
