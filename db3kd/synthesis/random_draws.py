"""Random numbers by block: a stream for each (seed, distribution), and in it one for each block."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Draws:
    """What one block of images is drawn from: float32 numbers, a row for each of its images."""

    generator: np.random.Generator
    images: int

    def uniform(self, low: float, high: float, sizes: Sequence[int] = (1, 1, 1)) -> Array:
        """[images, *sizes], uniform in [low, high)."""
        numbers = self.generator.random((self.images, *sizes), dtype=np.float32)
        numbers *= high - low
        numbers += low
        return numbers

    def log_uniform(self, low: float, high: float, sizes: Sequence[int] = (1, 1, 1)) -> Array:
        """[images, *sizes], its logarithm uniform in [log low, log high)."""
        return np.exp(self.uniform(math.log(low), math.log(high), sizes))

    def normal(self, sizes: Sequence[int]) -> Array:
        """[images, *sizes], normal with mean 0 and deviation 1."""
        return self.generator.standard_normal((self.images, *sizes), dtype=np.float32)

    def happens(self, share: float, sizes: Sequence[int] = (1, 1, 1)) -> NDArray[np.bool_]:
        """[images, *sizes], true with probability `share`."""
        return self.uniform(0, 1, sizes) < share

    def some(self, images: int) -> "Draws":
        """The same stream, drawn from for `images` of the images only."""
        return Draws(self.generator, images)


def draws_of(seed: int, stream: str, block: int, images: int) -> Draws:
    """The draws of a block.

    A Philox generator (Salmon et al., SC 2011) with the seed and a hash of the stream's name as its
    key and the block in its counter: blocks and streams do not overlap, and any block can be drawn
    without those before it. NumPy draws in one thread.

    Args:
        seed: at least 0 and below 2^63.
        stream: name of the distribution.
        block: its number, at least 0 and below 2^63.
        images: how many images it has.
    """
    name = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    key = np.array([seed, int.from_bytes(name, "little")], dtype=np.uint64)
    counter = np.array([0, block, 0, 0], dtype=np.uint64)
    return Draws(np.random.Generator(np.random.Philox(key=key, counter=counter)), images)
