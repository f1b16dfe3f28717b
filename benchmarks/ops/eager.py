"""The native ops in eager PyTorch: batched, float32, without a loop over rows.

The native ops are timed against these functions. Names and arguments are those of `db3kd.ops`. The
tests of the ops use other, plain versions in double precision.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from db3kd import ops

_WORD = 0xFFFFFFFF


def ray_lengths(samples: Tensor, ends: Tensor, sample_of: Tensor, end_of: Tensor) -> Tensor:
    """See `db3kd.ops.ray_lengths`."""
    return (ends[end_of] - samples[sample_of]).norm(dim=1)


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
) -> Tensor:
    """See `db3kd.ops.bracket_queries`."""
    pair = pair_of[active]
    start = samples[sample_of[pair]]
    fraction = torch.where(lengths[active] > 0, radius[pair] / lengths[active], 0)
    return torch.lerp(start, ends[end_of[active]], fraction[:, None]).clamp_(lower, upper)


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
) -> tuple[Tensor, Tensor, Tensor]:
    """See `db3kd.ops.bracket_step`."""
    pair = pair_of[active]
    answered = decisions >= 0
    hit = answered & ((decisions == criterion_class[pair]) == targeted)
    has_rays, has_hit, has_miss, has_gap = (
        torch.zeros_like(criterion_class).index_add_(0, pair, which.long()) > 0
        for which in (torch.ones_like(hit), hit, answered & ~hit, ~answered)
    )
    first = torch.full_like(winner, len(pair_of))
    first.scatter_reduce_(0, pair[hit], active[hit], "amin")
    torch.where(has_hit, first, winner, out=winner)
    torch.where(has_hit, radius, high, out=high)
    torch.where(has_miss & ~has_hit, radius, low, out=low)
    torch.where(has_rays, low + (high - low) / 2, radius, out=radius)
    wide = high - low > (relative * high).clamp_min(absolute)
    unfinished = wide & (low < radius) & (radius < high) & ~has_gap
    remaining = active[unfinished[pair] & (hit | ~has_hit[pair])]
    queries = bracket_queries(
        samples, ends, sample_of, pair_of, end_of, lengths, radius, remaining[:limit],
        lower=lower, upper=upper,
    )  # fmt: skip
    return remaining, pair_of[remaining], queries


def soft_labels(
    distances: Tensor,
    predicted: Tensor,
    *,
    normalisation: ops.Normalisation,
    scale: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """See `db3kd.ops.soft_labels`."""
    is_predicted = F.one_hot(predicted, distances.size(1)).bool()
    others = distances.masked_fill(is_predicted, math.inf)
    if normalisation == "inverse":
        logits = 1 / others
        logits = torch.where(is_predicted, logits.sum(1, keepdim=True), logits)
    else:
        logits = torch.where(is_predicted, 0, -scale * others)
    return (logits / temperature).softmax(dim=1)


def probe_queries(
    origins: Tensor,
    points: Tensor,
    step: Tensor,
    counters: Tensor,
    *,
    seed: int,
    count: int,
    noise: ops.Noise,
    row_basis: Tensor | None = None,
    column_basis: Tensor | None = None,
    channels: int = 1,
    lower: float,
    upper: float,
) -> Tensor:
    """See `db3kd.ops.probe_queries`."""
    size = _coefficient_count(points.size(1), row_basis, column_basis, channels)
    u = directions(counters, seed=seed, count=count, noise=noise, size=size)
    return queries_along(
        to_pixels(u, row_basis, column_basis, channels), origins, points, step, lower, upper
    )


def probe_gradient(
    decisions: Tensor,
    criterion_class: Tensor,
    counters: Tensor,
    *,
    targeted: bool,
    seed: int,
    noise: ops.Noise,
    row_basis: Tensor | None = None,
    column_basis: Tensor | None = None,
    channels: int = 1,
    components: int,
) -> Tensor:
    """See `db3kd.ops.probe_gradient`."""
    size = _coefficient_count(components, row_basis, column_basis, channels)
    u = directions(counters, seed=seed, count=decisions.size(1), noise=noise, size=size)
    total = weighted_sum(u, decisions, criterion_class, targeted)
    return F.normalize(to_pixels(total, row_basis, column_basis, channels), dim=1)


def queries_along(
    u: Tensor, origins: Tensor, points: Tensor, step: Tensor, lower: float, upper: float
) -> Tensor:
    """The probes [P·K, D] in directions u [P, K, D] of unit length."""
    offset = (points - origins)[:, None]
    moved = torch.addcmul(offset, u, step[:, None, None])
    length = moved.norm(dim=2, keepdim=True)
    fraction = torch.where(length > 0, offset.norm(dim=2, keepdim=True) / length, 0)
    return torch.addcmul(origins[:, None], moved, fraction).clamp_(lower, upper).flatten(0, 1)


def weighted_sum(u: Tensor, decisions: Tensor, criterion_class: Tensor, targeted: bool) -> Tensor:
    """The estimates of normals [P, n], not yet normalised, from directions u [P, K, n]."""
    answered = decisions >= 0
    hit = (decisions == criterion_class[:, None]) == targeted
    signs = torch.where(answered, torch.where(hit, 1.0, -1.0), 0.0)
    mean = signs.sum(1, keepdim=True) / answered.sum(1, keepdim=True).clamp(min=1)
    weights = torch.where(answered & (mean.abs() < 1), signs - mean, signs)
    return torch.bmm(weights[:, None], u)[:, 0]


def to_pixels(
    coefficients: Tensor, row_basis: Tensor | None, column_basis: Tensor | None, channels: int
) -> Tensor:
    """Coefficients [..., channels·h·w] as pixels [..., D]; the same values without bases."""
    if row_basis is None or column_basis is None:
        return coefficients
    block = coefficients.unflatten(-1, (channels, row_basis.size(0), column_basis.size(0)))
    return (row_basis.T @ block @ column_basis).flatten(-3)


def directions(counters: Tensor, *, seed: int, count: int, noise: ops.Noise, size: int) -> Tensor:
    """Directions u [P, count, size] float32 from the random numbers of the native ops."""
    words = _random_words(counters, seed, count, -(-size // (128 if noise == "rademacher" else 4)))
    if noise == "rademacher":
        bits = words[..., None] >> torch.arange(32, device=words.device) & 1
        return (bits.flatten(2)[..., :size] * 2 - 1) / math.sqrt(size)
    first, second = words.unflatten(3, (2, 2)).unbind(4)
    uniform = ((first >> 9) + 0.5) / 2**23
    angle = 2 * math.pi * ((second >> 8) + 0.5) / 2**24
    numbers = torch.stack([angle.cos(), angle.sin()], dim=4)
    numbers *= (-2 * uniform.log()).sqrt_()[..., None]
    return F.normalize(numbers.flatten(2)[..., :size], dim=2)


def torch_directions(
    points: int, count: int, noise: ops.Noise, size: int, device: torch.device | None = None
) -> Tensor:
    """Directions [points, count, size] float32 from torch's random numbers."""
    shape = points, count, size
    if noise == "rademacher":
        signs = torch.randint(0, 2, shape, dtype=torch.float32, device=device)
        return signs.mul_(2).sub_(1).div_(math.sqrt(size))
    return F.normalize(torch.randn(shape, device=device), dim=2)


def _coefficient_count(
    components: int, row_basis: Tensor | None, column_basis: Tensor | None, channels: int
) -> int:
    if row_basis is None or column_basis is None:
        return components
    return channels * row_basis.size(0) * column_basis.size(0)


def _random_words(counters: Tensor, seed: int, count: int, blocks: int) -> Tensor:
    """Philox-4x32-10: [P, count, blocks, 4] int64, each value a 32-bit word."""
    block = torch.arange(blocks, device=counters.device)[None, None, :]
    probe = torch.arange(count, device=counters.device)[None, :, None]
    sample, target, round_number = counters.T[:, :, None, None]
    c0, c1, c2, c3 = torch.broadcast_tensors(block, probe, sample, target * 65536 + round_number)
    k0, k1 = seed & _WORD, seed >> 32 & _WORD
    for _ in range(10):
        # The products wrap around int64, but both of their 32-bit words are right.
        first, second = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c2 = (second >> 32 & _WORD) ^ c1 ^ k0, (first >> 32 & _WORD) ^ c3 ^ k1
        c1, c3 = second & _WORD, first & _WORD
        k0, k1 = k0 + 0x9E3779B9 & _WORD, k1 + 0xBB67AE85 & _WORD
    return torch.stack([c0, c1, c2, c3], dim=3)
