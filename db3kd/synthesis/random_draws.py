"""Random numbers in blocks, from a stream for each seed, distribution and block."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Draws:
    """Random float32 numbers for one block of images, a row for each image.

    Attributes:
        generator: Source of the numbers.
        images: Number of images.
    """

    generator: np.random.Generator
    images: int

    def uniform(self, low: float, high: float, sizes: Sequence[int] = (1, 1, 1)) -> Array:
        """Draws [images, *sizes], uniform in [low, high)."""
        numbers = self.generator.random((self.images, *sizes), dtype=np.float32)
        numbers *= high - low
        numbers += low
        return numbers

    def log_uniform(self, low: float, high: float, sizes: Sequence[int] = (1, 1, 1)) -> Array:
        """Draws [images, *sizes], whose logarithm is uniform in [log low, log high)."""
        return np.exp(self.uniform(math.log(low), math.log(high), sizes))

    def normal(self, sizes: Sequence[int]) -> Array:
        """Draws [images, *sizes], normal with mean 0 and deviation 1."""
        return self.generator.standard_normal((self.images, *sizes), dtype=np.float32)

    def happens(self, share: float, sizes: Sequence[int] = (1, 1, 1)) -> NDArray[np.bool_]:
        """Draws [images, *sizes], true with probability `share`."""
        return self.uniform(0, 1, sizes) < share

    def some(self, images: int) -> "Draws":
        """Returns the same stream for `images` of the images."""
        return Draws(self.generator, images)


def draws_of(seed: int, stream: str, block: int, images: int) -> Draws:
    """Returns the random numbers of a block.

    The generator is Philox (Salmon et al., SC 2011), with the seed and a hash of the name of the
    stream as key and the block in its counter. Blocks and streams do not overlap, and any block can
    be drawn without the previous ones. NumPy draws in one thread.

    Args:
        seed: At least 0 and below 2^63.
        stream: Name of the stream.
        block: Number of the block, at least 0 and below 2^63.
        images: Number of images of the block.
    """
    name = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    key = np.array([seed, int.from_bytes(name, "little")], dtype=np.uint64)
    counter = np.array([0, block, 0, 0], dtype=np.uint64)
    return Draws(np.random.Generator(np.random.Philox(key=key, counter=counter)), images)
