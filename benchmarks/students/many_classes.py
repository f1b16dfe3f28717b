"""A generated classification problem with many classes, some of which are similar."""

import torch
from torch import Tensor

from benchmarks.common.generated import smooth_noise
from db3kd.data.image_set import ImageSet

_SHAPE = (1, 28, 28)
_CLASSES_PER_THEME = 5
"""Classes that share a theme."""

_MAX_SHIFT = 2
"""The most pixels by which an image is shifted, in each direction."""


def many_classes(classes: int, per_class: int, seed: int) -> ImageSet:
    """Generates images [classes · per_class, 1, 28, 28] in [0, 1].

    A class is a smooth random pattern, similar to those of the same theme. Its images are shifted,
    mixed with another smooth pattern and noisy.

    Args:
        classes: The number of classes.
        per_class: The images of each class.
        seed: Draws the images; the classes are the same for every seed.
    """
    patterns = _patterns(classes)
    draw = torch.Generator().manual_seed(1000 + seed)
    labels = torch.arange(classes).repeat(per_class)
    shifts = torch.randint(-_MAX_SHIFT, _MAX_SHIFT + 1, (len(labels), 2), generator=draw)
    moved = torch.stack(
        [
            patterns[label].roll(shift, (0, 1))
            for label, shift in zip(labels.tolist(), shifts.tolist(), strict=True)
        ]
    )
    moved += 0.35 * smooth_noise(len(labels), _SHAPE, 5, draw)[:, 0]
    moved += 0.15 * torch.randn(moved.shape, generator=draw)
    images = (0.5 + 0.2 * moved).clamp_(0, 1)
    return ImageSet.from_arrays(images[:, None], labels, f"{classes} generated classes")


def _patterns(classes: int) -> Tensor:
    """[classes, 28, 28]."""
    draw = torch.Generator().manual_seed(0)
    themes = smooth_noise(-(-classes // _CLASSES_PER_THEME), _SHAPE, 6, draw)[:, 0]
    themes = themes.repeat_interleave(_CLASSES_PER_THEME, 0)[:classes]
    return 0.8 * themes + 0.6 * smooth_noise(classes, _SHAPE, 6, draw)[:, 0]
