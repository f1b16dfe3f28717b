"""Soft labels of answered images from their distances to each other, which cost no query.

An image that is nearer to the images of one other class than to those of the rest is, more often
than not, nearer to the teacher's boundary with that class.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from db3kd.boundary import Pairs, StartingPoints
from db3kd.distillation.answers import Answers
from db3kd.labelling.soft_labels import make_soft_labels
from db3kd.querying.search import fitting_batch_size

NEIGHBOUR_TEMPERATURE = 4.0

MOST_IMAGES = 20_000
"""Most images that get soft labels; the distances of more take longer than a short training."""

_GAP = 12.0
"""Logits between the two nearest classes of the median image. Half or twice as many are as good."""

_AT_ONCE = 256


def neighbour_labels(answers: Answers, classes: int) -> Tensor:
    """Returns soft labels for those answered images that are samples themselves.

    The soft labels are those of measure "sd": of the distances to the nearest answered sample of
    each other class.

    Example:
        >>> soft_labels = neighbour_labels(answers.training, classes=10)

    Args:
        answers: The answers; the first `MOST_IMAGES` samples among them get soft labels.
        classes: The number of the teacher's classes.

    Returns:
        `[n, classes] float32`, made with temperature `NEIGHBOUR_TEMPERATURE`. The rows of other
        images are zeros, and so are all rows if no sample is in another class than the rest.
    """
    soft_labels = torch.zeros(len(answers), classes)
    places = answers.is_clean.nonzero()[:, 0][:MOST_IMAGES]
    decisions = answers.decisions[places]
    in_class = F.one_hot(decisions, classes).bool()
    if int(in_class.any(0).sum()) < 2:
        return soft_labels
    samples = answers.select(places).as_source()
    pool = StartingPoints(samples, decisions, 1)
    parts = []
    at_once = fitting_batch_size(_AT_ONCE, answers.images.image_shape)
    for part in torch.arange(len(places)).split(at_once):
        sample_of, target = (~in_class[part]).nonzero(as_tuple=True)
        pairs = Pairs(samples.read(part).flatten(1), part, sample_of, target)
        distances = torch.zeros(len(part), classes)
        distances[sample_of, target] = pool.nearest_distance(pairs)
        parts.append(distances)
    distances = torch.cat(parts)
    nearest = distances.masked_fill(in_class, torch.inf).amin(1).median().item()
    soft_labels[places] = make_soft_labels(
        distances,
        decisions,
        normalisation="margin",
        scale=_GAP / nearest if nearest else 1.0,
        temperature=NEIGHBOUR_TEMPERATURE,
    )
    return soft_labels
