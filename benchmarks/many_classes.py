"""A made-up classification problem with many classes, some of which are much alike."""

import torch
import torch.nn.functional as F
from torch import Tensor

from db3kd.data import ImageSet

_SIDE = 28
_KIN = 5
"""Classes that vary one theme."""

_FARTHEST = 2
"""Pixels that an image is shifted by at most, either way."""


def many_classes(classes: int, per_class: int, seed: int) -> ImageSet:
    """Images [classes · per_class, 1, 28, 28] in [0, 1]; other seeds give others of each class.

    A class is a smooth random pattern, close to those of its kin; its images are shifted, mixed
    with a smooth pattern of their own, and noisy.
    """
    patterns = _patterns(classes)
    draw = torch.Generator().manual_seed(1000 + seed)
    labels = torch.arange(classes).repeat(per_class)
    shifts = torch.randint(-_FARTHEST, _FARTHEST + 1, (len(labels), 2), generator=draw)
    moved = torch.stack(
        [
            patterns[label].roll(shift, (0, 1))
            for label, shift in zip(labels.tolist(), shifts.tolist(), strict=True)
        ]
    )
    moved += 0.35 * _smooth(len(labels), 5, draw)
    moved += 0.15 * torch.randn(moved.shape, generator=draw)
    images = (0.5 + 0.2 * moved).clamp_(0, 1)
    return ImageSet.from_arrays(images[:, None], labels, f"{classes} generated classes")


def _patterns(classes: int) -> Tensor:
    """[classes, 28, 28]."""
    draw = torch.Generator().manual_seed(0)
    themes = _smooth(-(-classes // _KIN), 6, draw).repeat_interleave(_KIN, 0)[:classes]
    return 0.8 * themes + 0.6 * _smooth(classes, 6, draw)


def _smooth(count: int, cells: int, draw: torch.Generator) -> Tensor:
    """[count, 28, 28]: normal noise of so many cells a side, interpolated."""
    coarse = torch.randn(count, 1, cells, cells, generator=draw)
    return F.interpolate(coarse, _SIDE, mode="bicubic", align_corners=True)[:, 0]
