"""Patches of photographs: a class for each photograph, train and test from separate regions.

A photograph is divided into columns, train and test in turn, with a gap between them. No pixel is
part of patches of both splits, and pixels of the two are at least `GAP` apart.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.colour.arrays import SIDE, Split

SHORT_SIDE = 768
"""The shorter side of a photograph before patches are cut, in pixels."""

STRIDE = 16
"""Distance of neighbouring patches, in pixels."""

TRAIN_WIDTH, TEST_WIDTH, GAP = 160, 64, 16
"""Widths of the columns and of the gap between them, in pixels."""


def scaled(picture: Image.Image) -> NDArray[np.uint8]:
    """Shrinks a photograph so that its shorter side is `SHORT_SIDE`: [height, width, 3] uint8.

    Raises:
        ValueError: If it is smaller than that.
    """
    if min(picture.size) < SHORT_SIDE:
        raise ValueError(
            f"picture: expected at least {SHORT_SIDE}x{SHORT_SIDE} pixels, got "
            f"{picture.width}x{picture.height}"
        )
    scale = SHORT_SIDE / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    resized = picture.convert("RGB").resize((width, height), Image.Resampling.BOX)
    return np.asarray(resized)


def corners(width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the left edges of the train and test patches of a photograph of that width."""
    period = TRAIN_WIDTH + TEST_WIDTH + 2 * GAP
    left = np.arange(0, width - SIDE + 1, STRIDE)
    place = left % period
    begin = TRAIN_WIDTH + GAP
    train = left[place + SIDE <= TRAIN_WIDTH]
    test = left[(place >= begin) & (place + SIDE <= begin + TEST_WIDTH)]
    return train, test


def cut(photograph: NDArray[np.uint8], left: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Cuts patches.

    Args:
        photograph: [height, width, 3] uint8.
        left: The left edges of the patches; their upper edges are `STRIDE` apart.

    Returns:
        [n, SIDE, SIDE, 3] uint8.
    """
    top = np.arange(0, photograph.shape[0] - SIDE + 1, STRIDE)
    return np.stack([photograph[y : y + SIDE, x : x + SIDE] for x in left for y in top])


def split_photographs(
    photographs: dict[str, NDArray[np.uint8]], train: int = 1500, test: int = 400
) -> tuple[Split, Split]:
    """Cuts photographs into a train and a test split.

    Args:
        photographs: By class, [height, width, 3] uint8.
        train: Train patches of a class; which ones is fixed.
        test: Test patches of a class.

    Raises:
        ValueError: If a photograph is too small for so many patches.
    """
    halves: tuple[list[Split], list[Split]] = ([], [])
    for name, photograph in sorted(photographs.items()):
        both = zip(halves, corners(photograph.shape[1]), (train, test), strict=True)
        for half, left, count in both:
            patches = cut(photograph, left) if len(left) else np.empty((0, SIDE, SIDE, 3), np.uint8)
            if len(patches) < count:
                raise ValueError(
                    f"{name}: expected a photograph with at least {count} patches, got "
                    f"{len(patches)} from {photograph.shape[1]}x{photograph.shape[0]} pixels"
                )
            chosen = np.random.RandomState(0).permutation(len(patches))[:count]
            half.append(Split(patches[chosen], np.full(count, name)))
    first, second = (
        Split(
            np.concatenate([part.images for part in half]),
            np.concatenate([part.labels for part in half]),
        ).shuffled()
        for half in halves
    )
    return first, second
