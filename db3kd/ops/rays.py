"""The ops on rays: their lengths, queries on them, and a round of their bisection.

`db3kd.ops` has these functions, and says what all ops have in common.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from db3kd.ops.extension import call


def ray_lengths(samples: Tensor, ends: Tensor, sample_of: Tensor, end_of: Tensor) -> Tensor:
    """Measures the L2 length of each ray, from its sample to its end, in input units.

    `length[r] = ‖ends[end_of[r]] - samples[sample_of[r]]‖₂`

    Args:
        samples: [S, D] float32.
        ends: [E, D] float32.
        sample_of: [R] int64, the row of `samples` where each ray starts.
        end_of: [R] int64, the row of `ends` where it ends.

    Returns:
        [R] float32.
    """
    return call(torch.ops.db3kd.ray_lengths, samples, ends, sample_of, end_of)


@torch.library.register_fake("db3kd::ray_lengths")
def _(samples: Tensor, ends: Tensor, sample_of: Tensor, end_of: Tensor) -> Tensor:
    return samples.new_empty(sample_of.shape)


def bracket_queries(
    samples: Tensor,
    ends: Tensor,
    sample_of: Tensor,
    pair_of: Tensor,
    end_of: Tensor,
    lengths: Tensor,
    radius: Tensor,
    active: Tensor,
    *,
    lower: float,
    upper: float,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Builds one query for each active ray: the point of the ray at the radius of its pair.

    For a ray r of pair p with the sample x = `samples[sample_of[p]]` and the end
    e = `ends[end_of[r]]` the query is `clamp(x + radius[p] / lengths[r] · (e - x), lower, upper)`,
    or x if the ray has length 0.

    Args:
        samples: [S, D] float32.
        ends: [E, D] float32.
        sample_of: [P] int64, the row of `samples` of each pair.
        pair_of: [R] int64, the pair of each ray.
        end_of: [R] int64, the row of `ends` of each ray.
        lengths: [R] float32, from `ray_lengths`.
        radius: [P] float32, in input units.
        active: [A] int64, the numbers of the rays to query.
        lower: The lowest value of an image.
        upper: The highest value of an image.
        dtype: The dtype of the queries: float32, float16 or bfloat16.

    Returns:
        [A, D] of `dtype`, in the order of `active`.
    """
    return call(
        torch.ops.db3kd.bracket_queries, samples, ends, sample_of, pair_of, end_of, lengths,
        radius, active, lower, upper, dtype,
    )  # fmt: skip


@torch.library.register_fake("db3kd::bracket_queries")
def _(samples: Tensor, *rest: Any) -> Tensor:
    *_, active, _lower, _upper, dtype = rest
    return samples.new_empty((active.size(0), samples.size(1)), dtype=dtype)


class NextRound(NamedTuple):
    """The next round of a bisection, as `bracket_step` returns it.

    Attributes:
        active: [A'] int64, the rays that remain, in their old order.
        pairs: [A'] int64, the pair of each of them.
        queries: [min(A', limit), D] float32, the query of each of the first `limit` of them.
    """

    active: Tensor
    pairs: Tensor
    queries: Tensor


def bracket_step(
    low: Tensor,
    high: Tensor,
    radius: Tensor,
    winner: Tensor,
    active: Tensor,
    decisions: Tensor,
    samples: Tensor,
    ends: Tensor,
    sample_of: Tensor,
    pair_of: Tensor,
    end_of: Tensor,
    lengths: Tensor,
    criterion_class: Tensor,
    *,
    targeted: bool,
    absolute: float,
    relative: float,
    lower: float,
    upper: float,
    limit: int,
) -> NextRound:
    """Narrows the bracket of each pair by one round of decisions, and builds the next queries.

    A ray hits if `(decision == criterion_class) == targeted`. For each pair with active rays:

    - If any ray hits, `high` becomes the radius, `winner` the first ray that hit, and the rays
      that missed are dropped.
    - If none hits, `low` becomes the radius, and all rays stay.
    - If a query was not answered, the answered ones count as above, and then all rays of the pair
      are dropped. Without any answer, `low`, `high` and `winner` stay as they are.
    - All rays are dropped if `high - low ≤ max(absolute, relative · high)`, or if no float32 lies
      between `low` and `high`.
    - `radius` becomes `low + (high - low) / 2`.

    The queries of the rays that remain are those of `bracket_queries` at the new radius.

    On CUDA the op takes two launches. It waits for the first one, to learn the number of rays that
    remain, while the second one writes the queries.

    Example:
        >>> sample, end, zero = torch.zeros(1, 4), torch.ones(1, 4) / 2, torch.tensor([0])
        >>> low, high, radius, winner = torch.zeros(1), torch.ones(1), torch.ones(1) / 2, zero - 1
        >>> bracket_step(
        ...     low, high, radius, winner, zero, torch.tensor([7]), sample, end, zero, zero, zero,
        ...     torch.ones(1), torch.tensor([7]), targeted=True, absolute=1e-3, relative=0.0,
        ...     lower=0.0, upper=1.0, limit=100,
        ... ).queries
        tensor([[0.1250, 0.1250, 0.1250, 0.1250]])

    Args:
        low: [P] float32, contiguous; updated in place.
        high: [P] float32, contiguous; updated in place.
        radius: [P] float32, contiguous, in input units; updated in place.
        winner: [P] int64, contiguous, the ray that hit at `high`, or -1; updated in place.
        active: [A] int64, the numbers of the active rays, in ascending order of their pairs, else
            the op raises ValueError, on CUDA after brackets were narrowed.
        decisions: [A] int64, the class at each active ray; negative if it was not answered.
        samples: [S, D] float32.
        ends: [E, D] float32.
        sample_of: [P] int64, the row of `samples` of each pair.
        pair_of: [R] int64, the pair of each ray.
        end_of: [R] int64, the row of `ends` of each ray.
        lengths: [R] float32, from `ray_lengths`.
        criterion_class: [P] int64, the class to reach if `targeted`, else the class to leave.
        targeted: See `criterion_class`.
        absolute: The width of a bracket that is narrow enough, in input units, at least 0.
        relative: The same as a share of `high`, at least 0.
        lower: The lowest value of an image.
        upper: The highest value of an image.
        limit: The maximum number of queries to build, at least 0.

    Returns:
        The rays of the next round, their pairs, and their queries.
    """
    step = call(
        torch.ops.db3kd.bracket_step, low, high, radius, winner, active, decisions, samples, ends,
        sample_of, pair_of, end_of, lengths, criterion_class, targeted, absolute, relative, lower,
        upper, limit,
    )  # fmt: skip
    return NextRound(*step)


@torch.library.register_fake("db3kd::bracket_step")
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    _low, _high, _radius, _winner, active, _decisions, samples, *_ = arguments
    remaining, built = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    queries = samples.new_empty(built, samples.size(1))
    return active.new_empty(remaining), active.new_empty(remaining), queries
