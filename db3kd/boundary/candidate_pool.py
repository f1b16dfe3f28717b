"""The candidate pool: the images that starting points are chosen from."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from db3kd.data.image_source import RESIDENT_BYTES, ImageSource
from db3kd.errors import ArgumentError
from db3kd.querying.device_memory import memory_limit
from db3kd.querying.search import UNANSWERED

_BLOCK_BYTES = {"cpu": 8 * 2**20, "cuda": 64 * 2**20}
"""Memory in bytes of the images that are compared at once, by device type.

On a CPU they fit in the caches; on a GPU they are enough to keep it busy.
"""

_RESIDENT_SHARE = 1 / 6
"""The share of a GPU's memory that a pool may take: 20,000 images of 3 x 224 x 224 fit in 80 GB."""


class CandidatePool:
    """All images of a set, or a selection of them that covers the classes evenly.

    If the set has more than `max_images` images, each class contributes up to the same number of
    images, drawn at random, and at least one. The number is the largest for which the pool has at
    most `max_images` images (with more classes than that, the pool has one image per class).

    Example:
        >>> pool = CandidatePool(images, decisions, max_images=20_000)
        >>> cats = pool.of_class(3)

    Args:
        images: N images.
        decisions: [N] int64, the teacher's class of each image. `UNANSWERED` images are left
            out.
        max_images: Maximum number of images in the pool; None for all.
        seed: The seed of the selection.

    Attributes:
        images: The argument.
        decisions: The argument.
        numbers: [n] int64, the numbers of the images in the pool, class by class and ascending
            in each.

    Raises:
        ValueError: If `max_images` is below 1.
    """

    def __init__(
        self,
        images: ImageSource,
        decisions: Tensor,
        max_images: int | None = None,
        seed: int = 0,
    ) -> None:
        if max_images is not None and max_images < 1:
            raise ArgumentError(
                "candidate_pool",
                f"expected at least 1 image, or None for all images, got {max_images}",
            )
        self.images = images
        self.decisions = decisions
        self._by_class = _images_by_class(decisions, max_images, seed)
        self.numbers = torch.cat([decisions.new_empty(0), *self._by_class.values()])
        self._resident: dict[torch.device, Tensor | None] = {}

    def of_class(self, c: int) -> Tensor:
        """Returns the numbers of the images of a class, ascending, [n] int64."""
        return self._by_class.get(c, self.numbers[:0])

    def of_other_classes(self, c: int) -> Tensor:
        """Returns the numbers of the images of all other classes, ascending, [n] int64."""
        return self.numbers[self.decisions[self.numbers] != c].sort().values

    def read(self, numbers: Tensor, device: torch.device) -> Tensor:
        """Reads images of the pool.

        A GPU receives the whole pool in the first call and keeps it, unless it is too large.

        Args:
            numbers: [n] int64, the numbers of the images.
            device: The device of the result.

        Returns:
            [n, D] float32.
        """
        if device.type == "cpu":
            return self.images.read(numbers).flatten(1)
        if device not in self._resident:
            self._resident[device] = self._move_to(device)
        resident = self._resident[device]
        if resident is None:
            return self.images.read(numbers).flatten(1).to(device)
        return resident[self._row_of[numbers].to(device)]

    def block_size(self, samples: Tensor) -> int:
        """Returns how many images to compare at once with samples [S, D].

        That many images, and their distances to all samples, fit the memory of a block.
        """
        most = _BLOCK_BYTES.get(samples.device.type, _BLOCK_BYTES["cpu"])
        return max(1, most // (max(samples.shape) * samples.element_size()))

    @cached_property
    def _row_of(self) -> Tensor:
        """[N] int64, the row of each image of the pool in its copy on a device."""
        row_of = torch.empty_like(self.decisions)
        row_of[self.numbers] = torch.arange(len(self.numbers))
        return row_of

    def _move_to(self, device: torch.device) -> Tensor | None:
        """Copies the pool to a device; None if it is too large to stay there."""
        first = self.images.read(self.numbers[:1]).flatten(1)
        limit = memory_limit(device, RESIDENT_BYTES, _RESIDENT_SHARE)
        if len(self.numbers) * first.nbytes > limit:
            return None
        try:
            resident = first.new_empty(len(self.numbers), first.shape[1], device=device)
        except torch.OutOfMemoryError:  # another program uses the device too
            return None
        start = 0
        for numbers in self.numbers.split(self.block_size(resident[:1])):
            resident[start : start + len(numbers)] = self.images.read(numbers).flatten(1)
            start += len(numbers)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # searches on other streams will read them
        return resident


def draw(pool: Tensor, size: int, key: tuple[int, int], counter: tuple[int, ...]) -> Tensor:
    """Draws entries of a pool without replacement, in random order.

    Args:
        pool: [n] int64.
        size: How many entries to draw.
        key: The key of the Philox generator.
        counter: Its counter, four numbers. Key and counter together select the random stream.

    Returns:
        [size] int64.
    """
    bits = np.random.Philox(key=list(key), counter=list(counter))
    picks = np.random.Generator(bits).choice(len(pool), size, replace=False)
    return pool[torch.from_numpy(picks)]


def _images_by_class(decisions: Tensor, max_images: int | None, seed: int) -> dict[int, Tensor]:
    """Returns the numbers of the images of each class in the pool, ascending."""
    order = torch.argsort(decisions, stable=True)
    classes, counts = decisions.unique(return_counts=True)
    max_per_class = _max_per_class(counts[classes != UNANSWERED], max_images)
    by_class = {}
    for c, numbers in zip(classes.tolist(), order.split(counts.tolist()), strict=True):
        if c == UNANSWERED:
            continue
        if len(numbers) > max_per_class:
            numbers = draw(numbers, max_per_class, (seed, c), (0, 0, 1, 0)).sort().values
        by_class[c] = numbers
    return by_class


def _max_per_class(counts: Tensor, max_images: int | None) -> int:
    """Returns the maximum number of images that a class may contribute, at least 1.

    Args:
        counts: [classes] int64, the number of images of each class.
        max_images: Maximum number of images in the pool; None for all.
    """
    largest = int(counts.max()) if len(counts) else 1
    if max_images is None or int(counts.sum()) <= max_images:
        return largest
    low, high = 1, largest  # with `high` images per class the pool is too large
    while high - low > 1:
        middle = (low + high) // 2
        fits = int(counts.clamp_max(middle).sum()) <= max_images
        low, high = (middle, high) if fits else (low, middle)
    return low
