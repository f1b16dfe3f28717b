"""Shared-radius bisection: all rays of a pair are bisected at one radius."""

import torch
from torch import Tensor

from db3kd import ops
from db3kd.boundary.pairs import Boundary, Pairs, Rays
from db3kd.querying.search import BudgetView, Search, query_in_batches

_MAX_ROUNDS = 64
"""Upper bound on rounds; by then no float32 is left between the ends of a bracket."""


def bisect(
    pairs: Pairs,
    rays: Rays,
    boundary: Boundary,
    *,
    low: Tensor,
    radius: Tensor,
    absolute: float,
    relative: float,
    query_batch_size: int,
    budget: BudgetView,
) -> Search[Tensor]:
    """Shrinks the distance of each pair to the smallest radius at which one of its rays hits.

    Each round queries all rays of a pair at one radius. If any of them hits, the rays that missed
    cross the boundary further out, so they are dropped without another query; in the end only the
    best ray is bisected. If no ray hits, the low end of the bracket rises to the radius.

    On a GPU each round takes two launches, apart from the teacher's own, and synchronises once, to
    read the number of remaining rays, while their queries are being written. The whole search
    synchronises twice more.

    Args:
        pairs: The pairs to search.
        rays: The rays to search.
        boundary: Updated in place. Its distance is the high end of the bracket, and must be
            finite for every pair with rays.
        low: [P] float32, the low end of the bracket.
        radius: [P] float32, the first radius, inside the bracket.
        absolute: The width of the bracket at which a pair is done, in input units.
        relative: That width as a share of the distance; the wider of the two applies.
        query_batch_size: Maximum number of images in a batch.
        budget: The queries that each pair has spent and may spend.

    Returns:
        The ray that now holds the best point of each pair, [P] int64; -1 if none improved it.
    """
    high, winner = boundary.distance.clone(), torch.full_like(pairs.sample_of, -1)
    low, radius = low.clone(), radius.clone()
    active = torch.arange(len(rays), device=rays.pair_of.device)
    accounts = rays.pair_of

    def points(chosen: Tensor, at: Tensor) -> Tensor:
        return ops.bracket_queries(
            pairs.samples, rays.ends, pairs.sample_of, rays.pair_of, rays.end_of, rays.lengths,
            at, chosen, lower=pairs.bounds[0], upper=pairs.bounds[1],
        )  # fmt: skip

    # The first batch of a round: the only reference to it, so that its memory is free when the
    # next one is built.
    ready = [points(active[:query_batch_size], radius)]

    def images(batch: slice) -> Tensor:
        return ready.pop() if ready else points(active[batch], radius)

    prepaid_rounds = _prepaid_rounds(budget.remaining, rays.pair_of) if len(rays) else 0
    for round_number in range(_MAX_ROUNDS):
        if not len(active):
            break
        decisions = yield from query_in_batches(
            images, accounts, query_batch_size, prepaid=round_number < prepaid_rounds
        )
        active, accounts, *ready = ops.bracket_step(
            low, high, radius, winner, active, decisions, pairs.samples, rays.ends,
            pairs.sample_of, rays.pair_of, rays.end_of, rays.lengths, pairs.criterion_class,
            targeted=pairs.targeted, absolute=absolute, relative=relative,
            lower=pairs.bounds[0], upper=pairs.bounds[1], limit=query_batch_size,
        )  # fmt: skip
        boundary.record_snapshots(budget, high)
    improved = (winner >= 0).nonzero()[:, 0]
    boundary.distance = high
    boundary.points[improved] = points(winner[improved], high)
    return winner


def _prepaid_rounds(remaining: Tensor, pair_of: Tensor) -> int:
    """Returns how many rounds every pair can pay for, even if none of its rays is dropped.

    Args:
        remaining: [P] int64, the queries that each pair may still spend.
        pair_of: [R] int64, the pair of each ray.
    """
    rays = torch.zeros_like(remaining).index_add_(0, pair_of, torch.ones_like(pair_of))
    rounds = torch.where(rays > 0, remaining // rays.clamp_min(1), _MAX_ROUNDS)
    return int(rounds.min())
