"""Bisecting all rays of a pair at one shared radius."""

import torch
from torch import Tensor

from db3kd import ops
from db3kd.boundary.pairs import Boundary, Pairs, Rays
from db3kd.querying.search import BudgetView, Search, query_in_batches

MOST_ROUNDS = 64
"""A float32 bracket has no float left between its ends after fewer rounds than this."""


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
    """Shrinks each pair's distance to the smallest radius at which one of its rays hits.

    All rays of a pair are asked at one radius. Once any hits, those that missed cross their
    boundary further out and cannot win, so they are dropped unasked from then on; a bisection of
    the winner is what remains. Without a hit the bracket's low end rises instead.

    pairs, rays: what to search. boundary: updated in place; its distance is the bracket's high end,
    which must be finite for every pair with rays. low: [P] float32, the bracket's low end. radius:
    [P] float32, the first radius asked, inside the bracket. absolute, relative: the bracket's width
    at which a pair is done. query_batch_size: images per batch.

    Returns [P] int64: the ray that now holds the best point, -1 where none improved on it.

    Of each round the host hears one number, how many rays are left, and of the whole two more.
    """
    high, winner = boundary.distance.clone(), torch.full_like(pairs.sample_of, -1)
    low, radius = low.clone(), radius.clone()
    active = torch.arange(len(rays), device=rays.pair_of.device)

    def points(chosen: Tensor, at: Tensor) -> Tensor:
        return ops.bracket_queries(
            pairs.samples, rays.ends, pairs.sample_of, rays.pair_of, rays.end_of, rays.lengths,
            at, chosen, lower=pairs.bounds[0], upper=pairs.bounds[1],
        )  # fmt: skip

    prepaid = _prepaid_rounds(budget.remaining, rays.pair_of) if len(rays) else 0
    for number in range(MOST_ROUNDS):
        if not len(active):
            break
        asked, at = active, radius
        decisions = yield from query_in_batches(
            lambda batch, asked=asked, at=at: points(asked[batch], at),
            rays.pair_of[asked],
            query_batch_size,
            prepaid=number < prepaid,
        )
        active = ops.bracket_update(
            low, high, radius, winner, active, rays.pair_of, decisions, pairs.criterion_class,
            targeted=pairs.targeted, absolute=absolute, relative=relative,
        )  # fmt: skip
        boundary.note(budget.spent, high)
    won = (winner >= 0).nonzero()[:, 0]
    boundary.distance = high
    boundary.points[won] = points(winner[won], high)
    return winner


def _prepaid_rounds(remaining: Tensor, pair_of: Tensor) -> int:
    """How many rounds every pair can pay for whatever becomes of its rays; they only get fewer."""
    rays = torch.zeros_like(remaining).index_add_(0, pair_of, torch.ones_like(pair_of))
    rounds = torch.where(rays > 0, remaining // rays.clamp_min(1), MOST_ROUNDS)
    return int(rounds.min())
