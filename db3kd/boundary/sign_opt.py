"""Minimal boundary distance: descent along the boundary by probes, and by a surrogate if any."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from db3kd import ops
from db3kd.boundary.bisection import bisect
from db3kd.boundary.pairs import Boundary, Pairs, Rays, zero_rows
from db3kd.boundary.probes import Directions, probe_normals
from db3kd.boundary.surrogate import WEIGHT, Surrogate
from db3kd.querying.search import BudgetView, Search

_FEWEST_PROBES = 4
"""A round that could not pay for as many is not begun."""

_MOST_REACH = 8.0

_FIRST_FREQUENCIES = 0.3
"""Share of the frequencies a side that the first round draws from."""

_FREQUENCIES_A_ROUND = 1 / 56
"""What each round adds to it."""

_GAINS_TRUSTED = 3.0
"""How many times its last gain a pair is trusted to gain next."""

_MOST_FOLLOWED = 10
_WORTH_FOLLOWING = 0.02
_FEWEST_TO_FOLLOW = 4
"""A surrogate alone is followed so many times at most, while that gains a pair this share and the
pair has a few queries left."""

FOLLOWED_FROM = 0.03
"""Width of the bracket, as a share of the distance, at which a surrogate is followed from: the line
searches that come after narrow it."""


@dataclass(frozen=True)
class SignOptSettings:
    """Settings of the descent. Lengths are shares of a pair's distance, so they fit any scale.

    probes, growth: round r (from 0) estimates the normal from probes·(1 + growth·r) queries.
    momentum: weight that each round leaves to the estimates before it.
    noise, frequencies: the probe directions; see Directions. "auto" begins with the lower 30 % of
        the frequencies a side, for images of 16 x 16 and more, and adds a 56th of all a round: few
        probes tell most about smooth directions, many can tell the rest. For anything else it takes
        all pixels.
    probe_step: how far a probe lies from the boundary point.
    steps: step lengths along the normal tried side by side after each estimate, times the pair's
        own reach, which doubles when the longest wins and halves when none does.
    least_gain: what a step must gain to be taken at all.
    trust: what the first step can gain at most; bounds the line search. A later one of the pair
        can gain three times what the last one did, but no less than half of trust, no more than it.
    tolerance: width of the line search's last bracket. On flat boundaries 1e-3 ends nearer to the
        optimum; on networks, whose boundaries are bent, what it costs buys more elsewhere.
    rounds: most rounds, whatever the budget.
    """

    probes: int = 20
    growth: float = 0.2
    momentum: float = 0.7
    noise: ops.Noise = "rademacher"
    frequencies: int | str | None = "auto"
    probe_step: float = 0.02
    steps: tuple[float, ...] = (0.1, 0.4, 0.8)
    least_gain: float = 2e-4
    trust: float = 0.4
    tolerance: float = 2e-3
    rounds: int = 1000

    def __post_init__(self) -> None:
        for name, least in (("probes", 1), ("rounds", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.noise not in ("rademacher", "gaussian"):
            raise ValueError(f"noise: expected 'rademacher' or 'gaussian', got {self.noise!r}")
        if not self.steps or min(self.steps) <= 0:
            raise ValueError(f"steps: expected at least one positive length, got {self.steps}")
        if self.growth < 0 or not 0 <= self.momentum < 1 or self.probe_step <= 0:
            raise ValueError(
                "growth, momentum, probe_step: expected at least 0, in [0, 1) and above 0, got "
                f"{self.growth}, {self.momentum}, {self.probe_step}"
            )
        if not 0 < self.least_gain <= self.tolerance < self.trust / 2 < 0.5:
            raise ValueError(
                "least_gain, tolerance, trust: expected 0 < least_gain <= tolerance < trust / 2 < "
                f"0.5, got {self.least_gain}, {self.tolerance}, {self.trust}"
            )
        if not (self.frequencies in (None, "auto") or _is_count(self.frequencies)):
            raise ValueError(
                f"frequencies: expected 'auto', None or at least 1, got {self.frequencies!r}"
            )

    @classmethod
    def paper(cls) -> "SignOptSettings":
        """Sign-OPT as the paper ran it: 200 Gaussian probes of all pixels a round, no momentum.

        Its one step length, doubled while that helps and cut by four when it does not, becomes
        lengths tried side by side; its probe step of 0.001 is absolute there.
        """
        return cls(
            probes=200,
            growth=0.0,
            momentum=0.0,
            noise="gaussian",
            frequencies=None,
            probe_step=1e-3,
            steps=(0.0125, 0.05, 0.2, 0.4, 0.8, 1.6),
            trust=0.2,
            tolerance=1e-3,
        )

    def directions(self, image_shape: tuple[int, ...], round_number: int) -> Directions:
        """The distribution of a round's probe directions for images of this shape."""
        frequencies = self.frequencies
        spatial = len(image_shape) == 3
        if frequencies == "auto":
            smooth = spatial and min(image_shape[1:]) >= 16
            share = _FIRST_FREQUENCIES + _FREQUENCIES_A_ROUND * round_number
            frequencies = round(share * max(image_shape[1:])) if smooth and share < 1 else None
        if frequencies is not None and not spatial:
            raise ValueError(
                f"frequencies: expected None for images of shape {image_shape}, which have no "
                f"height and width, got {frequencies}"
            )
        return Directions(self.noise, frequencies, image_shape)

    @property
    def line_search_queries(self) -> int:
        """About what a line search costs: each step once, then the bisection of the best."""
        return len(self.steps) + math.ceil(math.log2(self.trust / self.tolerance)) + 2


def minimal_boundary_distance(
    pairs: Pairs,
    boundary: Boundary,
    image_shape: tuple[int, ...],
    settings: SignOptSettings,
    *,
    seed: int,
    query_batch_size: int,
    budget: BudgetView,
    surrogate: Surrogate | None = None,
) -> Search[None]:
    """MBD: shrinks the distance of each pair until its budget is spent (DB3KD, section 3.2).

    A round estimates the boundary's normal at the pair's best point, then moves the point along it
    by several step lengths at once; the rays to where they lead contest for the new best point. Any
    answer can only shrink the distance.

    boundary: from `boundary_distance`; updated in place. Pairs with an infinite distance are left
    alone. seed: names the random directions, with sample index, class and round. query_batch_size:
    images per batch. surrogate: is followed first, without a probe, as long as that helps, and
    then weighs in on every normal.
    """
    memory = zero_rows(pairs)
    guess = None if surrogate is None else Guess(surrogate, pairs)
    reach = torch.ones_like(boundary.distance)
    trust = torch.full_like(boundary.distance, settings.trust)
    if guess is not None:
        yield from _follow(pairs, boundary, guess, trust, settings, query_batch_size, budget)
    for round_number in range(settings.rounds):
        allowed = budget.remaining - settings.line_search_queries
        chosen = (boundary.distance.isfinite() & (allowed >= _FEWEST_PROBES)).nonzero()[:, 0]
        if not len(chosen):
            break
        count = round(settings.probes * (1 + settings.growth * round_number))
        normals = yield from probe_normals(
            pairs,
            boundary,
            chosen,
            directions=settings.directions(image_shape, round_number),
            step=boundary.distance[chosen] * settings.probe_step,
            count=count,
            allowed=allowed[chosen],
            round_number=round_number,
            seed=seed,
            query_batch_size=query_batch_size,
        )
        boundary.note(budget.spent, boundary.distance)
        # An estimate's noise falls, so its weight grows, with the square root of its probes.
        memory[chosen] = memory[chosen] * settings.momentum + normals * math.sqrt(count)
        normals = memory[chosen]
        if guess is not None:
            normals += WEIGHT * guess.normals(boundary, chosen)
        ends = _steps_along(pairs, boundary, chosen, normals, reach[chosen], settings)
        winner = yield from _line_search(
            pairs, boundary, chosen, ends, trust, settings, query_batch_size, budget
        )
        won = winner >= 0
        if guess is not None:
            guess.moved[chosen] = won
        longest = winner == len(settings.steps) - 1
        factor = torch.where(longest, 2.0, torch.where(won, 1.0, 0.5))
        reach[chosen] = (reach[chosen] * factor).clamp(1 / 64, _MOST_REACH)


class Guess:
    """A surrogate's normals at the points of pairs, each looked up once while its point stays.

    moved: [P] bool, pairs whose normal is not known where their point is now.
    """

    def __init__(self, surrogate: Surrogate, pairs: Pairs) -> None:
        self._surrogate = surrogate
        self._pairs = pairs
        self._known = zero_rows(pairs)
        self.moved = torch.ones_like(pairs.sample_of, dtype=torch.bool)

    def normals(self, boundary: Boundary, chosen: Tensor) -> Tensor:
        """[n, D] float32: unit normals at the points of the chosen pairs."""
        unknown = chosen[self.moved[chosen]]
        if len(unknown):
            points = boundary.points[unknown]
            self._known[unknown] = self._surrogate.normals(self._pairs, points, unknown)
            self.moved[unknown] = False
        return self._known[chosen]

    def approach(self, boundary: Boundary, chosen: Tensor) -> Tensor:
        """[n, D] float32: where the points could be; see `Surrogate.approach`."""
        points = boundary.points[chosen]
        ends, self._known[chosen] = self._surrogate.approach(self._pairs, points, chosen)
        return ends


def _follow(
    pairs: Pairs,
    boundary: Boundary,
    guess: Guess,
    trust: Tensor,
    settings: SignOptSettings,
    query_batch_size: int,
    budget: BudgetView,
) -> Search[None]:
    """Moves each pair's point to where the surrogate would have it, as long as the teacher agrees.

    trust: [P], as of `_line_search`.
    """
    worth = boundary.distance.isfinite()
    for _ in range(_MOST_FOLLOWED):
        chosen = (worth & (budget.remaining >= _FEWEST_TO_FOLLOW)).nonzero()[:, 0]
        if not len(chosen):
            break
        ends = guess.approach(boundary, chosen)
        before = boundary.distance[chosen]
        winner = yield from _line_search(
            pairs, boundary, chosen, ends[:, None], trust, settings, query_batch_size, budget
        )
        guess.moved[chosen] = winner >= 0
        worth[chosen] = boundary.distance[chosen] < before * (1 - _WORTH_FOLLOWING)


def _steps_along(
    pairs: Pairs,
    boundary: Boundary,
    chosen: Tensor,
    normals: Tensor,
    reach: Tensor,
    settings: SignOptSettings,
) -> Tensor:
    """Where the steps along their normals take each chosen pair's point: [n, steps, D]."""
    here = torch.arange(len(chosen), device=chosen.device)
    origin = normals.new_zeros(1, normals.shape[1])
    norm = ops.ray_lengths(origin, normals, torch.zeros_like(here), here)
    unit = torch.where(norm > 0, boundary.distance[chosen] * reach / norm, 0)
    # Products and sums apart: fused, their rounding would depend on a row's place in memory.
    ends = torch.stack([normals * (unit * step)[:, None] for step in settings.steps], dim=1)
    return ends.add_(boundary.points[chosen, None]).clamp_(*pairs.bounds)


def _line_search(
    pairs: Pairs,
    boundary: Boundary,
    chosen: Tensor,
    ends: Tensor,
    trust: Tensor,
    settings: SignOptSettings,
    query_batch_size: int,
    budget: BudgetView,
) -> Search[Tensor]:
    """Moves each chosen pair's point to the best of its ways; [n] int64, which, or -1.

    ends: [n, k, D], where the rays of each pair lead. trust: [P] float32, what each can gain at
    most; set anew by what it did gain.
    """
    ways = ends.shape[1]
    numbers = torch.arange(len(chosen) * ways, device=chosen.device)
    rays = Rays.towards(pairs, ends.flatten(0, 1), chosen.repeat_interleave(ways), numbers)
    before = boundary.distance[chosen]
    winner = yield from bisect(
        pairs,
        rays,
        boundary,
        low=boundary.distance * (1 - trust),
        radius=boundary.distance * (1 - settings.least_gain),
        absolute=0.0,
        relative=settings.tolerance,
        query_batch_size=query_batch_size,
        budget=budget,
    )
    gain = 1 - boundary.distance[chosen] / before
    trust[chosen] = (_GAINS_TRUSTED * gain).clamp(settings.trust / 2, settings.trust)
    ray, first = winner[chosen], numbers.view(-1, ways)[:, 0]
    return torch.where(ray >= 0, ray - first, -1)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
