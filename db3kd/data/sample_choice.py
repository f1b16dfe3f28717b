"""Choosing samples: a random part of a data set, or some of each class to show."""

import torch
from torch import Tensor

from db3kd.arguments.arrays import seeded_permutation
from db3kd.data.image_set import ImageSet
from db3kd.errors import ArgumentError
from db3kd.querying.search import UNANSWERED


def draw_samples(count: int, limit: int | None, seed: int) -> Tensor:
    """Draws `limit` of `count` samples at random.

    Returns:
        [n] int64, their indices in ascending order.

    Raises:
        ValueError: If `limit` is less than 1.
    """
    if limit is None or limit >= count:
        return torch.arange(count)
    if limit < 1:
        raise ArgumentError("limit", f"expected at least 1, got {limit}")
    return seeded_permutation(count, seed)[:limit].sort().values


def draw_images(
    images: ImageSet, limit: int | None, seed: int, option: str = "--limit"
) -> ImageSet:
    """Draws images at random as `draw_samples` does, and notes this for the report of a run.

    Args:
        images: The images.
        limit: How many to draw; None for all.
        seed: The seed of the draw.
        option: The option of the command line that sets the limit.

    Raises:
        ValueError: If `limit` is less than 1.
    """
    rows = draw_samples(len(images), limit, seed)
    if len(rows) == len(images):
        return images
    return images.subset(rows, f"drawn at random, as {option} {limit} --seed {seed} does")


def spread_over_classes(decisions: Tensor, count: int) -> Tensor:
    """Picks `count` decided samples, spread over their classes as evenly as possible.

    Args:
        decisions: [N] int64, the predicted class of each sample, -1 if it has none.
        count: How many to pick.

    Returns:
        [n] int64, their rows, sorted by class.
    """
    by_class: dict[int, list[int]] = {}
    for row, predicted in enumerate(decisions.tolist()):
        if predicted != UNANSWERED:
            by_class.setdefault(predicted, []).append(row)
    ranked = sorted(
        (rank, predicted, row)
        for predicted, rows in by_class.items()
        for rank, row in enumerate(rows)
    )
    chosen = sorted((predicted, row) for _, predicted, row in ranked[:count])
    return torch.tensor([row for _, row in chosen], dtype=torch.int64)
