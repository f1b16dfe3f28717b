"""Minimal boundary distance: descent along the boundary by the signs of probes."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from db3kd import ops
from db3kd.boundary.contest import ask, bisect
from db3kd.boundary.pairs import Boundary, Pairs, Rays
from db3kd.search import UNANSWERED, Purse, Search


@dataclass(frozen=True)
class Descent:
    """Settings of the descent. Lengths are shares of a pair's current distance.

    probes: queries of the first gradient estimate; each round adds `growth` of that number.
    momentum: share of the earlier estimates kept in each new one.
    noise: "rademacher" or "gaussian" directions.
    frequencies: side of the block of lowest DCT frequencies that directions are drawn from; None
        for all pixels. Smooth directions find smooth boundaries with fewer probes.
    probe_step: how far a probe lies from the boundary point.
    steps: step lengths tried side by side after each estimate, for a pair's reach of 1; the reach is
        doubled when the longest wins and halved when none does.
    tolerance: width of a line search's final bracket.
    """

    probes: int = 20
    growth: float = 0.1
    momentum: float = 0.8
    noise: ops.Noise = "rademacher"
    frequencies: int | None = None
    probe_step: float = 0.02
    steps: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)
    tolerance: float = 1e-3
    trust: float = 0.2
    least_gain: float = 2e-4
    rounds: int = 1000
    adapt: bool = False
    shrink: float = 1.0

    def probes_in(self, round_number: int) -> int:
        return round(self.probes * (1 + self.growth * round_number))


def minimal_boundary_distance(pairs, boundary, image_shape, settings, *, seed, rows, purse):
    probes = _Probes(pairs, image_shape, settings, seed, rows)
    memory = torch.zeros_like(boundary.points)
    reserve = len(settings.steps) + math.ceil(math.log2(settings.trust / settings.tolerance)) + 2
    stuck = torch.zeros_like(pairs.sample_of)
    reach = torch.ones_like(boundary.distance)
    step = torch.full_like(boundary.distance, settings.probe_step)
    for round_number in range(settings.rounds):
        spare = purse.remaining - reserve
        open_ = boundary.distance.isfinite() & (spare >= 4)
        chosen = open_.nonzero()[:, 0]
        if not len(chosen):
            break
        count = settings.probes_in(round_number)
        g = yield from probes.gradient(boundary, chosen, step, round_number, count, spare[chosen])
        memory[chosen] = memory[chosen] * settings.momentum + g * math.sqrt(count)
        boundary.note(purse.spent, boundary.distance)
        winner = yield from _line_search(pairs, boundary, memory, chosen, reach, settings, rows, purse)
        won = winner[chosen] >= 0
        if settings.adapt:
            longest = (winner[chosen] % len(settings.steps)) == len(settings.steps) - 1
            reach[chosen] = torch.where(won, torch.where(longest, reach[chosen] * 2, reach[chosen]), reach[chosen] / 2).clamp(1/64, 8)
        step[chosen] = torch.where(won, step[chosen], step[chosen] * settings.shrink).clamp_min(1e-3)
    return boundary


def _line_search(pairs, boundary, memory, chosen, reach, settings, rows, purse):
    J = len(settings.steps)
    n = len(chosen)
    zero = memory.new_zeros(1, memory.shape[1])
    norm = ops.ray_lengths(zero, memory[chosen], torch.zeros_like(chosen), torch.arange(n))
    d = boundary.distance[chosen]
    scale = torch.where(norm > 0, d * reach[chosen] / norm, 0)
    direction = memory[chosen] * scale[:, None]
    base = boundary.points[chosen]
    ends = torch.stack([base + direction * a for a in settings.steps], 1).clamp_(*pairs.bounds).flatten(0, 1)
    pair_of = chosen.repeat_interleave(J)
    rays = Rays.towards(pairs, ends, pair_of, torch.arange(n * J))
    return (yield from bisect(pairs, rays, boundary, low=boundary.distance * (1 - settings.trust), radius=boundary.distance * (1 - settings.least_gain),
        absolute=0.0, relative=settings.tolerance, rows=rows, purse=purse))


class _Probes:
    def __init__(self, pairs, image_shape, settings, seed, rows):
        self.pairs, self.s, self.seed, self.rows = pairs, settings, seed, rows
        self.channels = 1
        self.basis = (None, None)
        if settings.frequencies:
            self.channels = image_shape[0]
            self.basis = tuple(dct_basis(min(settings.frequencies, n), n) for n in image_shape[-2:])

    def gradient(self, boundary, chosen, step, round_number, count, spare):
        P, s = self.pairs, self.s
        points = boundary.points[chosen]
        d = boundary.distance[chosen]
        st = d * step[chosen]
        counters = P.counters(chosen, round_number)
        decisions = torch.full((len(chosen), count), UNANSWERED)
        per = max(1, self.rows // count)
        for a in range(0, len(chosen), per):
            b = slice(a, a + per)
            ends = ops.probe_queries(points[b], st[b], counters[b], seed=self.seed, count=count, noise=s.noise, row_basis=self.basis[0], column_basis=self.basis[1], channels=self.channels, lower=P.bounds[0], upper=P.bounds[1])
            n = len(counters[b])
            pair_of = torch.arange(n).repeat_interleave(count)
            so = P.sample_of[chosen[b]]
            r = torch.arange(n * count)
            L = ops.ray_lengths(P.samples, ends, so[pair_of], r)
            q = ops.bracket_queries(P.samples, ends, so, pair_of, r, L, d[b].contiguous(), r, lower=P.bounds[0], upper=P.bounds[1])
            mask = (torch.arange(count)[None] < spare[b][:, None])
            acc = chosen[b].repeat_interleave(count)
            if not bool(mask.all()):
                q, acc = q[mask.flatten()], acc[mask.flatten()]
            ans = yield from ask(lambda k: q[k], acc, self.rows)
            decisions[b][mask] = ans
        return ops.probe_gradient(decisions, P.wanted[chosen], counters, targeted=P.targeted, seed=self.seed, noise=s.noise, row_basis=self.basis[0], column_basis=self.basis[1], channels=self.channels, components=points.shape[1])


def dct_basis(count: int, size: int) -> Tensor:
    """The `count` lowest vectors of the orthonormal DCT-II over `size` points, float32 [count, size]."""
    position = torch.arange(size, dtype=torch.float64) + 0.5
    frequency = torch.arange(count, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi / size * position * frequency) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.float()
