"""Estimates the boundary's normal from the decisions on probes around boundary points."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from db3kd import ops
from db3kd.boundary.pairs import Boundary, Pairs
from db3kd.querying.search import UNANSWERED, Search, query_in_batches


@dataclass(frozen=True)
class Directions:
    """The distribution from which the directions of probes are drawn.

    Attributes:
        noise: The distribution of the coefficients, "rademacher" or "gaussian".
        frequencies: The side of the block of lowest DCT frequencies in which the directions of
            each channel lie; None for all pixels.
        image_shape: `(channels, height, width)`, or any shape if `frequencies` is None.
    """

    noise: ops.Noise
    frequencies: int | None
    image_shape: tuple[int, ...]

    def arguments(self, device: torch.device) -> dict[str, Any]:
        """Returns the arguments of the probe ops that select this distribution."""
        if self.frequencies is None:
            return {"noise": self.noise}
        channels, height, width = self.image_shape
        return {
            "noise": self.noise,
            "row_basis": dct_basis(min(self.frequencies, height), height, device),
            "column_basis": dct_basis(min(self.frequencies, width), width, device),
            "channels": channels,
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
    """Estimates the boundary's normal at the points of some pairs, as Sign-OPT does.

    A probe steps off the boundary point in a random direction and is queried at the point's own
    distance from the sample. So its decision shows whether the boundary is nearer or further away
    in that direction (Cheng et al., ICLR 2020, equation 4).

    Args:
        pairs: All pairs.
        boundary: Their boundary points.
        chosen: [n] int64, the pairs to probe; their distances must be finite.
        directions: The distribution of the directions.
        step: [n] float32, the length of a probe's step, in input units.
        count: The probes of each pair.
        allowed: [n] int64, how many probes each pair queries; at most its remaining budget.
        round_number: The round. Together with `seed` and the pair it selects the directions.
        seed: The seed of the directions.
        query_batch_size: Maximum number of images in a batch.

    Returns:
        [n, D] float32, unit vectors towards the side that meets the criterion; zeros for a pair
        without an answer.
    """
    drawn = {"seed": seed, **directions.arguments(boundary.points.device)}
    counters = pairs.counters(chosen, round_number)
    pairs_per_batch = max(1, query_batch_size // count)
    allowed = allowed.clamp(0, min(count, torch.iinfo(torch.int64).max))
    sums = [part.sum() for part in allowed.split(pairs_per_batch)]
    # On a GPU this is the only synchronisation of the estimate.
    *totals, most = torch.stack([*sums, allowed.max()]).tolist()
    count = max(1, most)  # probes that no pair queries would only take memory
    decisions = torch.full((len(chosen), count), UNANSWERED, device=chosen.device)
    for number, total in enumerate(totals):
        batch = slice(number * pairs_per_batch, (number + 1) * pairs_per_batch)
        here = chosen[batch]
        probes = ops.probe_queries(
            pairs.samples[pairs.sample_of[here]],
            boundary.points[here],
            step[batch],
            counters[batch],
            count=count,
            lower=pairs.bounds[0],
            upper=pairs.bounds[1],
            **drawn,
        )
        asked = None
        if total < len(probes):
            pair, place = _first_of_each(allowed[batch], total)
            asked = pair * count + place
            probes = probes[asked]
            accounts = here[pair]
        else:
            accounts = here[:, None].expand(-1, count).reshape(-1)
        answers = yield from query_in_batches(
            probes.__getitem__, accounts, query_batch_size, prepaid=True
        )
        if asked is None:
            decisions[batch] = answers.view(-1, count)
        else:
            decisions[batch].view(-1)[asked] = answers
    return ops.probe_gradient(
        decisions,
        pairs.criterion_class[chosen],
        counters,
        targeted=pairs.targeted,
        components=boundary.points.shape[1],
        **drawn,
    )


def _first_of_each(counts: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Returns the places 0 to `counts[p] - 1` of each pair p.

    Args:
        counts: [n] int64.
        total: The sum of `counts`, passed in to avoid a GPU synchronisation.

    Returns:
        The pairs and the places, each [total] int64.
    """
    here = torch.arange(len(counts), device=counts.device)
    pair = here.repeat_interleave(counts, output_size=total)
    before = counts.cumsum(0) - counts
    return pair, torch.arange(total, device=counts.device) - before[pair]


@cache
def dct_basis(count: int, size: int, device: torch.device | None = None) -> Tensor:
    """Returns the lowest vectors of the orthonormal DCT-II, and keeps them for further calls.

    Args:
        count: The number of vectors.
        size: The number of points of each.
        device: Where to keep them; the CPU by default.

    Returns:
        [count, size] float32.
    """
    position = torch.arange(size, dtype=torch.float64) + 0.5
    frequency = torch.arange(count, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi / size * position * frequency) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.float().to(device)
