"""Where rays start from: images at hand that the teacher puts in another class."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from db3kd.boundary.pairs import Pairs, Rays
from db3kd.reader import RESIDENT_BYTES, ImageSource
from db3kd.search import UNANSWERED

Order = Literal["nearest", "random"]

_BLOCK_BYTES = {"cpu": 8 * 2**20, "cuda": 64 * 2**20}
"""Memory for the images of the set that are looked at at once while neighbours are sought: on a CPU
what its caches hold, on a GPU enough to keep it busy."""

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
        self._held: dict[torch.device, Tensor | None] = {}

    def rays(self, pairs: Pairs) -> Rays:
        """Up to `count` rays a pair, the shortest first; none where no image is of its class."""
        chosen = self._nearest(pairs) if self.order == "nearest" else self._random(pairs)
        present = chosen >= 0
        pair_of = present.nonzero()[:, 0]
        used, end_of = torch.unique(chosen[present], return_inverse=True)
        device = pairs.samples.device
        ends = self._read(used, device)
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
        samples, sample_of, wanted = pairs.samples, pairs.sample_of, pairs.wanted.cpu()
        device, keep = samples.device, self.count + _SPARE
        best = samples.new_full((len(pairs), keep), torch.inf)
        chosen = sample_of.new_full((len(pairs), keep), -1)
        seekers = {c: ((wanted == c) == pairs.targeted).nonzero()[:, 0] for c in self._members}
        seekers = {c: mine.to(device) for c, mine in seekers.items() if len(mine)}
        size = _block_size(samples.shape[1], device)
        for numbers in torch.arange(len(self.images)).split(size):
            block = self._read(numbers, device)
            # ‖x - c‖² less ‖x‖², which is the same for all candidates of a sample.
            gaps = torch.addmm((block * block).sum(1), samples, block.T, alpha=-2)
            for c, mine in seekers.items():
                theirs = (self.decisions[numbers] == c).nonzero()[:, 0]
                if not len(theirs):
                    continue
                near = gaps[:, theirs.to(device)].topk(min(keep, len(theirs)), largest=False)
                rows, found = sample_of[mine], numbers[theirs].to(device)
                distance = torch.cat([best[mine], near.values[rows]], dim=1)
                number = torch.cat([chosen[mine], found[near.indices[rows]]], dim=1)
                distance, place = distance.topk(keep, largest=False)
                best[mine], chosen[mine] = distance, number.gather(1, place)
        return chosen.cpu()

    def _read(self, numbers: Tensor, device: torch.device) -> Tensor:
        """Images as rows on the device: float32 [n, D]."""
        if device.type == "cpu":
            return self.images.read(numbers).flatten(1)
        if device not in self._held:
            self._held[device] = _hold(self.images, device)
        held = self._held[device]
        if held is None:
            return self.images.read(numbers).flatten(1).to(device)
        return held[numbers.to(device)]

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


def _block_size(values: int, device: torch.device) -> int:
    """Images of a block, of so many float32 values each."""
    return max(1, _BLOCK_BYTES.get(device.type, _BLOCK_BYTES["cpu"]) // (4 * values))


def _hold(images: ImageSource, device: torch.device) -> Tensor | None:
    """All images as rows on a device, to be read for each chunk; None where they are too many."""
    first = images.read(torch.zeros(1, dtype=torch.int64)).flatten(1)
    if len(images) * first.nbytes > RESIDENT_BYTES:
        return None
    held = torch.empty(len(images), first.shape[1], device=device)
    for numbers in torch.arange(len(images)).split(_block_size(first.shape[1], device)):
        held[numbers[0] : numbers[-1] + 1] = images.read(numbers).flatten(1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # searches on other streams will read them
    return held
