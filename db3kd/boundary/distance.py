"""Sample distance and boundary distance: how far the wanted class is along rays to known images."""

import torch
from torch import Tensor

from db3kd.boundary.bisection import bisect
from db3kd.boundary.pairs import Boundary, Pairs, Rays
from db3kd.boundary.surrogate import Surrogate
from db3kd.querying.search import BudgetView, Search

_SHARE = 0.25
"""Weight of an end in a mixture with the best point."""

_MOST_GAIN = 0.3
"""What a round of mixtures can gain at most, as a share of the distance."""


def sample_distance(pairs: Pairs, rays: Rays, snapshots: tuple[int, ...] = ()) -> Boundary:
    """SD: the distance to the nearest end of each pair (DB3KD, section 3.2). Costs no query.

    rays: towards images the teacher is known to put on the wanted side, the nearest of a pair
    first. A pair without rays has distance +inf.
    """
    boundary = Boundary.unknown(pairs, snapshots)
    nearest = _first_rays(rays)
    reached = rays.pair_of[nearest]
    boundary.distance[reached] = rays.lengths[nearest]
    boundary.points[reached] = rays.ends[rays.end_of[nearest]]
    boundary.note(torch.zeros_like(pairs.sample_of), boundary.distance)
    return boundary


def boundary_distance(
    pairs: Pairs,
    rays: Rays,
    *,
    mixup_rounds: int = 0,
    absolute: float = 1e-5,
    relative: float = 1e-3,
    query_batch_size: int = 2048,
    budget: BudgetView,
    snapshots: tuple[int, ...] = (),
    surrogate: Surrogate | None = None,
) -> Search[Boundary]:
    """BD: the least distance at which a ray of each pair meets the boundary (DB3KD, section 3.2).

    The paper stops there. Each of `mixup_rounds` further rounds turns the rays towards mixtures of
    the pair's best point with each of its ends, since what several images of a class share matters
    more than what is one's own.

    rays: as for `sample_distance`, whose result is the start. absolute, relative: width of the
    final bracket, in input units and as a share of the distance. query_batch_size: images
    per batch. surrogate: compares the rays of each pair, and the teacher is asked about the best
    alone.
    """
    boundary = sample_distance(pairs, rays, snapshots)
    if surrogate is not None:
        rays = surrogate.best_rays(pairs, rays, boundary.distance)
    options = {
        "absolute": absolute,
        "relative": relative,
        "query_batch_size": query_batch_size,
        "budget": budget,
    }
    reached = boundary.distance.nan_to_num(posinf=0)
    yield from bisect(
        pairs, rays, boundary, low=torch.zeros_like(reached), radius=reached / 2, **options
    )
    for _ in range(mixup_rounds):
        mixed = _mixed_rays(pairs, rays, boundary)
        # Where all rays miss, this first radius leaves too little to go on with.
        first = boundary.distance * (1 - relative / 2)
        low = boundary.distance * (1 - _MOST_GAIN)
        yield from bisect(pairs, mixed, boundary, low=low, radius=first, **options)
    return boundary


def _mixed_rays(pairs: Pairs, rays: Rays, boundary: Boundary) -> Rays:
    """A ray for each ray, towards its end's mixture with its pair's best point."""
    ends = rays.ends[rays.end_of] * _SHARE
    ends += boundary.points[rays.pair_of] * (1 - _SHARE)
    numbers = torch.arange(len(rays), device=rays.pair_of.device)
    return Rays.towards(pairs, ends, rays.pair_of, numbers)


def _first_rays(rays: Rays) -> Tensor:
    """[n] int64: the first ray of each pair that has any."""
    if not len(rays):
        return rays.pair_of
    heads = rays.pair_of[1:] != rays.pair_of[:-1]
    return torch.cat([heads.new_ones(1), heads]).nonzero()[:, 0]
