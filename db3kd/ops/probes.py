"""The ops on probes: queries near a boundary point, and the normal that they estimate."""

from typing import Any, Literal

import torch
from torch import Tensor

from db3kd.ops.extension import call

Noise = Literal["rademacher", "gaussian"]
"""Distribution of the coefficients of a probe direction: ±1/√n each, or uniform on the sphere."""

COUNTER_LIMIT = 65_536
"""Targets and rounds in the counters of probe directions are below this number."""


def probe_queries(
    origins: Tensor,
    points: Tensor,
    step: Tensor,
    counters: Tensor,
    *,
    seed: int,
    count: int,
    noise: Noise,
    row_basis: Tensor | None = None,
    column_basis: Tensor | None = None,
    channels: int = 1,
    lower: float,
    upper: float,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Builds `count` probes around each point, all at the point's own distance from its origin.

    A probe steps off the point in a random direction u of length 1, and is then moved towards or
    away from the origin until it is as far from it as the point. So its decision compares
    directions, not radii. This is the probe of Sign-OPT (Cheng et al., ICLR 2020, equation 4):
    `clamp(o + v · ‖points[p] - o‖ / ‖v‖, lower, upper)` with o = `origins[p]` and
    v = `points[p] - o + step[p] · u(p, k)`.

    The direction u(p, k) depends only on `seed`, `counters[p]` and k. Its coefficients come from
    Philox-4x32-10 (Salmon et al., SC 2011) with the key `seed` and the counter
    (block, k, sample index, target · 65536 + round). "rademacher" noise uses a bit per coefficient,
    so a block has 128 of them; "gaussian" noise uses one word, so a block has 4. Directions are
    never stored; `probe_gradient` draws them again.

    Without bases, u has D coefficients, its components. With bases, D = channels · H · W, u has
    channels · h · w coefficients, and each channel of u is
    `row_basisᵀ · coefficients · column_basis`: directions of low frequency.

    Args:
        origins: [P, D] float32, the samples.
        points: [P, D] float32, a point near the boundary for each.
        step: [P] float32, the length of a step, in input units.
        counters: [P, 3] int64: sample index (below 2³²), target and round (each below
            `COUNTER_LIMIT`).
        seed: Any int64.
        count: Probes at each point.
        noise: The distribution of the coefficients; see `Noise`.
        row_basis: [h, H] float32 with orthonormal rows, or None.
        column_basis: [w, W] float32 with orthonormal rows, or None.
        channels: The channels of an image; only used with bases.
        lower: The lowest value of an image.
        upper: The highest value of an image.
        dtype: The dtype of the queries: float32, float16 or bfloat16.

    Returns:
        [P · count, D] of `dtype`; row `p · count + k` is probe k of point p.
    """
    return call(
        torch.ops.db3kd.probe_queries, origins, points, step, counters, seed, count, noise,
        row_basis, column_basis, channels, lower, upper, dtype,
    )  # fmt: skip


@torch.library.register_fake("db3kd::probe_queries")
def _(origins: Tensor, points: Tensor, *rest: Any) -> Tensor:
    _step, _counters, _seed, count, *_, dtype = rest
    return points.new_empty((points.size(0) * count, points.size(1)), dtype=dtype)


def probe_gradient(
    decisions: Tensor,
    criterion_class: Tensor,
    counters: Tensor,
    *,
    targeted: bool,
    seed: int,
    noise: Noise,
    row_basis: Tensor | None = None,
    column_basis: Tensor | None = None,
    channels: int = 1,
    components: int,
) -> Tensor:
    """Estimates the boundary's normal at each point from the decisions on its probes.

    The estimate is `Σ_k weight[k] · u(p, k)`, scaled to length 1, over the directions of
    `probe_queries`. The sign of a probe is +1 if it hits, `(decision == criterion_class) ==
    targeted`, and -1 if it misses. Its weight is the sign minus the mean of the answered signs, or
    the sign itself if all answered signs agree, or 0 if the probe was not answered. The estimator
    is Sign-OPT's (Cheng et al., ICLR 2020) with the baseline of HopSkipJump (Chen et al., S&P
    2020).

    Args:
        decisions: [P, K] int64, the classes at the probes; negative if not answered.
        criterion_class: [P] int64, the class to reach if `targeted`, else the class to leave.
        counters: See `probe_queries`.
        targeted: See `criterion_class`.
        seed: See `probe_queries`.
        noise: See `probe_queries`.
        row_basis: See `probe_queries`.
        column_basis: See `probe_queries`.
        channels: See `probe_queries`.
        components: D, the values of an image.

    Returns:
        [P, D] float32, unit vectors towards the side that meets the criterion; zeros if the sum
        is zero.
    """
    return call(
        torch.ops.db3kd.probe_gradient, decisions, criterion_class, targeted, counters, seed,
        noise, row_basis, column_basis, channels, components,
    )  # fmt: skip


@torch.library.register_fake("db3kd::probe_gradient")
def _(decisions: Tensor, *rest: Any) -> Tensor:
    *_, components = rest
    return decisions.new_empty((decisions.size(0), components), dtype=torch.float32)
