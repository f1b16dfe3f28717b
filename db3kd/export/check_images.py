"""The images on which an exported file must decide like the student."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from db3kd.arguments.images import UNIT_BOUNDS, check_images
from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.data.table_rows import features_of
from db3kd.teachers.torch_modules.module import ModuleTeacher

CHECKED_IMAGES = 1000

_EDGES = (0, 1, 1 + 37, *range(1 + 37 + 128, CHECKED_IMAGES, 128), CHECKED_IMAGES)
"""A batch ends and the next one begins at each of these images, so batches have 1, 37 and then at
most 128 images. A graph with a fixed batch dimension fails on one of the first two."""


def check_batches(student: ModuleTeacher, images: ImagesLike | None) -> Iterator[Tensor]:
    """Yields 1,000 images in batches of 1, then 37, and then at most 128.

    Yields:
        [n, *image_shape] float32 within the student's bounds.

    Raises:
        TypeError: If the images are of an unknown type.
        ValueError: If the images do not fit the student.
    """
    batches = [range(start, stop) for start, stop in pairwise(_EDGES)]
    if images is None:
        yield from (_random_images(student, rows) for rows in batches)
        return
    source = as_image_source(images)
    features_of(student, source)  # raises if they differ
    count = len(source)
    chosen = torch.linspace(0, count - 1, min(count, CHECKED_IMAGES)).round().long()
    for rows in batches:
        part = chosen[rows.start : rows.stop]
        batch = _random_images(student, range(rows.start + len(part), rows.stop))
        if len(part):
            real = source.read(part)
            check_images(real, student.image_shape, UNIT_BOUNDS, rows=part.tolist())
            batch = torch.cat([_scaled(real.cpu(), student), batch])
        yield batch


def _random_images(student: ModuleTeacher, numbers: range) -> Tensor:
    """Draws images: noise of random level and contrast, and mixes of two such images.

    Noise of one kind often falls into one class. Levels, contrasts and mixes reach more classes.
    The first of the images' numbers is the seed.
    """
    shape = (len(numbers), *student.image_shape)
    generator = torch.Generator().manual_seed(numbers.start)
    levels = torch.rand(shape[:2] + (1,) * (len(shape) - 2), generator=generator)
    contrast = torch.rand(shape[:1] + (1,) * (len(shape) - 1), generator=generator)
    images = levels + 2 * contrast * (torch.rand(shape, generator=generator) - 0.5)
    images.clamp_(0, 1)
    share = torch.rand(contrast.shape, generator=generator).where(contrast > 0.5, 1.0)
    images = images.lerp(images.flip(0), 1 - share)
    return _scaled(images.float(), student)


def _scaled(images: Tensor, student: ModuleTeacher) -> Tensor:
    """Maps images in [0, 1] to the student's bounds."""
    lower, upper = student.bounds
    return (lower + images * (upper - lower)).clamp(lower, upper)
