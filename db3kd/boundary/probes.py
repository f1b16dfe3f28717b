"""Estimating the boundary's normal from the signs of probes around boundary points."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from db3kd import ops
from db3kd.boundary.pairs import Boundary, Pairs
from db3kd.querying.search import UNANSWERED, Search, query_in_batches


@dataclass(frozen=True)
class Directions:
    """The distribution that probe directions are drawn from.

    noise: "rademacher" or "gaussian". frequencies: side of the block of lowest DCT frequencies in
    which directions lie, a channel at a time; None for all pixels. image_shape: (channels, height,
    width) where frequencies are given, else anything.
    """

    noise: ops.Noise
    frequencies: int | None
    image_shape: tuple[int, ...]

    def arguments(self, device: torch.device) -> dict[str, object]:
        """What the probe ops need to know of it."""
        if self.frequencies is None:
            return {"noise": self.noise}
        channels, height, width = self.image_shape
        return {
            "noise": self.noise,
            "channels": channels,
            "row_basis": dct_basis(min(self.frequencies, height), height, device),
            "column_basis": dct_basis(min(self.frequencies, width), width, device),
        }


def probe_normals(
    pairs: Pairs,
    boundary: Boundary,
    chosen: Tensor,
    *,
    directions: Directions,
    step: Tensor,
    count: int,
    allowed: Tensor,
    round_number: int,
    seed: int,
    query_batch_size: int,
) -> Search[Tensor]:
    """Sign-OPT's estimate of the normal at the boundary points of some pairs.

    A probe steps off the boundary point in a random direction and is asked at the point's own
    distance from the sample, so that its decision says whether that direction is nearer to the
    boundary or further (Cheng et al., ICLR 2020, equation 4).

    chosen: [n] int64, pairs with a finite distance. step: [n] float32, length of a probe's step, in
    input units. count: probes of each pair; allowed: [n] int64, how many of them it may ask, no
    more than its purse has. seed, round_number: name the directions. query_batch_size: images
    per batch.

    Returns [n, D] float32: unit vectors towards the wanted side, zeros where nothing was answered.
    """
    drawn = directions.arguments(boundary.points.device)
    counters = pairs.counters(chosen, round_number)
    decisions = torch.full((len(chosen), count), UNANSWERED, device=chosen.device)
    numbers = torch.arange(len(chosen), device=chosen.device)
    allowed, pairs_a_batch = allowed.clamp(0, count), max(1, query_batch_size // count)
    # All that the host hears of a round.
    asked = torch.stack([part.sum() for part in allowed.split(pairs_a_batch)]).tolist()
    for batch, total in zip(numbers.split(pairs_a_batch), asked, strict=True):
        queries = ops.probe_queries(
            pairs.samples[pairs.sample_of[chosen[batch]]],
            boundary.points[chosen[batch]],
            step[batch],
            counters[batch],
            seed=seed,
            count=count,
            lower=pairs.bounds[0],
            upper=pairs.bounds[1],
            **drawn,
        )
        pair, place = _first_of_each(allowed[batch], total)
        if total < len(queries):
            queries = queries[pair * count + place]
        accounts = chosen[batch][pair]
        answers = yield from query_in_batches(
            lambda part, queries=queries: queries[part], accounts, query_batch_size, prepaid=True
        )
        decisions[batch[pair], place] = answers
    return ops.probe_gradient(
        decisions,
        pairs.criterion_class[chosen],
        counters,
        targeted=pairs.targeted,
        seed=seed,
        components=boundary.points.shape[1],
        **drawn,
    )


def _first_of_each(counts: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """The first counts[p] places of each pair p in turn: int64 [total] pairs, and places.

    total: the sum of counts [n] int64, so that the device need not be asked for it.
    """
    here = torch.arange(len(counts), device=counts.device)
    pair = here.repeat_interleave(counts, output_size=total)
    before = counts.cumsum(0) - counts
    return pair, torch.arange(total, device=counts.device) - before[pair]


@cache
def dct_basis(count: int, size: int, device: torch.device | None = None) -> Tensor:
    """The lowest vectors of the orthonormal DCT-II over `size` points: float32 [count, size].

    device: where to keep them, by default on the CPU; each is taken there once.
    """
    position = torch.arange(size, dtype=torch.float64) + 0.5
    frequency = torch.arange(count, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi / size * position * frequency) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.float().to(device)
