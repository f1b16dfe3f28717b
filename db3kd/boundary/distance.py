"""Sample distance (SD) and boundary distance (BD): searches along rays to known images."""

from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from db3kd.boundary.bisection import bisect
from db3kd.boundary.pairs import Boundary, Pairs, Rays
from db3kd.boundary.surrogate import Surrogate
from db3kd.querying.search import BudgetView, Search

Measure = Literal["sd", "bd", "mbd"]
"""Sample, boundary and minimal boundary distance (DB3KD, section 3)."""

MEASURES: tuple[Measure, ...] = get_args(Measure)
"""The names of all measures."""

_END_SHARE = 0.25
"""Weight of an end in its mixture with the best point of the pair."""

_MAX_GAIN = 0.3
"""Maximum gain of a mixup round, as a share of the distance."""


def sample_distance(pairs: Pairs, rays: Rays, snapshots: tuple[int, ...] = ()) -> Boundary:
    """Measures SD, the distance to the nearest end of each pair (DB3KD, section 3.2).

    SD costs no query.

    Args:
        pairs: The pairs to measure.
        rays: Rays to images whose decisions meet the criterion, the shortest ray of each pair
            first, as from `StartingPoints.rays`. A pair without rays has the distance +inf.
        snapshots: Numbers of queries at which distances are recorded; all of them record SD.

    Returns:
        The distance of each pair, and the nearest end as its point.
    """
    boundary = Boundary.unknown(pairs, snapshots)
    nearest = _first_rays(rays)
    reached = rays.pair_of[nearest]
    boundary.distance[reached] = rays.lengths[nearest]
    boundary.points[reached] = rays.ends[rays.end_of[nearest]]
    for recorded in boundary.snapshots.values():
        recorded.copy_(boundary.distance)
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
    """Measures BD, the smallest distance at which a ray of each pair crosses the boundary.

    This is the search of DB3KD, section 3.2. The mixup rounds are an addition: each of them turns
    the rays towards mixtures of the pair's best point with each of its ends. This helps because
    features that several images of a class share matter more than those of a single image.

    Example:
        >>> ledger = Ledger(torch.full((len(pairs),), 100))
        >>> rays = StartingPoints(images, decisions, count=10).rays(pairs)
        >>> boundary = run(boundary_distance(pairs, rays, budget=ledger), teacher, ledger)

    Args:
        pairs: The pairs to measure.
        rays: See `sample_distance`. The search starts from that distance.
        mixup_rounds: The number of mixup rounds.
        absolute: The width of the last bracket, in input units; in narrow bounds, as a share of
            their range.
        relative: That width as a share of the distance; the wider of the two applies.
        query_batch_size: Maximum number of images in a batch.
        budget: The queries that each pair has spent and may spend.
        snapshots: Numbers of queries per pair at which distances are recorded.
        surrogate: A network that compares the rays of each pair without a query; only the best ray
            is then searched.

    Returns:
        The distance and the boundary point of each pair.
    """
    boundary = sample_distance(pairs, rays, snapshots)
    if surrogate is not None:
        rays = surrogate.best_rays(pairs, rays, boundary.distance)
    lower, upper = pairs.bounds
    shrink = partial(
        bisect,
        pairs,
        boundary=boundary,
        # Samples may fill a small part of wide bounds, so those do not widen the bracket.
        absolute=absolute * min(1.0, upper - lower),
        relative=relative,
        query_batch_size=query_batch_size,
        budget=budget,
    )
    reached = boundary.distance.nan_to_num(posinf=0)
    yield from shrink(rays, low=torch.zeros_like(reached), radius=reached / 2)
    for _ in range(mixup_rounds):
        mixtures = rays.ends[rays.end_of] * _END_SHARE
        mixtures += boundary.points[rays.pair_of] * (1 - _END_SHARE)
        numbers = torch.arange(len(rays), device=rays.pair_of.device)
        yield from shrink(
            Rays.towards(pairs, mixtures, rays.pair_of, numbers),
            low=boundary.distance * (1 - _MAX_GAIN),
            # If all rays miss at this radius, the pair has too little to gain and is done.
            radius=boundary.distance * (1 - relative / 2),
        )
    return boundary


def _first_rays(rays: Rays) -> Tensor:
    """Returns the first ray of each pair that has any, [n] int64."""
    if not len(rays):
        return rays.pair_of
    is_first = rays.pair_of[1:] != rays.pair_of[:-1]
    return torch.cat([is_first.new_ones(1), is_first]).nonzero()[:, 0]
