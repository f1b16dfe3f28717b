"""Whether two groups of students differ by more than chance, on the same images."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from db3kd.errors import ArgumentError

_RESAMPLES = 4_000
_AT_ONCE = 200
"""Resamples that are drawn together, because each of them counts all images."""
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class PairedDifference:
    """By how much one group of students is right more often than another.

    Attributes:
        difference: The difference of the two mean shares, in [-1, 1].
        interval: Its 95 % interval.
        may_be_chance: Whether the interval holds 0, or McNemar's exact test over the images has a
            p-value of more than 0.05.
    """

    difference: float
    interval: tuple[float, float]
    may_be_chance: bool


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], seed: int = 0
) -> PairedDifference:
    """Compares two groups of students of the same seeds on the same images.

    The interval is that of a bootstrap that draws images and seeds at random (Owen 2007), so it
    counts both the choice of the images and the luck of a seed. With a single seed, it counts that
    of the images alone.

    Example:
        >>> found = paired_difference(first, second)
        >>> found.difference, found.interval, found.may_be_chance
        (0.021, (0.009, 0.033), False)

    Args:
        first: [seeds, images], whether each student is right about each image.
        second: The same of the other group.
        seed: The seed of the bootstrap.

    Raises:
        ValueError: If the shapes differ, or if there are no students or no images.
    """
    if first.shape != second.shape or first.ndim != 2 or first.size == 0:
        raise ArgumentError(
            "second",
            f"expected {list(first.shape)}, the seeds and images of `first`, got "
            f"{list(second.shape)}",
        )
    differences = first.astype(np.int8) - second.astype(np.int8)
    # Images on which the students differ in the same way are drawn together, as one multinomial.
    kinds, counts = np.unique(differences, axis=1, return_counts=True)
    seeds, images = differences.shape
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(_RESAMPLES // _AT_ONCE):
        drawn = generator.multinomial(images, counts / images, size=_AT_ONCE)
        by_seed = drawn @ kinds.T.astype(np.float64) / images
        chosen = generator.integers(seeds, size=(_AT_ONCE, seeds))
        means.append(np.take_along_axis(by_seed, chosen, axis=1).mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    gained, lost = (int((sign * differences.sum(axis=0) > 0).sum()) for sign in (1, -1))
    chance = bool(low <= 0 <= high) or sign_test(gained, lost) > _SIGNIFICANT
    return PairedDifference(float(differences.mean()), (float(low), float(high)), chance)


def sign_test(gained: int, lost: int) -> float:
    """Returns the two-sided p-value of the exact sign test, which is McNemar's exact test.

    The first of two networks is right more often on `gained` images, the second on `lost` ones.

    Example:
        >>> sign_test(5, 0), sign_test(6, 0)
        (0.0625, 0.03125)
    """
    total, fewer = gained + lost, min(gained, lost)
    log_all = total * math.log(2)
    tail = math.fsum(
        math.exp(
            math.lgamma(total + 1) - math.lgamma(each + 1) - math.lgamma(total - each + 1) - log_all
        )
        for each in range(fewer + 1)
    )
    return min(1.0, 2 * tail)
