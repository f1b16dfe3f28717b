"""Masked mixes: images in which a soft-edged part of one pseudo sample covers another."""

import numpy as np
import torch
from torch import Tensor

from db3kd.data.augmented_images import uniforms
from db3kd.data.files.uint8_pixels import MAX_PIXEL
from db3kd.data.image_source import ImageSource
from db3kd.synthesis.starts import make_masks

_LEAST_MIXING_SHARE = 0.5
"""What the weight of a class is raised to, relative to an equal share of all known classes."""

_FIRST_MASK = 2**40
"""The masks of proposals, of which there are fewer, have smaller numbers."""


class MaskedMixes:
    """Masked mixes of pseudo samples that are not queried, made when they are read.

    A mix depends only on its number, the seed and the samples.

    Args:
        images: The samples, among other images.
        rows: [n] int64, the samples in `images`; at least two.
        decisions: [n] int64, their classes, see `mixing_weights`.
        seed: Seed of the masks and of the pairs of samples.
    """

    def __init__(self, images: ImageSource, rows: Tensor, decisions: Tensor, seed: int) -> None:
        self._images = images
        self._rows = rows
        self._seed = seed
        weights = mixing_weights(decisions)
        self._cumulative = weights.cumsum(0) / weights.sum()
        self._masks = make_masks(images.read(rows[:1]).shape[1:], seed)

    def rows(self, step: int, count: int) -> Tensor:
        """Returns the numbers of the mixes of a training step, [count] int64."""
        return torch.arange(step * count, (step + 1) * count)

    def read(self, rows: Tensor) -> Tensor:
        """Returns the mixes with these numbers, [n, *image_shape] float32 in [0, 1]."""
        numbers = rows.numpy()
        draws = torch.from_numpy(uniforms(self._seed, numbers, np.zeros_like(numbers), 2)).double()
        last = len(self._rows) - 1
        pairs = torch.searchsorted(self._cumulative, draws, right=True).clamp_max(last)
        background, foreground = different_images(pairs.T, len(self._rows))
        cover = self._masks.draw(rows + _FIRST_MASK).float() / MAX_PIXEL
        under, over = (self._images.read(self._rows[part]) for part in (background, foreground))
        return under.lerp(over, cover)


def different_images(pairs: Tensor, count: int) -> Tensor:
    """Returns pairs of images without those of an image and itself, whose mix would be a copy.

    Args:
        pairs: [2, n] int64, numbers below `count`; the next image replaces a second one that is
            equal to the first.
        count: The number of images.
    """
    first, second = pairs
    return torch.stack([first, torch.where(first == second, (second + 1) % count, second)])


def mixing_weights(decisions: Tensor) -> Tensor:
    """Returns [n] float64, how often each known image is part of a mix.

    The images of a class share a weight that grows with the square root of their number. It is
    raised to at least half of an equal share, or a class that starts rarely reach would stay rare.
    """
    counts = torch.bincount(decisions).double()
    share = counts.sqrt() / counts.sqrt().sum()
    least = _LEAST_MIXING_SHARE / (counts > 0).sum().float()
    return (counts.rsqrt() * (least / share).clamp_min(1))[decisions]
