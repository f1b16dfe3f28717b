"""The native ops in eager PyTorch and NumPy: slow and plain references for the tests."""

import math

import numpy as np
import torch
from torch import Tensor


def ray_lengths(samples: Tensor, ends: Tensor, sample_of: Tensor, end_of: Tensor) -> Tensor:
    return (ends[end_of] - samples[sample_of]).double().norm(dim=1).float()


def bracket_queries(
    samples, ends, sample_of, pair_of, end_of, lengths, radius, active, lower, upper, dtype
) -> Tensor:
    pair = pair_of[active]
    start, end = samples[sample_of[pair]], ends[end_of[active]]
    fraction = (radius[pair] / lengths[active]).nan_to_num(0.0, posinf=0.0)
    return (start + fraction[:, None] * (end - start)).clamp(lower, upper).to(dtype)


def bracket_step(
    low,
    high,
    radius,
    winner,
    active,
    decisions,
    samples,
    ends,
    sample_of,
    pair_of,
    end_of,
    lengths,
    criterion_class,
    targeted,
    absolute,
    relative,
    lower,
    upper,
    limit,
) -> tuple[Tensor, Tensor, Tensor]:
    """Applies the rules of `db3kd.ops.bracket_step` pair by pair, in place."""
    survivors = []
    for pair in pair_of[active].unique_consecutive().tolist():
        rows = (pair_of[active] == pair).nonzero().flatten()
        rays, answers = active[rows], decisions[rows]
        hit = (answers >= 0) & ((answers == criterion_class[pair]) == targeted)
        missed = (answers >= 0) & ~hit
        if hit.any():
            high[pair] = radius[pair]
            winner[pair] = rays[hit][0]
        elif missed.any():
            low[pair] = radius[pair]
        radius[pair] = low[pair] + (high[pair] - low[pair]) / 2
        tolerance = torch.maximum(torch.tensor(absolute), relative * high[pair])
        wide = high[pair] - low[pair] > tolerance
        if (answers >= 0).all() and wide and low[pair] < radius[pair] < high[pair]:
            survivors.append(rays[hit] if hit.any() else rays)
    remaining = torch.cat(survivors) if survivors else active[:0]
    queries = bracket_queries(
        samples, ends, sample_of, pair_of, end_of, lengths, radius, remaining[:limit],
        lower, upper, torch.float32,
    )  # fmt: skip
    return remaining, pair_of[remaining], queries


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Philox-4x32-10 of counters [n, 4]: the random 32-bit words, [n, 4] uint64."""
    low_word = np.uint64(0xFFFFFFFF)
    c0, c1, c2, c3 = counter.astype(np.uint64).T
    k0, k1 = key
    for _ in range(10):
        first, second = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0 = (second >> np.uint64(32)) ^ c1 ^ np.uint64(k0)
        c2 = (first >> np.uint64(32)) ^ c3 ^ np.uint64(k1)
        c1, c3 = second & low_word, first & low_word
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack([c0, c1, c2, c3], axis=1)


def coefficients(noise: str, seed: int, probe: int, counters: list[int], size: int) -> np.ndarray:
    """The random numbers of one direction, scaled to length 1. [size] float64."""
    sample, target, round_ = counters
    blocks = np.arange(-(-size // (128 if noise == "rademacher" else 4)))
    rest = [np.full_like(blocks, word) for word in (probe, sample, target * 65536 + round_)]
    words = philox(np.stack([blocks, *rest], axis=1), (seed % 2**32, seed // 2**32 % 2**32))
    if noise == "rademacher":
        bits = words.reshape(-1, 1) >> np.arange(32, dtype=np.uint64) & np.uint64(1)
        numbers = 2.0 * bits.reshape(-1)[:size] - 1.0
    else:
        pairs = words.reshape(-1, 2)
        uniform = ((pairs[:, 0] >> np.uint64(9)) + 0.5) / 2**23
        angle = 2 * math.pi * ((pairs[:, 1] >> np.uint64(8)) + 0.5) / 2**24
        radius = np.sqrt(-2 * np.log(uniform))
        numbers = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        numbers = numbers.reshape(-1)[:size]
    return numbers / np.linalg.norm(numbers)


def directions(
    noise, seed, count, counters, row_basis, column_basis, channels, components
) -> Tensor:
    """u(p, k) of all probes, [P, count, D] float64."""
    if row_basis is None:
        size = components
    else:
        shape = (channels, row_basis.size(0), column_basis.size(0))
        size = math.prod(shape)
    rows = []
    for counter in counters.tolist():
        for probe in range(count):
            u = torch.from_numpy(coefficients(noise, seed, probe, counter, size))
            if row_basis is not None:
                u = row_basis.double().T.cpu() @ u.reshape(shape) @ column_basis.double().cpu()
            rows.append(u.flatten())
    empty = torch.zeros(0, dtype=torch.float64)
    stacked = torch.stack(rows) if rows else empty
    return stacked.reshape(len(counters), count, components).to(counters.device)


def probe_queries(
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
) -> Tensor:
    size = points.size(1)
    u = directions(noise, seed, count, counters, row_basis, column_basis, channels, size)
    offset = (points - origins).double()[:, None]
    moved = offset + step[:, None, None] * u
    radius = offset.norm(dim=2, keepdim=True)
    length = moved.norm(dim=2, keepdim=True)
    queries = origins[:, None] + moved * torch.where(length > 0, radius / length, 0)
    return queries.clamp(lower, upper).reshape(-1, size).to(dtype)


def probe_gradient(
    decisions,
    criterion_class,
    targeted,
    counters,
    seed,
    noise,
    row_basis,
    column_basis,
    channels,
    components,
) -> Tensor:
    u = directions(
        noise, seed, decisions.size(1), counters, row_basis, column_basis, channels, components
    )
    answered = decisions >= 0
    hit = (decisions == criterion_class[:, None]) == targeted
    signs = torch.where(answered, torch.where(hit, 1.0, -1.0), 0.0).double()
    mean = signs.sum(1, keepdim=True) / answered.sum(1, keepdim=True).clamp(min=1)
    resolve = mean.abs() == 1
    weights = torch.where(answered & ~resolve, signs - mean, signs)
    return torch.nn.functional.normalize((weights[:, :, None] * u).sum(1), dim=1).float()


def soft_labels(
    distances: Tensor, predicted: Tensor, normalisation: str, scale: float, temperature: float
) -> Tensor:
    is_predicted = torch.nn.functional.one_hot(predicted, distances.size(1)).bool()
    others = distances.double().masked_fill(is_predicted, math.inf)
    if normalisation == "inverse":
        logits = 1 / others
        own_logits = logits.sum(1, keepdim=True)
    else:
        logits = -scale * others
        own_logits = torch.zeros(len(others), 1, dtype=torch.float64, device=others.device)
    return (torch.where(is_predicted, own_logits, logits) / temperature).softmax(dim=1).float()
