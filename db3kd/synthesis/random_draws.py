"""Random numbers for blocks of images: independent for each seed, distribution and block."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Draws:
    """A source of random numbers for one block of images.

    Attributes:
        generator: The random number generator; each method advances it.
        images: Number of images, the length of the first axis of all results.
    """

    generator: np.random.Generator
    images: int

    def uniform(self, low: float, high: float, sizes: Sequence[int] = (1, 1, 1)) -> Array:
        """Returns [images, *sizes] float32, uniform in [low, high)."""
        numbers = self.generator.random((self.images, *sizes), dtype=np.float32)
        numbers *= high - low
        numbers += low
        return numbers

    def log_uniform(self, low: float, high: float) -> Array:
        """Returns [images, 1, 1, 1] float32, with logarithms uniform in [log(low), log(high))."""
        return np.exp(self.uniform(math.log(low), math.log(high)))

    def normal(self, sizes: Sequence[int]) -> Array:
        """Returns [images, *sizes] float32, normal with mean 0 and standard deviation 1."""
        return self.generator.standard_normal((self.images, *sizes), dtype=np.float32)

    def bernoulli(self, probability: float, sizes: Sequence[int] = (1, 1, 1)) -> NDArray[np.bool_]:
        """Returns [images, *sizes] bool, each True with this probability."""
        return self.uniform(0, 1, sizes) < probability

    def for_images(self, images: int) -> "Draws":
        """Returns a view of the same generator that draws for this number of images."""
        return Draws(self.generator, images)


def draws_for_block(seed: int, stream: str, block: int, images: int) -> Draws:
    """Returns the random numbers of a block.

    The generator is Philox (Salmon et al., SC 2011). Its key is the seed and a hash of the stream's
    name, and its counter starts at the block number. So blocks and streams do not overlap, and a
    block does not depend on earlier blocks. NumPy draws in one thread.

    Args:
        seed: At least 0 and below 2^63.
        stream: Name of the distribution.
        block: Number of the block, at least 0 and below 2^63.
        images: Number of images in the block.
    """
    name = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    key = np.array([seed, int.from_bytes(name, "little")], dtype=np.uint64)
    counter = np.array([0, block, 0, 0], dtype=np.uint64)
    return Draws(np.random.Generator(np.random.Philox(key=key, counter=counter)), images)
