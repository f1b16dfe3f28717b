"""Where rays start from: images at hand that the teacher puts in another class."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from db3kd.boundary.candidate_pool import CandidatePool, draw
from db3kd.boundary.pairs import Pairs, Rays
from db3kd.data.image_source import ImageSource

Order = Literal["nearest", "random"]

_SPARE = 4
"""Neighbours kept beyond those asked for, so that rounding in the matrix product of the first pass
cannot lose one that the exact second pass would choose."""


class StartingPoints:
    """Chooses, for each pair, images of the wanted class as ends.

    images: N images. decisions: [N] int64, the teacher's class of each, UNANSWERED where it was not
    asked. count: ends per pair. order: "nearest" (L2), or "random" as published. seed: of the
    random choice, which depends on (seed, sample index, target) alone. bank: most images in all
    that ends are chosen among, so that what a sample takes does not grow with N; None for all (see
    Bank).
    """

    def __init__(
        self,
        images: ImageSource,
        decisions: Tensor,
        count: int,
        order: Order = "nearest",
        seed: int = 0,
        candidate_pool: int | None = None,
    ) -> None:
        if count < 1:
            raise ValueError(f"count: expected at least 1 candidate a pair, got {count}")
        if order not in ("nearest", "random"):
            raise ValueError(f"order: expected 'nearest' or 'random', got {order!r}")
        self.candidate_pool = CandidatePool(images, decisions, candidate_pool, seed)
        self.count = count
        self.order = order
        self.seed = seed

    def rays(self, pairs: Pairs, counts: Tensor | None = None) -> Rays:
        """Up to `count` rays a pair, the shortest first; none where no image is of its class.

        counts: [P] int64, how many rays of each pair are wanted; no more than `count`.
        """
        chosen = (
            self._nearest(pairs, self.count) if self.order == "nearest" else self._random(pairs)
        )
        present = chosen >= 0
        pair_of = present.nonzero()[:, 0]
        used, end_of = torch.unique(chosen[present], return_inverse=True)
        device = pairs.samples.device
        ends = self.candidate_pool.read(used, device)
        rays = Rays.towards(pairs, ends, pair_of.to(device), end_of.to(device))
        return self._shortest(rays, used.to(device), counts)

    def nearest_distance(self, pairs: Pairs) -> Tensor:
        """[P] float32 on the CPU: L2 to the nearest image of each pair's class, whatever `order`;
        or +inf.

        Unlike that of `rays`, memory does not grow with pairs times the size of an image.
        """
        chosen = self._nearest(pairs, 1)
        present = chosen >= 0
        numbers, pair_of = chosen[present], present.nonzero()[:, 0]
        order = torch.argsort(numbers)
        used, uses = torch.unique(numbers, return_counts=True)
        size = self.candidate_pool.block_size(pairs.samples)
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
        ends = self.candidate_pool.read(block, device)
        return Rays.towards(pairs, ends, chosen.to(device), end_of.to(device)).lengths.cpu()

    def _shortest(self, rays: Rays, used: Tensor, counts: Tensor | None) -> Rays:
        """The `count` or fewer shortest rays of each pair, by length and then by image number."""
        rays = rays.select(torch.argsort(used[rays.end_of], stable=True)).shortest_first()
        place = torch.arange(len(rays), device=rays.pair_of.device)
        starts = torch.searchsorted(rays.pair_of, rays.pair_of)
        most = self.count if counts is None else counts[rays.pair_of].clamp_max(self.count)
        return rays.select((place - starts < most).nonzero()[:, 0])

    def _nearest(self, pairs: Pairs, count: int) -> Tensor:
        """[P, count + spare] int64 image numbers, -1 where there are fewer."""
        samples, sample_of = pairs.samples, pairs.sample_of
        device, keep = samples.device, count + _SPARE
        seeking = _by_class(pairs)
        best = samples.new_full((len(pairs), keep), torch.inf)
        chosen = sample_of.new_full((len(pairs), keep), -1)
        for numbers in self.candidate_pool.numbers.split(self.candidate_pool.block_size(samples)):
            block = self.candidate_pool.read(numbers, device)
            # ‖x - c‖² less ‖x‖², which is the same for all candidates of a sample.
            gaps = torch.addmm((block * block).sum(1), samples, block.T, alpha=-2)
            classes = self.candidate_pool.decisions[numbers]
            for c in classes.unique().tolist():
                mine = seeking(c)
                if not len(mine):
                    continue
                theirs = (classes == c).nonzero()[:, 0]
                near = gaps[:, theirs.to(device)].topk(min(keep, len(theirs)), largest=False)
                rows, found = sample_of[mine], numbers[theirs].to(device)
                distance = torch.cat([best[mine], near.values[rows]], dim=1)
                number = torch.cat([chosen[mine], found[near.indices[rows]]], dim=1)
                distance, place = distance.topk(keep, largest=False)
                best[mine], chosen[mine] = distance, number.gather(1, place)
        return chosen.cpu()

    def _random(self, pairs: Pairs) -> Tensor:
        """[P, count] int64 image numbers, -1 where there are fewer."""
        chosen = torch.full((len(pairs), self.count), -1)
        index = pairs.sample_index[pairs.sample_of].tolist()
        pool_of = (
            self.candidate_pool.of_class if pairs.targeted else self.candidate_pool.of_other_classes
        )
        for pair, (sample, criterion) in enumerate(
            zip(index, pairs.criterion_class.tolist(), strict=True)
        ):
            pool = pool_of(criterion)
            if not len(pool):
                continue
            # The class in a word of its own: streams of classes side by side would overlap.
            picks = draw(
                pool, min(self.count, len(pool)), (self.seed, sample), (0, criterion, 0, 0)
            )
            chosen[pair, : len(picks)] = picks
        return chosen


def _by_class(pairs: Pairs) -> Callable[[int], Tensor]:
    """A function from a class to the pairs that look for images of it, int64 [n]."""
    criterion = pairs.criterion_class.cpu()
    device = pairs.criterion_class.device
    if not pairs.targeted:
        return lambda c: (criterion != c).nonzero()[:, 0].to(device)
    classes, counts = criterion.unique(return_counts=True)
    parts = torch.argsort(criterion, stable=True).to(device).split(counts.tolist())
    groups = dict(zip(classes.tolist(), parts, strict=True))
    return lambda c: groups.get(c, pairs.criterion_class[:0])
