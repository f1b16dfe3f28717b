"""Moving pseudo samples away from the decision boundary (ZSDB3KD, section 4.2)."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.plain import (
    check_count_fields,
    check_fields,
    check_number,
    check_positive,
    check_type,
    suggests_arguments,
)
from db3kd.boundary import (
    Boundary,
    Pairs,
    Rays,
    SignOptSettings,
    StartingPoints,
    boundary_distance,
    minimal_boundary_distance,
)
from db3kd.data.files.uint8_pixels import to_float, to_uint8
from db3kd.errors import ArgumentError
from db3kd.querying.search import BudgetView, Search, query_in_batches

_DIRECTIONS = 20
"""Random directions that are tried from a sample without a boundary point, as in the paper."""


@suggests_arguments
@dataclass(frozen=True)
class Moves:
    """How often and how far samples are moved, and what that may cost.

    Example:
        >>> moves = db3kd.Moves(count=5, queries_per_sample=250)
        >>> settings = db3kd.SynthesisSettings(samples=1_000, moves=moves)

    Attributes:
        count: Maximum moves of a sample; 0 leaves samples as they are.
        length: L2 length of a move, in units of the teacher's range: a move of length 1 could take
            one pixel from the lower to the upper bound.
        halvings: Maximum number of times that a move is halved because it leaves the class; after
            that the sample stops. It also stops if a move is too short to change a pixel value.
        warm: Whether the search before a move starts at the boundary point of the previous move,
            which costs no query. If False, it starts in random directions, as in the paper.
        queries_per_move: Approximate limit on the queries that search for the boundary before a
            move. A round that would exceed it does not start, but the search for a first boundary
            point always finishes.
        queries_per_sample: Maximum queries of one sample over all its moves; None for no limit.
        tolerance: Width of the last bracket of the first boundary point, as a share of the
            distance.
        sign_opt: Settings of the search for the nearest boundary point.

    Raises:
        ValueError: If a value is invalid; the error names the argument.
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
        check_type(self.sign_opt, SignOptSettings, "sign_opt", "SignOptSettings")
        check_count_fields(self, "count", "halvings", "queries_per_move", least=0)
        if self.queries_per_sample is not None:
            check_count_fields(self, "queries_per_sample", least=0)
        check_fields(self, check_positive, "length", expected="a finite length above 0")
        check_fields(self, check_number, "tolerance", expected="a share in (0, 1)")
        if not 0 < self.tolerance < 1:
            raise ArgumentError("tolerance", f"expected a share in (0, 1), got {self.tolerance}")

    @classmethod
    def paper(cls) -> "Moves":
        """Returns the paper's settings: 40 moves of length 0.5 with up to 5,000 queries each.

        Example:
            >>> db3kd.Moves.paper().count
            40
        """
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
    """Samples after their moves.

    Attributes:
        pixels: [n, *image_shape] uint8.
        distance: [n] float32, L2 in input units, to the nearest known boundary point; +inf if none
            is known.
        moves: [n] int64, number of moves.
        snapshots: Pixels and distances after some numbers of moves. A distance is the one found
            before the next move; after the last move, it is the distance to the last known point.
    """

    pixels: Tensor
    distance: Tensor
    moves: Tensor
    snapshots: dict[int, tuple[Tensor, Tensor]]


def move_away(
    pixels: Tensor,
    index: Tensor,
    predicted: Tensor,
    settings: Moves,
    *,
    starting_points: StartingPoints | None,
    bounds: tuple[float, float],
    seed: int,
    query_batch_size: int,
    budget: BudgetView,
    snapshots: tuple[int, ...] = (),
) -> Search[Moved]:
    """Repeatedly moves each sample straight away from its nearest boundary point.

    A sample stops if no halving of its move stays in its class, or if its budget ends. Other
    samples are not affected.

    Args:
        pixels: [n, *image_shape] uint8, the samples.
        index: [n] int64, identifies the random numbers of each sample.
        predicted: [n] int64, the class of each sample.
        settings: How samples are moved.
        starting_points: Images of other classes that the first rays lead to. Without them, or if
            `settings.warm` is off, rays lead in random directions.
        bounds: Bounds of the teacher.
        seed: Seed of the random numbers.
        query_batch_size: Images per batch.
        budget: Account i pays for sample i.
        snapshots: Numbers of moves after which pixels and distances are stored.
    """
    walk = _Walk(
        pixels.clone(),
        index,
        predicted,
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
        walk.record(snapshots, number)
        yield from walk.step()
    walk.record(snapshots, settings.count)
    return Moved(walk.pixels, walk.boundary.distance, walk.moves, walk.snapshots)


@dataclass
class _Walk:
    """The state of one `move_away`; `pixels` is updated in place."""

    pixels: Tensor
    index: Tensor
    predicted: Tensor
    settings: Moves
    starting_points: StartingPoints | None
    bounds: tuple[float, float]
    seed: int
    query_batch_size: int
    budget: BudgetView

    def __post_init__(self) -> None:
        self.moving = torch.ones_like(self.predicted, dtype=torch.bool)
        self.moves = torch.zeros_like(self.predicted)
        self.snapshots: dict[int, tuple[Tensor, Tensor]] = {}
        self.boundary = Boundary.unknown(self._pairs())

    def record(self, snapshots: tuple[int, ...], number: int) -> None:
        """Stores the snapshots after `number` moves, and those after more in case none follows."""
        for count in snapshots:
            if count >= number:
                self.snapshots[count] = self.pixels.clone(), self.boundary.distance.clone()

    def find_boundary(self, number: int) -> Search[None]:
        """Searches for the nearest boundary point of each sample that still moves."""
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
        """Moves samples. A sample that no halving keeps in its class stops."""
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
            stays = decisions == self.predicted[waiting]
            self.pixels[waiting[stays]] = tried[stays]
            self.moves[waiting[stays]] += 1
            self.moving[waiting[stays]] = True
            waiting = waiting[~stays]
            length /= 2
        known = self.boundary.distance.isfinite()
        self.boundary.distance = torch.where(known, self._lengths(), torch.inf)

    def _lengths(self) -> Tensor:
        """Returns [n] float32, the distance of each sample from its boundary point."""
        pairs = self._pairs()
        return Rays.towards(pairs, self.boundary.points, pairs.sample_of, pairs.sample_of).lengths

    def _first_rays(self, pairs: Pairs, number: int) -> Search[Rays]:
        if self.settings.warm and self.starting_points is not None:
            rays = self.starting_points.rays(pairs)
            return rays.select(self.moving[rays.pair_of].nonzero()[:, 0])
        return (yield from self._random_rays(pairs, number))

    def _random_rays(self, pairs: Pairs, number: int) -> Search[Rays]:
        """Returns random rays up to the bounds that leave the class, the shortest ones first."""
        chosen = self.moving.nonzero()[:, 0]
        noise = [
            np.random.Generator(
                np.random.Philox(key=[self.seed, int(sample)], counter=[0, number, 0, 0])
            ).standard_normal((_DIRECTIONS, pairs.samples.shape[1]), dtype=np.float32)
            for sample in self.index[chosen].tolist()
        ]
        ends = torch.from_numpy(np.concatenate(noise)) if noise else pairs.samples[:0].cpu()
        pair_of = chosen.repeat_interleave(_DIRECTIONS)
        ends = ends.to(pairs.samples.device) * (self.bounds[1] - self.bounds[0])
        ends = (ends + pairs.samples[pair_of]).clamp_(*self.bounds)
        decisions = yield from query_in_batches(
            lambda part: ends[part], pair_of, self.query_batch_size
        )
        left = ((decisions != self.predicted[pair_of]) & (decisions >= 0)).nonzero()[:, 0]
        return Rays.towards(pairs, ends, pair_of[left], left).shortest_first()

    def _pairs(self) -> Pairs:
        here = torch.arange(len(self.predicted), device=self.predicted.device)
        samples = to_float(self.pixels, self.bounds).flatten(1)
        return Pairs(samples, self.index, here, self.predicted, targeted=False, bounds=self.bounds)


class _Allowance:
    """A part of a budget that only some accounts may spend.

    Args:
        budget: The whole budget.
        allowed: [A] bool, the accounts that may spend.
        limit: Maximum queries of each account.
    """

    def __init__(self, budget: BudgetView, allowed: Tensor, limit: int) -> None:
        self._budget = budget
        self._limits = torch.where(allowed, limit, 0)
        self._before = budget.spent.clone()

    @property
    def spent(self) -> Tensor:
        """[A] int64, queries spent from the whole budget."""
        return self._budget.spent

    @property
    def remaining(self) -> Tensor:
        """[A] int64, queries that this part still allows."""
        left = self._limits - (self._budget.spent - self._before)
        return torch.minimum(left, self._budget.remaining)


def _seed(seed: int, number: int) -> int:
    """Returns a seed for the probes of one move, because each move counts its rounds from 0."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)[0]) >> 1
