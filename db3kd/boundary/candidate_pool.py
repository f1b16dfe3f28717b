"""The images at hand that ends are chosen among, and where they lie."""

import numpy as np
import torch
from torch import Tensor

from db3kd.data.image_source import RESIDENT_BYTES, ImageSource
from db3kd.querying.search import UNANSWERED

_BLOCK_BYTES = {"cpu": 8 * 2**20, "cuda": 64 * 2**20}
"""Memory for what is looked at at once: on a CPU what its caches hold, on a GPU enough to keep it
busy."""


class CandidatePool:
    """At most `most` of the images, spread over the classes; None for all.

    Of a larger set each class gives what it has, up to the number at which all of them fit, drawn
    by the seed; at least one. images: N images. decisions: [N] int64, the teacher's class of each,
    UNANSWERED where it was not asked: these are left out.

    numbers: int64 [n], those of the images in the bank,
    class by class and ascending.
    """

    def __init__(
        self, images: ImageSource, decisions: Tensor, most: int | None = None, seed: int = 0
    ) -> None:
        if most is not None and most < 1:
            raise ValueError(f"bank: expected at least 1 image, or None for all, got {most}")
        self.images = images
        self.decisions = decisions
        self._members = _members(decisions, most, seed)
        self.numbers = torch.cat([decisions.new_empty(0), *self._members.values()])
        self._held: dict[torch.device, Tensor | None] = {}

    def of_class(self, c: int) -> Tensor:
        """int64 [n], ascending: the images of a class."""
        return self._members.get(c, self.numbers[:0])

    def of_other_classes(self, c: int) -> Tensor:
        """int64 [n], ascending: the images of all others."""
        return self.numbers[self.decisions[self.numbers] != c].sort().values

    def read(self, numbers: Tensor, device: torch.device) -> Tensor:
        """Images of the bank as rows on a device: float32 [n, D].

        An accelerator gets all of them the first time and keeps them, unless they are too many.
        """
        if device.type == "cpu":
            return self.images.read(numbers).flatten(1)
        if device not in self._held:
            self._held[device] = self._hold(device)
        held = self._held[device]
        if held is None:
            return self.images.read(numbers).flatten(1).to(device)
        return held[self._place[numbers].to(device)]

    def block_size(self, samples: Tensor) -> int:
        """How many images to look at at once: these, and their gaps to all samples, fit a block."""
        most = _BLOCK_BYTES.get(samples.device.type, _BLOCK_BYTES["cpu"])
        return max(1, most // (max(samples.shape) * samples.element_size()))

    def _hold(self, device: torch.device) -> Tensor | None:
        first = self.images.read(self.numbers[:1]).flatten(1)
        if len(self.numbers) * first.nbytes > RESIDENT_BYTES:
            return None
        self._place = torch.empty_like(self.decisions)
        self._place[self.numbers] = torch.arange(len(self.numbers))
        held = torch.empty(len(self.numbers), first.shape[1], device=device)
        begun = 0
        for numbers in self.numbers.split(self.block_size(held[:1])):
            held[begun : begun + len(numbers)] = self.images.read(numbers).flatten(1)
            begun += len(numbers)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # searches on other streams will read them
        return held


def draw(pool: Tensor, size: int, key: tuple[int, int], counter: tuple[int, ...]) -> Tensor:
    """`size` of the pool, in random order, by the stream that key and counter name."""
    bits = np.random.Philox(key=list(key), counter=list(counter))
    picks = np.random.Generator(bits).choice(len(pool), size, replace=False)
    return pool[torch.from_numpy(picks)]


def _members(decisions: Tensor, most: int | None, seed: int) -> dict[int, Tensor]:
    """The numbers of the images of each class that are in the bank, ascending."""
    by_class = torch.argsort(decisions, stable=True)
    classes, counts = decisions.unique(return_counts=True)
    share = _share(counts[classes != UNANSWERED], most)
    members = {}
    for c, numbers in zip(classes.tolist(), by_class.split(counts.tolist()), strict=True):
        if c == UNANSWERED:
            continue
        if len(numbers) > share:
            numbers = draw(numbers, share, (seed, c), (0, 0, 1, 0)).sort().values
        members[c] = numbers
    return members


def _share(counts: Tensor, most: int | None) -> int:
    """The most images that a class may give so that all fit into the bank, at least 1."""
    largest = int(counts.max()) if len(counts) else 1
    if most is None or int(counts.sum()) <= most:
        return largest
    low, high = 1, largest  # a share of `high` does not fit
    while high - low > 1:
        middle = (low + high) // 2
        fits = int(counts.clamp_max(middle).sum()) <= most
        low, high = (middle, high) if fits else (low, middle)
    return low
