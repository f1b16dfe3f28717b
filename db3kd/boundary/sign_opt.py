"""Minimal boundary distance (MBD): Sign-OPT with probes, and with a surrogate if there is one."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from db3kd import ops
from db3kd.boundary.bisection import bisect
from db3kd.boundary.cached_normals import CachedNormals
from db3kd.boundary.pairs import Boundary, Pairs, Rays, zeros_per_pair
from db3kd.boundary.probes import probe_normals
from db3kd.boundary.sign_opt_settings import SignOptSettings
from db3kd.boundary.surrogate import SURROGATE_WEIGHT, Surrogate
from db3kd.querying.search import BudgetView, Search

_MIN_PROBES = 4
"""A pair that cannot afford this many probes takes part in no further round."""

_MIN_REACH, _MAX_REACH = 1 / 64, 8.0
"""Limits on the factor of a pair's step lengths."""

_TRUSTED_GAINS = 3.0
"""A pair can next gain at most this many times its last gain."""

_MAX_FOLLOWED = 10
"""A surrogate is followed without probes at most this many times."""

_WORTH_FOLLOWING = 0.02
"""A pair follows the surrogate while it gains at least this share of its distance."""

_NEAREST_TRUST = 0.9
"""Maximum gain of a pair, as a share of its distance, by the surrogate's nearest point."""

_MIN_QUERIES_TO_FOLLOW = 4
"""A pair follows the surrogate while it has at least this many queries left."""

TOLERANCE_WITH_SURROGATE = 0.03
"""The `relative` of `boundary_distance` that suffices if a surrogate is followed afterwards.

The line searches that follow narrow the bracket further.
"""


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
    """Measures MBD: shrinks the distance of each pair until its budget is spent.

    See DB3KD, section 3.2. A round estimates the boundary's normal at the best point of each pair,
    and tries several step lengths along it. The rays to the new points are bisected together to
    find the new best point. A distance never grows, whatever the teacher answers.

    Example:
        >>> boundary = yield from boundary_distance(pairs, rays, budget=ledger)
        >>> yield from minimal_boundary_distance(
        ...     pairs, boundary, (1, 28, 28), SignOptSettings(),
        ...     seed=0, query_batch_size=2048, budget=ledger,
        ... )

    Args:
        pairs: The pairs to measure.
        boundary: The result of `boundary_distance`; updated in place. Pairs with an infinite
            distance are skipped.
        image_shape: The shape of an image.
        settings: How normals are estimated and followed.
        seed: The seed of the random directions, which also depend on sample index, class and round.
        query_batch_size: Maximum number of images in a batch.
        budget: The queries that each pair has spent and may spend.
        surrogate: A network whose boundary is followed first, without probes, while distances
            shrink enough. Afterwards its normals are combined with the estimates from probes.
    """
    state = _State(
        pairs=pairs,
        boundary=boundary,
        settings=settings,
        query_batch_size=query_batch_size,
        budget=budget,
        trust=torch.full_like(boundary.distance, settings.trust),
        reach=torch.ones_like(boundary.distance),
    )
    accumulated = zeros_per_pair(pairs)
    cached: CachedNormals | None = None
    if surrogate is not None:
        cached = CachedNormals(surrogate, pairs)
        yield from state.follow(cached)
    for round_number in range(settings.rounds):
        allowed = budget.remaining - settings.line_search_queries
        chosen = (boundary.distance.isfinite() & (allowed >= _MIN_PROBES)).nonzero()[:, 0]
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
        boundary.record_snapshots(budget, boundary.distance)
        # The noise of an estimate falls with the square root of its probes, so its weight grows.
        accumulated[chosen] = accumulated[chosen] * settings.momentum + normals * math.sqrt(count)
        normals = accumulated[chosen]
        if cached is not None:
            normals += SURROGATE_WEIGHT * cached.at(boundary, chosen)
        moved = yield from state.step_along(chosen, normals)
        if cached is not None:
            cached.moved[chosen] = moved


@dataclass
class _State:
    """The state of one search: pairs, boundary points, and step lengths that adapt.

    Attributes:
        trust: [P] float32, the maximum next gain of each pair, as a share of its distance.
        reach: [P] float32, the factor of each pair's step lengths.
    """

    pairs: Pairs
    boundary: Boundary
    settings: SignOptSettings
    query_batch_size: int
    budget: BudgetView
    trust: Tensor
    reach: Tensor

    def follow(self, cached: CachedNormals) -> Search[None]:
        """Moves each point as the surrogate proposes, while the teacher confirms a gain.

        The first proposal is the surrogate's nearest point, later ones are near the pair's own.
        """
        boundary = self.boundary
        chosen = self._can_follow(boundary.distance.isfinite())
        if len(chosen):
            chosen, ends = cached.nearest(boundary, chosen)
            gainable = torch.full_like(self.trust, _NEAREST_TRUST)
            winner = yield from self._line_search(chosen, ends[:, None], gainable)
            cached.moved[chosen[winner >= 0]] = True
        worth = boundary.distance.isfinite()
        for _ in range(_MAX_FOLLOWED):
            chosen = self._can_follow(worth)
            if not len(chosen):
                break
            ends = cached.approach(boundary, chosen)
            before = boundary.distance[chosen]
            winner = yield from self._line_search(chosen, ends[:, None], self.trust)
            cached.moved[chosen] = winner >= 0
            worth[chosen] = boundary.distance[chosen] < before * (1 - _WORTH_FOLLOWING)

    def _can_follow(self, worth: Tensor) -> Tensor:
        """Returns the pairs, of those marked in `worth`, that have queries left; [n] int64."""
        return (worth & (self.budget.remaining >= _MIN_QUERIES_TO_FOLLOW)).nonzero()[:, 0]

    def step_along(self, chosen: Tensor, normals: Tensor) -> Search[Tensor]:
        """Moves the points of the chosen pairs along their normals, [n, D], by the best step.

        Returns:
            Whether each point moved, [n] bool.
        """
        winner = yield from self._line_search(chosen, self._step_ends(chosen, normals), self.trust)
        moved = winner >= 0
        longest, reach = winner == len(self.settings.steps) - 1, self.reach[chosen]
        reach = torch.where(longest, reach * 2, torch.where(moved, reach, reach / 2))
        self.reach[chosen] = reach.clamp(_MIN_REACH, _MAX_REACH)
        return moved

    def _step_ends(self, chosen: Tensor, normals: Tensor) -> Tensor:
        """Returns where each step takes the point of each chosen pair, [n, steps, D]."""
        boundary = self.boundary
        here = torch.arange(len(chosen), device=chosen.device)
        origin = normals.new_zeros(1, normals.shape[1])
        norm = ops.ray_lengths(origin, normals, torch.zeros_like(here), here)
        unit = torch.where(norm > 0, boundary.distance[chosen] * self.reach[chosen] / norm, 0)
        # Multiply and add separately: if fused, rounding would depend on a row's place in memory.
        steps = [normals * (unit * step)[:, None] for step in self.settings.steps]
        ends = torch.stack(steps, dim=1)
        return ends.add_(boundary.points[chosen, None]).clamp_(*self.pairs.bounds)

    def _line_search(self, chosen: Tensor, ends: Tensor, gainable: Tensor) -> Search[Tensor]:
        """Moves the point of each chosen pair to the nearest boundary point on its rays.

        Args:
            chosen: [n] int64, the pairs.
            ends: [n, k, D], the ends of the rays of each pair.
            gainable: [P] float32, maximum gain of each pair, as a share of its distance.

        Returns:
            The number of the winning ray, from 0 to k - 1, or -1 if none gained; [n] int64.
        """
        boundary, settings = self.boundary, self.settings
        rays_per_pair = ends.shape[1]
        numbers = torch.arange(len(chosen) * rays_per_pair, device=chosen.device)
        pair_of = chosen.repeat_interleave(rays_per_pair)
        before = boundary.distance[chosen]
        winner = yield from bisect(
            self.pairs,
            Rays.towards(self.pairs, ends.flatten(0, 1), pair_of, numbers),
            boundary,
            low=boundary.distance * (1 - gainable),
            radius=boundary.distance * (1 - settings.least_gain),
            absolute=0.0,
            relative=settings.tolerance,
            query_batch_size=self.query_batch_size,
            budget=self.budget,
        )
        gain = 1 - boundary.distance[chosen] / before
        self.trust[chosen] = (_TRUSTED_GAINS * gain).clamp(settings.trust / 2, settings.trust)
        ray, first = winner[chosen], numbers.view(-1, rays_per_pair)[:, 0]
        return torch.where(ray >= 0, ray - first, -1)
