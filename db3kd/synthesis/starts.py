"""Starts: the random images that pseudo samples begin as, each identified by its number.

The distributions were designed without images or statistics of any data set. They are:

    paper          the noise of ZSDB3KD, pixel by pixel; the only one for inputs that are not images
    low-frequency  smooth noise of any brightness and contrast
    shapes         a soft shape with a texture
    strokes        one or two curves with a texture
    blends         two shapes, which show in different parts of the image
    palettes       a texture whose colours come from a palette
    collages       one to three soft shapes on a background, each with such a texture
    mixed          shapes, blends, strokes and low-frequency in turn; for images of several
                   channels palettes, collages, blends and low-frequency

Shapes, strokes and blends have a black background in 70 % of the images and a textured one in 15 %;
the other 15 % are inverted. Images of several channels are grey to saturated.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.images import INTEGER_DTYPES, check_image_shape
from db3kd.arguments.plain import check_choice, check_seed
from db3kd.errors import ArgumentError
from db3kd.synthesis.fields import low_frequency, paper_noise
from db3kd.synthesis.palettes import collages, palettes
from db3kd.synthesis.random_draws import Array, Draws, draws_for_block
from db3kd.synthesis.shapes import blends, shapes, soft_shapes, strokes

_STREAMS = {"paper": "published"}
"""Random streams that are not named after their distribution. A stream keeps its name forever,
because another name would change all images."""

_FAMILIES: dict[str, Callable[[Draws, Any], Array]] = {
    "paper": paper_noise,
    "low-frequency": low_frequency,
    "shapes": shapes,
    "strokes": strokes,
    "blends": blends,
    "palettes": palettes,
    "collages": collages,
}
"""Functions from random numbers and a shape to images, [images, *shape] float32 in [0, 1]."""

STARTS = (*_FAMILIES, "mixed")
"""Names of the distributions that `make_starts` accepts."""

_MASKS = "masks"
_MIXED_GREY = ("shapes", "blends", "strokes", "low-frequency")
_MIXED_COLOUR = ("palettes", "collages", "blends", "low-frequency")

_BLOCK_IMAGES = 128
_BLOCK_VALUES = 2**17  # 0.5 MiB for each working array, so that the arrays stay in the cache


class Starts(Protocol):
    """A distribution of random images, each identified by its number.

    Example:
        >>> starts = db3kd.make_starts("shapes", (3, 32, 32), seed=0)
        >>> starts.draw(torch.tensor([7])).dtype
        torch.uint8

    Attributes:
        name: Name of the distribution.
        image_shape: Shape of an image.
    """

    name: str
    image_shape: tuple[int, ...]

    def draw(self, index: Tensor) -> Tensor:
        """Returns the images with these numbers.

        An image depends on its number and on the seed, shape and name of the distribution. It does
        not depend on the other numbers, their order, the threads or the process. Ascending numbers
        are fastest.

        Args:
            index: [n] int64, numbers of at least 0.

        Returns:
            [n, *image_shape] uint8 on the CPU. Pixel p stands for the input value
            lower + (upper - lower) · p / 255.
        """
        ...


def make_starts(name: str, image_shape: Sequence[int], seed: int) -> Starts:
    """Returns a distribution of random images.

    Example:
        >>> starts = db3kd.make_starts("mixed", (1, 28, 28), seed=0)
        >>> starts.draw(torch.arange(64)).shape
        torch.Size([64, 1, 28, 28])

    Args:
        name: One of `STARTS`.
        image_shape: (channels, height, width) with 1 to 4 channels and at least 4x4 pixels; any
            shape for "paper".
        seed: Seed of all random numbers, at least 0 and below 2^63.

    Raises:
        ValueError: If an argument is invalid; the error names it.
    """
    check_choice(name, "name", STARTS)
    seed = check_seed(seed)
    shape = check_image_shape(image_shape)
    if name != "paper":
        _check_spatial(name, shape)
    if name == "mixed":
        families = _MIXED_GREY if shape[0] == 1 else _MIXED_COLOUR
        return _Interleaved(name, [_Blocks(family, shape, seed) for family in families])
    return _Blocks(name, shape, seed)


def make_masks(image_shape: Sequence[int], seed: int) -> Starts:
    """Returns masks for masked mixes: soft white shapes on black, with one channel.

    A mask shows one image in another: the first where the mask is white, the second elsewhere.

    Raises:
        ValueError: If the shape is not that of an image.
    """
    shape = check_image_shape(image_shape)
    _check_spatial(_MASKS, shape)
    return _Blocks(_MASKS, (1, *shape[1:]), seed)


class _Blocks:
    """Starts of one family. It draws whole blocks of images and caches the last one."""

    def __init__(self, name: str, image_shape: tuple[int, ...], seed: int) -> None:
        self.name = name
        self.image_shape = image_shape
        self._seed = seed
        self._family: Callable[[Draws, Any], Array] = (
            soft_shapes if name == _MASKS else _FAMILIES[name]
        )
        self._size = min(_BLOCK_IMAGES, max(1, _BLOCK_VALUES // math.prod(image_shape)))
        self._last: tuple[int, Tensor] | None = None

    def draw(self, index: Tensor) -> Tensor:
        index = _checked(index)
        images = torch.empty(len(index), *self.image_shape, dtype=torch.uint8)
        order = index.argsort()
        blocks, counts = (index[order] // self._size).unique_consecutive(return_counts=True)
        for block, rows in zip(blocks.tolist(), order.split(counts.tolist()), strict=True):
            images[rows] = self._block(block)[index[rows] - block * self._size]
        return images

    def _block(self, block: int) -> Tensor:
        last = self._last
        if last is None or last[0] != block:
            stream = f"{_STREAMS.get(self.name, self.name)} {self.image_shape}"
            draws = draws_for_block(self._seed, stream, block, self._size)
            last = (block, _to_uint8(self._family(draws, self.image_shape)))
            self._last = last
        return last[1]


class _Interleaved:
    """Starts of k families in turn: image i is image i // k of family i % k."""

    def __init__(self, name: str, parts: Sequence[Starts]) -> None:
        self.name = name
        self.image_shape = parts[0].image_shape
        self._parts = parts

    def draw(self, index: Tensor) -> Tensor:
        index = _checked(index)
        images = torch.empty(len(index), *self.image_shape, dtype=torch.uint8)
        count = len(self._parts)
        for number, part in enumerate(self._parts):
            rows = (index % count == number).nonzero()[:, 0]
            images[rows] = part.draw(index[rows] // count)
        return images


def _to_uint8(images: Array) -> Tensor:
    """Returns uint8 pixels for values in [0, 1], which it overwrites."""
    images *= 255
    images += 0.5
    return torch.from_numpy(images.astype(np.uint8))


def _checked(index: Tensor) -> Tensor:
    index = torch.as_tensor(index)
    if index.dtype not in INTEGER_DTYPES or index.ndim != 1 or bool((index < 0).any()):
        raise ArgumentError(
            "index",
            f"expected [n] int64 numbers of at least 0, got {list(index.shape)} "
            f"{str(index.dtype).removeprefix('torch.')}"
            + (f" with {int(index.min())}" if index.numel() and index.min() < 0 else ""),
        )
    return index.to("cpu", torch.int64)


def _check_spatial(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or shape[0] > 4 or min(shape[1:]) < 4:
        raise ArgumentError(
            "image_shape",
            "expected (channels, height, width) with 1 to 4 channels and at least 4x4 "
            f"pixels for the starts {name!r}, got {shape}; the starts 'paper' accept any shape",
        )
