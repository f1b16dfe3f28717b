"""Soft labels of samples from their distances to each other (SD in DB3KD), which cost no query.

A sample that is nearer to the samples of one other class than to those of the rest is, more often
than not, nearer to the teacher's boundary with that class.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from db3kd.answers.answers import Answers
from db3kd.data.image_source import ImageSource
from db3kd.labels.soft_labels import make_soft_labels
from db3kd.querying.search import fitting_batch_size

NEIGHBOUR_TEMPERATURE = 4.0

MOST_IMAGES = 20_000
"""Most samples that get soft labels; the distances of more take longer than a short training."""

_GAP = 12.0
"""Logits between the two nearest classes of the median sample."""

_BLOCK = 2048
"""Most images in a block; the distances between two blocks are computed at once."""


def neighbour_labels(answers: Answers, classes: int) -> Tensor:
    """Returns soft labels of those answered images that are samples themselves.

    The distance to a class is that to the nearest answered sample of this class.

    Example:
        >>> soft_labels = neighbour_labels(answers.training, classes=10)

    Args:
        answers: The answers; the first `MOST_IMAGES` samples among them get soft labels.
        classes: The number of the teacher's classes.

    Returns:
        [n, classes] float32, made with temperature `NEIGHBOUR_TEMPERATURE`. Rows of images
        without a soft label are zeros, and so are all rows if all samples are in one class.
    """
    soft_labels = torch.zeros(len(answers), classes, dtype=torch.float32)
    places = answers.is_clean.nonzero()[:, 0][:MOST_IMAGES]
    decisions = answers.decisions[places]
    in_class = F.one_hot(decisions, classes).bool()
    if int(in_class.any(0).sum()) < 2:
        return soft_labels
    distances = _nearest_of_class(answers.select(places).as_source(), decisions, classes)
    nearest = distances.masked_fill(in_class, torch.inf).amin(1).median().item()
    soft_labels[places] = make_soft_labels(
        distances,
        decisions,
        normalisation="margin",
        scale=_GAP / nearest if nearest else 1.0,
        temperature=NEIGHBOUR_TEMPERATURE,
    )
    return soft_labels


def _nearest_of_class(images: ImageSource, decisions: Tensor, classes: int) -> Tensor:
    """Returns the distance of each image to the nearest one of each class.

    A matrix product computes them, which is much faster than exact differences. In float32, its
    terms would cancel for images of low contrast.

    Returns:
        [n, classes] float32, L2 in input units; +inf for a class without an image.
    """
    count = len(decisions)
    first = images.read(torch.zeros(1, dtype=torch.int64))
    size = fitting_batch_size(_BLOCK, tuple(first.shape[1:]))
    nearest = torch.full((count, classes), torch.inf, dtype=torch.float32)
    blocks = torch.arange(count).split(size)
    for place, rows in enumerate(blocks):
        pixels = images.read(rows).flatten(1).double()
        for columns in blocks[place:]:
            others = pixels if columns is rows else images.read(columns).flatten(1).double()
            distances = torch.cdist(pixels, others, compute_mode="use_mm_for_euclid_dist").float()
            _take_smaller(nearest, rows, distances, decisions[columns])
            _take_smaller(nearest, columns, distances.T, decisions[rows])
    return nearest


def _take_smaller(nearest: Tensor, rows: Tensor, distances: Tensor, decisions: Tensor) -> None:
    """Lowers the distances of images to the classes.

    The images `rows` [r] have the distances [r, c] to images whose classes are `decisions` [c].
    `nearest` [n, C] is changed in place.
    """
    smaller = nearest[rows]
    smaller.scatter_reduce_(1, decisions.expand(len(rows), -1), distances, "amin")
    nearest[rows] = smaller
