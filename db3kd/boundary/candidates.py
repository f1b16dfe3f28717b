"""Where rays start from: images at hand that the teacher puts in another class."""

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
    random choice, which depends on (seed, sample index, target) alone.
    """

    def __init__(
        self,
        images: ImageSource,
        decisions: Tensor,
        count: int,
        order: Order = "nearest",
        seed: int = 0,
    ) -> None:
        if count < 1:
            raise ValueError(f"count: expected at least 1 candidate a pair, got {count}")
        if order not in ("nearest", "random"):
            raise ValueError(f"order: expected 'nearest' or 'random', got {order!r}")
        self.images = images
        self.decisions = decisions
        self.count = count
        self.order = order
        self.seed = seed
        self._members = {
            int(c): (decisions == c).nonzero()[:, 0]
            for c in decisions.unique()
            if int(c) != UNANSWERED
        }

    def rays(self, pairs: Pairs) -> Rays:
        """Up to `count` rays a pair, the shortest first; none where no image is of its class."""
        chosen = self._nearest(pairs) if self.order == "nearest" else self._random(pairs)
        present = chosen >= 0
        pair_of = present.nonzero()[:, 0]
        used, end_of = torch.unique(chosen[present], return_inverse=True)
        device = pairs.samples.device
        ends = self.images.read(used).flatten(1).to(device)
        rays = Rays.towards(pairs, ends, pair_of.to(device), end_of.to(device))
        return self._shortest(rays, used.to(device))

    def _shortest(self, rays: Rays, used: Tensor) -> Rays:
        """The `count` shortest rays of each pair, by length and then by image number."""
        rays = rays.select(torch.argsort(used[rays.end_of], stable=True)).shortest_first()
        place = torch.arange(len(rays), device=rays.pair_of.device)
        starts = torch.searchsorted(rays.pair_of, rays.pair_of)
        return rays.select((place - starts < self.count).nonzero()[:, 0])

    def _nearest(self, pairs: Pairs) -> Tensor:
        """[P, count + spare] int64 image numbers, -1 where there are fewer."""
        samples = pairs.samples.cpu()
        sample_of, wanted = pairs.sample_of.cpu(), pairs.wanted.cpu()
        keep = self.count + _SPARE
        best = torch.full((len(pairs), keep), torch.inf)
        chosen = torch.full((len(pairs), keep), -1)
        size = max(1, _BLOCK_BYTES // (samples.shape[1] * samples.element_size()))
        for numbers in torch.arange(len(self.images)).split(size):
            block = self.images.read(numbers).flatten(1)
            # ‖x - c‖² less ‖x‖², which is the same for all candidates of a sample.
            gaps = torch.addmm((block * block).sum(1), samples, block.T, alpha=-2)
            for c in self._members:
                mine = ((wanted == c) == pairs.targeted).nonzero()[:, 0]
                theirs = (self.decisions[numbers] == c).nonzero()[:, 0]
                if not len(mine) or not len(theirs):
                    continue
                near = gaps[:, theirs].topk(min(keep, len(theirs)), largest=False)
                rows = sample_of[mine]
                distance = torch.cat([best[mine], near.values[rows]], dim=1)
                number = torch.cat([chosen[mine], numbers[theirs][near.indices[rows]]], dim=1)
                distance, place = distance.topk(keep, largest=False)
                best[mine], chosen[mine] = distance, number.gather(1, place)
        return chosen

    def _random(self, pairs: Pairs) -> Tensor:
        """[P, count] int64 image numbers, -1 where there are fewer."""
        chosen = torch.full((len(pairs), self.count), -1)
        index = pairs.sample_index[pairs.sample_of].tolist()
        for pair, (sample, wanted) in enumerate(zip(index, pairs.wanted.tolist(), strict=True)):
            pool = self._pool(wanted, pairs.targeted)
            if not len(pool):
                continue
            # The class in a word of its own: streams of classes side by side would overlap.
            bits = np.random.Philox(key=[self.seed, sample], counter=[0, wanted, 0, 0])
            size = min(self.count, len(pool))
            picks = np.random.Generator(bits).choice(len(pool), size, replace=False)
            chosen[pair, : len(picks)] = pool[torch.from_numpy(picks)]
        return chosen

    def _pool(self, wanted: int, targeted: bool) -> Tensor:
        if targeted:
            return self._members.get(wanted, self.decisions.new_empty(0))
        return ((self.decisions != wanted) & (self.decisions != UNANSWERED)).nonzero()[:, 0]
