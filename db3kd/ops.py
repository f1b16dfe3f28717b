"""The native ops: what each takes and gives.

Images are rows of a matrix [*, D]; rows are independent, and each has the same bits whatever rows
stand beside it and however many threads run. Every op runs on the device and the current stream of
its tensors, which must all be on one device. State is float32, indices are int64. No op is
differentiable.

A tensor of the wrong dtype or on the wrong device raises TypeError; a wrong shape, or a setting
that cannot be right, ValueError; an index out of range IndexError. On CUDA, where looking would
mean waiting for the device, an index out of range trips a device assertion, as in torch's own
indexing.
"""

from typing import Literal

import torch
from torch import Tensor

try:
    from . import _C
except ImportError as error:
    raise ImportError(
        "db3kd._C, the native extension, cannot be loaded: build it with "
        f"`pip install --no-build-isolation .` against the torch in use ({error})"
    ) from error

build_config = _C.build_config

Noise = Literal["rademacher", "gaussian"]
Normalisation = Literal["inverse", "margin"]


def ray_lengths(samples: Tensor, ends: Tensor, sample_of: Tensor, end_of: Tensor) -> Tensor:
    """The length of each ray, in input units: the L2 distance from its sample to its end.

    samples: [S, D] float32.
    ends: [E, D] float32.
    sample_of, end_of: [R] int64, the rows where each ray starts and ends.

    Returns [R] float32.
    """
    return torch.ops.db3kd.ray_lengths(samples, ends, sample_of, end_of)


@torch.library.register_fake("db3kd::ray_lengths")
def _(samples, ends, sample_of, end_of):
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
    """One query for each active ray: the point of the ray at its pair's radius.

    samples: [S, D] float32.
    ends: [E, D] float32.
    sample_of: [P] int64, the sample row of each pair.
    pair_of, end_of: [R] int64, the pair and the end row of each ray.
    lengths: [R] float32, as from ray_lengths.
    radius: [P] float32, in input units.
    active: [A] int64, ray numbers.
    lower, upper: the bounds of an input.
    dtype: of the queries: float32, float16 or bfloat16.

    Returns [A, D]: clamp(x + radius / length · (e - x), lower, upper) with x the ray's sample and e
    its end; x itself where the ray's length is 0.
    """
    return torch.ops.db3kd.bracket_queries(
        samples, ends, sample_of, pair_of, end_of, lengths, radius, active, lower, upper, dtype
    )


@torch.library.register_fake("db3kd::bracket_queries")
def _(samples, ends, sample_of, pair_of, end_of, lengths, radius, active, lower, upper, dtype):
    return samples.new_empty((active.size(0), samples.size(1)), dtype=dtype)


def bracket_update(
    low: Tensor,
    high: Tensor,
    radius: Tensor,
    winner: Tensor,
    active: Tensor,
    pair_of: Tensor,
    decisions: Tensor,
    wanted: Tensor,
    *,
    targeted: bool,
    absolute: float,
    relative: float,
) -> Tensor:
    """Narrows the bracket of each pair by one round of decisions, in place; drops finished rays.

    low, high, radius: [P] float32, contiguous, updated.
    winner: [P] int64, contiguous, updated: the ray that hit at `high`, -1 for none.
    active: [A] int64, ray numbers, those of a pair side by side; else ValueError, on CUDA after the
        brackets have been narrowed.
    pair_of: [R] int64, the pair of each ray.
    decisions: [A] int64; a negative one was not answered.
    wanted: [P] int64, the class to reach if targeted, else the class to leave.
    absolute, relative: tolerances, at least 0.

    A ray hits when (decision == wanted) == targeted. For each pair with active rays: if any hit,
    high is the radius, winner the first that hit, and rays that missed are dropped; if none hit,
    low is the radius. If any was not answered, the answers there are still count (with none, low,
    high and winner stay), and all rays of the pair are dropped. Then the radius is the middle of
    low and high, and all rays are dropped once high - low ≤ max(absolute, relative · high) or no
    float lies between.

    Returns the active rays of the next round, [A'] int64, in their old order.
    """
    return torch.ops.db3kd.bracket_update(
        low, high, radius, winner, active, pair_of, decisions, wanted, targeted, absolute, relative
    )


@torch.library.register_fake("db3kd::bracket_update")
def _(low, high, radius, winner, active, pair_of, decisions, wanted, targeted, absolute, relative):
    return active.new_empty(torch.library.get_ctx().new_dynamic_size())


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
    """`count` queries around each point, all at the point's own distance from its origin.

    A query steps off the point in a random direction of length 1, and is then moved towards or away
    from the origin until it is as far from it as the point is: Sign-OPT's probe (Cheng et al., ICLR
    2020, equation 4).

    origins: [P, D] float32, samples.
    points: [P, D] float32, the point of each near a boundary.
    step: [P] float32, how far to go, in input units.
    counters: [P, 3] int64: sample index (below 2^32), target and round (each below 65536), which
        with the seed name the directions. On CUDA larger numbers are not caught.
    seed: any int64.
    count: probes at each point.
    noise: "rademacher" (every coefficient ±1/√n) or "gaussian" (uniform on the sphere).
    row_basis, column_basis: [h, H] and [w, W] float32 with orthonormal rows, D = channels·H·W. With
        them a direction is row_basisᵀ · coefficients · column_basis for each channel, without them
        the coefficients themselves.
    lower, upper: the bounds of an input.
    dtype: of the queries: float32, float16 or bfloat16.

    Returns [P·count, D]; row p·count + k is clamp(o + v·‖points[p] - o‖/‖v‖, lower, upper) with
    o = origins[p] and v = points[p] - o + step[p]·u(p, k). The direction u(p, k) depends on (seed,
    counters[p], k) alone, by Philox-4x32-10 (Salmon et al., SC 2011).
    """
    return torch.ops.db3kd.probe_queries(
        origins,
        points,
        step,
        counters,
        seed,
        count,
        noise,
        row_basis,
        column_basis,
        channels,
        lower,
        upper,
        dtype,
    )


@torch.library.register_fake("db3kd::probe_queries")
def _(
    origins,
    points,
    step,
    counters,
    seed,
    count,
    noise,
    row_basis,
    column_basis,
    channels,
    lower,
    upper,
    dtype,
):
    return points.new_empty((points.size(0) * count, points.size(1)), dtype=dtype)


def probe_gradient(
    decisions: Tensor,
    wanted: Tensor,
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
    """The boundary's normal at each point, estimated from the decisions on its probe_queries.

    decisions: [P, K] int64; a negative one was not answered.
    wanted: [P] int64, the class to reach if targeted, else the class to leave.
    components: D.
    counters, seed, noise, row_basis, column_basis, channels: as for probe_queries, whose directions
        u(p, k) are drawn again.

    A probe's sign is +1 for a hit, (decision == wanted) == targeted, else -1. Its weight is the
    sign minus the mean of the answered signs, or the sign itself where all of those agree; 0 where
    there was no answer.

    Returns [P, D] float32: Σ_k weight_k · u(p, k) scaled to length 1, which points to the wanted
    side; zeros where the sum is zero. The estimator is Sign-OPT's (Cheng et al., ICLR 2020), with
    HopSkipJump's baseline (Chen et al., S&P 2020).
    """
    return torch.ops.db3kd.probe_gradient(
        decisions,
        wanted,
        targeted,
        counters,
        seed,
        noise,
        row_basis,
        column_basis,
        channels,
        components,
    )


@torch.library.register_fake("db3kd::probe_gradient")
def _(
    decisions,
    wanted,
    targeted,
    counters,
    seed,
    noise,
    row_basis,
    column_basis,
    channels,
    components,
):
    return decisions.new_empty((decisions.size(0), components), dtype=torch.float32)


def soft_labels(
    distances: Tensor,
    own: Tensor,
    *,
    normalisation: Normalisation,
    scale: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Distances to the other classes → a distribution over all classes.

    distances: [N, C] float32, in input units, above 0, +inf where a class was not reached. The
        column of the sample's own class is not read.
    own: [N] int64.
    normalisation: "inverse" (DB3KD, Wang, ICML 2021): z_m = 1/d_m, 0 where not reached, and z_own
        their sum; where no class was reached, all classes weigh the same. "margin": z_m =
        -scale·d_m, no weight where not reached, and z_own = 0.
    scale: of "margin", above 0.
    temperature: above 0.

    Returns softmax(z / temperature), [N, C] float32. Raises ValueError for a distance that is NaN,
    zero or negative.
    """
    return torch.ops.db3kd.soft_labels(distances, own, normalisation, scale, temperature)


@torch.library.register_fake("db3kd::soft_labels")
def _(distances, own, normalisation, scale, temperature):
    return distances.new_empty(distances.shape)
