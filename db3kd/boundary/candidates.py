"""Where rays start from: images at hand that the teacher puts in another class."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from db3kd.boundary.pairs import Pairs, Rays
from db3kd.reader import ImageSource
from db3kd.search import UNANSWERED

Order = Literal["nearest", "random"]

_BLOCK_BYTES = 8 * 2**20
"""Memory for the images of the set that are held at once while neighbours are sought."""

_SPARE = 4
"""Neighbours kept beyond those asked for, so that rounding in the matrix product of the first pass
cannot lose one that the exact second pass would choose."""


class Candidates:
    """Chooses, for each pair, images of the wanted class as ends.

    images: N images. decisions: [N] int64, the teacher's class of each, UNANSWERED where it was not
    asked. count: ends per pair. order: "nearest" (L2), or "random" as published. seed: of the
    random choice, which depends on (seed, sample index, target) alone. bank: most images in all
    that ends are chosen among, so that what a sample takes does not grow with N; None for all. Of a
    larger set, each class gives what it has, up to the number at which all of them fit, drawn by
    the seed; at least one.
    """

    def __init__(
        self,
        images: ImageSource,
        decisions: Tensor,
        count: int,
        order: Order = "nearest",
        seed: int = 0,
        bank: int | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"count: expected at least 1 candidate a pair, got {count}")
        if order not in ("nearest", "random"):
            raise ValueError(f"order: expected 'nearest' or 'random', got {order!r}")
        if bank is not None and bank < 1:
            raise ValueError(f"bank: expected at least 1 image, or None for all, got {bank}")
        self.images = images
        self.decisions = decisions
        self.count = count
        self.order = order
        self.seed = seed
        self._members = _members(decisions, bank, seed)
        self._bank = torch.cat([decisions.new_empty(0), *self._members.values()])

    def rays(self, pairs: Pairs) -> Rays:
        """Up to `count` rays a pair, the shortest first; none where no image is of its class."""
        chosen = (
            self._nearest(pairs, self.count) if self.order == "nearest" else self._random(pairs)
        )
        present = chosen >= 0
        pair_of = present.nonzero()[:, 0]
        used, end_of = torch.unique(chosen[present], return_inverse=True)
        device = pairs.samples.device
        ends = self.images.read(used).flatten(1).to(device)
        rays = Rays.towards(pairs, ends, pair_of.to(device), end_of.to(device))
        return self._shortest(rays, used.to(device))

    def nearest_distance(self, pairs: Pairs) -> Tensor:
        """[P] float32: L2 to the nearest image of each pair's class, whatever `order`; or +inf.

        Unlike that of `rays`, memory does not grow with pairs times the size of an image.
        """
        chosen = self._nearest(pairs, 1)
        present = chosen >= 0
        numbers, pair_of = chosen[present], present.nonzero()[:, 0]
        order = torch.argsort(numbers)
        used, uses = torch.unique(numbers, return_counts=True)
        size = self._block_size(pairs)
        nearest = torch.full((len(pairs),), torch.inf)
        parts = order.split([int(part.sum()) for part in uses.split(size)])
        for block, part in zip(used.split(size), parts, strict=True):
            mine = pair_of[part]
            lengths = self._lengths(pairs, mine, block, torch.searchsorted(block, numbers[part]))
            nearest.scatter_reduce_(0, mine, lengths, "amin")
        return nearest

    def _lengths(self, pairs: Pairs, chosen: Tensor, block: Tensor, end_of: Tensor) -> Tensor:
        """[n] float32: from the samples of the chosen pairs to images of a block."""
        device = pairs.samples.device
        ends = self.images.read(block).flatten(1).to(device)
        return Rays.towards(pairs, ends, chosen.to(device), end_of.to(device)).lengths.cpu()

    def _shortest(self, rays: Rays, used: Tensor) -> Rays:
        """The `count` shortest rays of each pair, by length and then by image number."""
        rays = rays.select(torch.argsort(used[rays.end_of], stable=True)).shortest_first()
        place = torch.arange(len(rays), device=rays.pair_of.device)
        starts = torch.searchsorted(rays.pair_of, rays.pair_of)
        return rays.select((place - starts < self.count).nonzero()[:, 0])

    def _nearest(self, pairs: Pairs, count: int) -> Tensor:
        """[P, count + spare] int64 image numbers, -1 where there are fewer."""
        samples, sample_of = pairs.samples.cpu(), pairs.sample_of.cpu()
        seeking = _by_class(pairs)
        keep = count + _SPARE
        best = torch.full((len(pairs), keep), torch.inf)
        chosen = torch.full((len(pairs), keep), -1)
        for numbers in self._bank.split(self._block_size(pairs)):
            block = self.images.read(numbers).flatten(1)
            # ‖x - c‖² less ‖x‖², which is the same for all candidates of a sample.
            gaps = torch.addmm((block * block).sum(1), samples, block.T, alpha=-2)
            classes = self.decisions[numbers]
            for c in classes.unique().tolist():
                mine = seeking(c)
                if not len(mine):
                    continue
                theirs = (classes == c).nonzero()[:, 0]
                near = gaps[:, theirs].topk(min(keep, len(theirs)), largest=False)
                rows = sample_of[mine]
                distance = torch.cat([best[mine], near.values[rows]], dim=1)
                number = torch.cat([chosen[mine], numbers[theirs][near.indices[rows]]], dim=1)
                distance, place = distance.topk(keep, largest=False)
                best[mine], chosen[mine] = distance, number.gather(1, place)
        return chosen

    def _block_size(self, pairs: Pairs) -> int:
        """Images held at once: these, and their gaps to all samples, fit into a block."""
        return max(1, _BLOCK_BYTES // (max(pairs.samples.shape) * pairs.samples.element_size()))

    def _random(self, pairs: Pairs) -> Tensor:
        """[P, count] int64 image numbers, -1 where there are fewer."""
        chosen = torch.full((len(pairs), self.count), -1)
        index = pairs.sample_index[pairs.sample_of].tolist()
        for pair, (sample, wanted) in enumerate(zip(index, pairs.wanted.tolist(), strict=True)):
            pool = self._pool(wanted, pairs.targeted)
            if not len(pool):
                continue
            # The class in a word of its own: streams of classes side by side would overlap.
            picks = _draw(pool, min(self.count, len(pool)), (self.seed, sample), (0, wanted, 0, 0))
            chosen[pair, : len(picks)] = picks
        return chosen

    def _pool(self, wanted: int, targeted: bool) -> Tensor:
        if targeted:
            return self._members.get(wanted, self.decisions.new_empty(0))
        return self._bank[self.decisions[self._bank] != wanted].sort().values


def _members(decisions: Tensor, bank: int | None, seed: int) -> dict[int, Tensor]:
    """The numbers of the images of each class that are in the bank, ascending."""
    by_class = torch.argsort(decisions, stable=True)
    classes, counts = decisions.unique(return_counts=True)
    share = _share(counts[classes != UNANSWERED], bank)
    members = {}
    for c, numbers in zip(classes.tolist(), by_class.split(counts.tolist()), strict=True):
        if c == UNANSWERED:
            continue
        if len(numbers) > share:
            numbers = _draw(numbers, share, (seed, c), (0, 0, 1, 0)).sort().values
        members[c] = numbers
    return members


def _share(counts: Tensor, bank: int | None) -> int:
    """The most images that a class may give so that all fit into the bank, at least 1."""
    most = int(counts.max()) if len(counts) else 1
    if bank is None or int(counts.sum()) <= bank:
        return most
    low, high = 1, most  # a share of `high` does not fit
    while high - low > 1:
        middle = (low + high) // 2
        fits = int(counts.clamp_max(middle).sum()) <= bank
        low, high = (middle, high) if fits else (low, middle)
    return low


def _draw(pool: Tensor, size: int, key: tuple[int, int], counter: tuple[int, ...]) -> Tensor:
    """`size` of the pool, in random order, by the stream that key and counter name."""
    bits = np.random.Philox(key=list(key), counter=list(counter))
    picks = np.random.Generator(bits).choice(len(pool), size, replace=False)
    return pool[torch.from_numpy(picks)]


def _by_class(pairs: Pairs) -> Callable[[int], Tensor]:
    """A function from a class to the pairs that look for images of it, int64 [n]."""
    wanted = pairs.wanted.cpu()
    if not pairs.targeted:
        return lambda c: (wanted != c).nonzero()[:, 0]
    classes, counts = wanted.unique(return_counts=True)
    parts = torch.argsort(wanted, stable=True).split(counts.tolist())
    groups = dict(zip(classes.tolist(), parts, strict=True))
    return lambda c: groups.get(c, wanted.new_empty(0))
