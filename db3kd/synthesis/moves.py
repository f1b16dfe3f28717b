"""Moving pseudo samples away from the decision boundary (ZSDB3KD, section 4.2)."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from db3kd.boundary import (
    Boundary,
    Pairs,
    Rays,
    SignOptSettings,
    StartingPoints,
    boundary_distance,
    minimal_boundary_distance,
)
from db3kd.data.uint8_pixels import to_float, to_uint8
from db3kd.querying.search import BudgetView, Search, query_in_batches
from db3kd.validation import check_count

_DIRECTIONS = 20
"""Random directions tried from a sample that has no boundary point to go by, as published."""


@dataclass(frozen=True)
class Moves:
    """How often and how far samples are moved, and what that may cost.

    count: most moves of a sample; 0 leaves the starts as they are.
    length: of a move, L2 in units of the teacher's range (1 is from lower to upper in one pixel).
    halvings: how often a move that leaves the class is halved before the sample is left where it is
        for good; so it is once a move is too short to change a level.
    warm: whether each move looks for the boundary from the boundary point of the one before, which
        costs no query, or from random directions again, as published.
    queries_per_move: queries to find the boundary anew before a move, about: the descent begins no
        round that would go beyond, but a first boundary point is sought whatever it takes.
    queries_per_sample: most queries of one sample over all its moves, a hard limit; None for as
        many as its moves take.
    tolerance: width of the last bracket on the way to the first boundary point, as a share of the
        distance.
    sign_opt: how the nearest boundary is looked for.
    """

    count: int = 0
    length: float = 0.5
    halvings: int = 4
    warm: bool = True
    queries_per_move: int = 50
    queries_per_sample: int | None = None
    tolerance: float = 1e-2
    sign_opt: SignOptSettings = field(default_factory=SignOptSettings)

    def __post_init__(self) -> None:
        for name in ("count", "halvings", "queries_per_move"):
            check_count(getattr(self, name), name, least=0)
        if self.queries_per_sample is not None:
            check_count(self.queries_per_sample, "queries_per_sample", least=0)
        if not (self.length > 0 and math.isfinite(self.length)):
            raise ValueError(f"length: expected a finite length above 0, got {self.length}")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance: expected a share in (0, 1), got {self.tolerance}")

    @classmethod
    def paper(cls) -> "Moves":
        """40 moves of 0.5, each along a direction sought afresh with up to 5,000 queries."""
        return cls(
            count=40,
            halvings=10,
            warm=False,
            queries_per_move=5000,
            queries_per_sample=40 * 5030,
            tolerance=1e-5,
            sign_opt=SignOptSettings.paper(),
        )


@dataclass
class Moved:
    """Where samples have come to.

    pixels: uint8 [n, *image_shape]. distance: float32 [n], L2 in input units, to the nearest
    boundary point known; +inf where none is. moves: int64 [n], made. snapshots: levels and
    distances by the number of moves after which they were noted: the distances as found before the
    next move, after the last one those to the points known.
    """

    pixels: Tensor
    distance: Tensor
    moves: Tensor
    snapshots: dict[int, tuple[Tensor, Tensor]]


def move_away(
    pixels: Tensor,
    index: Tensor,
    own: Tensor,
    settings: Moves,
    *,
    starting_points: StartingPoints | None,
    bounds: tuple[float, float],
    seed: int,
    query_batch_size: int,
    budget: BudgetView,
    snapshots: tuple[int, ...] = (),
) -> Search[Moved]:
    """Moves each sample straight away from its nearest boundary point, again and again.

    A sample stops where no halving of its move stays in the class, or its budget ends; that holds
    up no other.

    pixels: uint8 [n, *image_shape]. index: int64 [n], names their random numbers. own: int64 [n],
    their classes. candidates: images of other classes that the first rays lead to; without any,
    and where settings.warm is off, rays lead in random directions. seed, query_batch_size: as for
    labelling. budget: account i pays for sample i.
    """
    walk = _Walk(
        pixels.clone(),
        index,
        own,
        settings,
        starting_points,
        bounds,
        seed,
        query_batch_size,
        budget,
    )
    for number in range(settings.count):
        if not bool(walk.moving.any()):
            break
        yield from walk.find_boundary(number)
        walk.note(snapshots, number)
        yield from walk.step()
    walk.note(snapshots, settings.count)
    return Moved(walk.pixels, walk.boundary.distance, walk.moves, walk.snapshots)


@dataclass
class _Walk:
    """The samples of one `move_away`, on their way; `pixels` is written to."""

    pixels: Tensor
    index: Tensor
    own: Tensor
    settings: Moves
    starting_points: StartingPoints | None
    bounds: tuple[float, float]
    seed: int
    query_batch_size: int
    budget: BudgetView

    def __post_init__(self) -> None:
        self.moving = torch.ones_like(self.own, dtype=torch.bool)
        self.moves = torch.zeros_like(self.own)
        self.snapshots: dict[int, tuple[Tensor, Tensor]] = {}
        self.boundary = Boundary.unknown(self._pairs())

    def note(self, wanted: tuple[int, ...], number: int) -> None:
        """Keeps what there is for the snapshots at `number` moves or, at an early end, after it."""
        for count in wanted:
            if count >= number:
                self.snapshots[count] = self.pixels.clone(), self.boundary.distance.clone()

    def find_boundary(self, number: int) -> Search[None]:
        """The nearest boundary point of each sample that still moves."""
        pairs = self._pairs()
        allowance = _Allowance(self.budget, self.moving, self.settings.queries_per_move)
        if number == 0 or not self.settings.warm:
            rays = yield from self._first_rays(pairs, number)
            found = yield from boundary_distance(
                pairs,
                rays,
                relative=self.settings.tolerance,
                query_batch_size=self.query_batch_size,
                budget=allowance,
            )
            known = self.moving & found.distance.isfinite()
            self.boundary.distance = torch.where(known, found.distance, self.boundary.distance)
            self.boundary.points[known] = found.points[known]
        kept = self.boundary.distance
        self.boundary.distance = torch.where(self.moving, kept, torch.inf)
        yield from minimal_boundary_distance(
            pairs,
            self.boundary,
            tuple(self.pixels.shape[1:]),
            self.settings.sign_opt,
            seed=_seed(self.seed, number),
            query_batch_size=self.query_batch_size,
            budget=allowance,
        )
        self.boundary.distance = torch.where(self.moving, self.boundary.distance, kept)

    def step(self) -> Search[None]:
        """Moves samples; one that no halving keeps in its class moves no more."""
        samples = self._pairs().samples
        away = samples - self.boundary.points
        norm = self._lengths()
        self.moving &= self.boundary.distance.isfinite() & (norm > 0)
        away /= torch.where(norm > 0, norm, 1)[:, None]
        waiting = self.moving.nonzero()[:, 0]
        self.moving = torch.zeros_like(self.moving)
        length = self.settings.length * (self.bounds[1] - self.bounds[0])
        for _ in range(self.settings.halvings + 1):
            ends = samples[waiting] + away[waiting] * length
            tried = to_uint8(ends.clamp_(*self.bounds), self.bounds).view_as(self.pixels[waiting])
            changed = (tried != self.pixels[waiting]).flatten(1).any(1)
            waiting, tried = waiting[changed], tried[changed]
            if not len(waiting):
                break
            images = to_float(tried, self.bounds)
            decisions = yield from query_in_batches(
                images.__getitem__, waiting, self.query_batch_size
            )
            stays = decisions == self.own[waiting]
            self.pixels[waiting[stays]] = tried[stays]
            self.moves[waiting[stays]] += 1
            self.moving[waiting[stays]] = True
            waiting = waiting[~stays]
            length /= 2
        known = self.boundary.distance.isfinite()
        self.boundary.distance = torch.where(known, self._lengths(), torch.inf)

    def _lengths(self) -> Tensor:
        """float32 [n], from where the samples are to their boundary points."""
        pairs = self._pairs()
        return Rays.towards(pairs, self.boundary.points, pairs.sample_of, pairs.sample_of).lengths

    def _first_rays(self, pairs: Pairs, number: int) -> Search[Rays]:
        if self.settings.warm and self.starting_points is not None:
            rays = self.starting_points.rays(pairs)
            return rays.select(self.moving[rays.pair_of].nonzero()[:, 0])
        return (yield from self._random_rays(pairs, number))

    def _random_rays(self, pairs: Pairs, number: int) -> Search[Rays]:
        """Rays in random directions, as far as the bounds, of those that leave the class there; the
        shortest of a sample first."""
        chosen = self.moving.nonzero()[:, 0]
        noise = [
            np.random.Generator(
                np.random.Philox(key=[self.seed, int(sample)], counter=[0, number, 0, 0])
            ).standard_normal((_DIRECTIONS, pairs.samples.shape[1]), dtype=np.float32)
            for sample in self.index[chosen].tolist()
        ]
        ends = torch.from_numpy(np.concatenate(noise)) if noise else torch.empty(0, 1)
        pair_of = chosen.repeat_interleave(_DIRECTIONS)
        ends = ends.to(pairs.samples.device) * (self.bounds[1] - self.bounds[0])
        ends = (ends + pairs.samples[pair_of]).clamp_(*self.bounds)
        decisions = yield from query_in_batches(
            lambda part: ends[part], pair_of, self.query_batch_size
        )
        left = ((decisions != self.own[pair_of]) & (decisions >= 0)).nonzero()[:, 0]
        return Rays.towards(pairs, ends, pair_of[left], left).shortest_first()

    def _pairs(self) -> Pairs:
        here = torch.arange(len(self.own), device=self.own.device)
        samples = to_float(self.pixels, self.bounds).flatten(1)
        return Pairs(samples, self.index, here, self.own, targeted=False, bounds=self.bounds)


class _Allowance:
    """A purse of which a part may be spent now, and by some accounts only."""

    def __init__(self, budget: BudgetView, allowed: Tensor, most: int) -> None:
        self._purse = budget
        self._most = torch.where(allowed, most, 0)
        self._before = budget.spent.clone()

    @property
    def spent(self) -> Tensor:
        return self._purse.spent

    @property
    def remaining(self) -> Tensor:
        left = self._most - (self._purse.spent - self._before)
        return torch.minimum(left, self._purse.remaining)


def _seed(seed: int, number: int) -> int:
    """A seed of its own for the probes of each move, whose rounds are counted from 0 again."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0]) >> 1
