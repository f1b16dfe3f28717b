"""BD and MBD as the paper ran them (DB3KD, sections 3.2 and 4), one pair and one query at a time.

The code is a NumPy translation from a description of the procedure. It keeps:

- the bisection along the direction of each image of the class, to a bracket of 1e-5. A direction
  that misses the class at the best radius so far costs one query and is dropped.
- the descent of Sign-OPT: the mean of 200 random unit vectors, each with the sign of one query at
  the current radius; a step length that doubles while it helps and is otherwise divided by four;
  and a search for the radius of the new direction that grows or shrinks the bracket by 1 % before
  it bisects.
- one call of the teacher for each query, with one image; directions, norms and brackets in NumPy.

It drops defects of the published code that only waste queries or have no bound. The line search
stops at a step that helped instead of trying shorter ones. A bracket ends at the diagonal of the
unit box, a line search tries a limited number of steps, every query is counted, and each pair has
its own step length and budget.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Decide = Callable[[NDArray[np.float32]], NDArray[np.integer]]
Progress = Callable[[int, float], None]

_GROWTH = 1.01
_LEAST_SMOOTHING = 1e-6
"""A shorter probe step no longer changes a float32 image."""


@dataclass(frozen=True)
class Procedure:
    """The paper's settings. Lengths are L2 in input units; steps are those of unit vectors.

    Attributes:
        bracket: The width at which a bisection of BD ends.
        directions: Queries of one estimate.
        step: The first step length.
        smoothing: The length of a probe's step (beta); a 500th of it ends the search for a radius.
        tries: The most longer steps, and the most shorter steps, that a line search tries.
    """

    bracket: float = 1e-5
    directions: int = 200
    step: float = 0.2
    smoothing: float = 1e-3
    tries: int = 15


def paper_search(
    decide: Decide,
    image: NDArray[np.float32],
    source: int,
    target: int,
    starts: NDArray[np.float32],
    budget: int,
    rng: np.random.Generator,
    *,
    sign_opt: bool,
    procedure: Procedure = Procedure(),
    on_progress: Progress | None = None,
) -> tuple[float, int]:
    """Searches the boundary distance of one pair.

    BD is the least radius at which a direction towards a starting point meets the target class. MBD
    continues from there by the descent of Sign-OPT.

    Args:
        decide: [n, D] float32 in [0, 1] -> [n] classes.
        image: [D] float32, of class `source`.
        source: The teacher's class of the image.
        target: The class to reach.
        starts: [n, D] float32, images of class `target`, used in order.
        budget: The most queries.
        rng: Draws the directions of the descent; BD draws none.
        sign_opt: Whether to search MBD instead of BD.
        procedure: The settings.
        on_progress: Called with (queries, distance) whenever the distance shrinks.

    Returns:
        The distance and the number of queries. The distance is +inf without starts, and that of the
        nearest start tried if no query hits. Beyond the box, where images are clamped, it is an
        upper bound.
    """
    search = _Search(decide, image, source, target, budget, on_progress)
    with suppress(_Spent):
        _start(search, starts, procedure)
        if sign_opt and np.isfinite(search.distance):
            _descend(search, rng, procedure)
    return search.distance, search.queries


class _Spent(Exception):
    """The budget does not cover another query."""


class _Search:
    """The queries of one pair, and the nearest hit among them."""

    def __init__(
        self,
        decide: Decide,
        image: NDArray[np.float32],
        source: int,
        target: int,
        budget: int,
        on_progress: Progress | None,
    ) -> None:
        if source == target:
            raise ValueError(f"target: expected a class other than source, {source}, got {target}")
        self.image = image.astype(np.float64)
        self.queries = 0
        self.distance = np.inf
        self.direction = np.zeros_like(self.image)
        self._decide, self._target = decide, target
        self._budget, self._on_progress = budget, on_progress

    def hits(self, direction: NDArray[np.float64], radius: float) -> bool:
        """Asks whether the point at this radius is of the target's class."""
        if self.queries >= self._budget:
            raise _Spent
        point = np.clip(self.image + radius * direction, 0, 1).astype(np.float32)
        hit = int(self._decide(point[None])[0]) == self._target
        self.queries += 1
        if hit:
            self.keep(direction, radius)
        return hit

    def keep(self, direction: NDArray[np.float64], radius: float) -> None:
        """Keeps a point if it is nearer than the best so far."""
        if radius >= self.distance:
            return
        self.direction, self.distance = direction, radius
        if self._on_progress is not None:
            self._on_progress(self.queries, radius)


def _start(search: _Search, starts: NDArray[np.float32], procedure: Procedure) -> None:
    for start in starts.astype(np.float64):
        length = float(np.linalg.norm(start - search.image))
        direction = (start - search.image) / length
        if length > search.distance:
            if not search.hits(direction, search.distance):
                continue
            length = search.distance
        search.keep(direction, length)
        _bisect(search, direction, 0.0, length, procedure.bracket)


def _bisect(
    search: _Search, direction: NDArray[np.float64], low: float, high: float, width: float
) -> float:
    """Bisects until the bracket is at most `width` wide, and returns its upper end."""
    while high - low > width:
        middle = (low + high) / 2
        if search.hits(direction, middle):
            high = middle
        else:
            low = middle
    return high


def _descend(search: _Search, rng: np.random.Generator, procedure: Procedure) -> None:
    """Rounds of an estimate and a line search, until the budget ends them."""
    step, smoothing = procedure.step, procedure.smoothing
    while True:
        gradient = _estimate(search, rng, procedure.directions, smoothing)
        gained = _line_search(search, gradient, step, smoothing, procedure)
        if gained is None:
            step = procedure.step
            smoothing = max(smoothing / 10, _LEAST_SMOOTHING)
        else:
            step = gained


def _estimate(
    search: _Search, rng: np.random.Generator, directions: int, smoothing: float
) -> NDArray[np.float64]:
    """Estimates how the radius grows with the direction: [D], one query a random direction."""
    theta, radius = search.direction, search.distance
    gradient = np.zeros_like(theta)
    for _ in range(directions):
        drawn = _unit(rng.standard_normal(len(theta)))
        sign = -1 if search.hits(_unit(theta + smoothing * drawn), radius) else 1
        gradient += sign * drawn
    return gradient / directions


def _line_search(
    search: _Search,
    gradient: NDArray[np.float64],
    step: float,
    smoothing: float,
    procedure: Procedure,
) -> float | None:
    """The last step length that shrank the radius, or None; the search holds the new best."""
    theta, gained = search.direction, None

    def helps(length: float) -> bool:
        before = search.distance
        _radius(search, _unit(theta - length * gradient), before, smoothing / 500)
        return search.distance < before

    for _ in range(procedure.tries):
        if not helps(step):
            break
        gained, step = step, step * 2
    if gained is not None:
        return gained
    for _ in range(procedure.tries):
        step /= 4
        if helps(step):
            return step
    return None


def _radius(search: _Search, direction: NDArray[np.float64], radius: float, width: float) -> float:
    """The radius of the boundary along a direction, +inf if there is none.

    The bracket is found by steps of 1 % from `radius`: inwards after a hit, otherwise outwards.
    """
    if search.hits(direction, radius):
        low, high = radius / _GROWTH, radius
        while search.hits(direction, low):
            low, high = low / _GROWTH, low
    else:
        low, high = radius, radius * _GROWTH
        while not search.hits(direction, high):
            if high > np.sqrt(len(direction)):
                return np.inf
            low, high = high, high * _GROWTH
    return _bisect(search, direction, low, high, width)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)
