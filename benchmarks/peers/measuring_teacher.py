"""A teacher that counts, times and remembers the queries of a search.

Searches report different things, so every search is measured here instead. Each query belongs to a
pair. The distance of a pair after n queries is that of the nearest image among them that the
teacher put in the pair's target class, even if the search itself returns a worse one. The time that
the measurement takes is left out of all times.
"""

import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from db3kd.querying.search import UNANSWERED, Result, Search
from db3kd.teachers import Teacher


class BudgetSpent(Exception):
    """A search asked for more queries than its pairs may spend."""


@dataclass(frozen=True)
class Trace:
    """The distances of P pairs after each of G numbers of queries.

    Attributes:
        counts: [G] int64, queries per pair.
        distance: [P, G] float32, L2.
        seconds: [G] float64, from the start until all pairs had spent so many queries or ended.
            Times of searches that run one after another are added.
    """

    counts: NDArray[np.int64]
    distance: NDArray[np.float32]
    seconds: NDArray[np.float64]


class MeasuringTeacher:
    """Measures searches against another teacher.

    Peers call `ask` within `searching`. Searches of db3kd are wrapped by `recorded` instead.

    Attributes:
        queries: [P] int64, answered queries of each pair.
        asked: Images that the teacher saw, counted separately.
        in_teacher: Seconds in the teacher.
        wall: Seconds in all searches.
        points: [P, D] float32, the nearest image of each pair, or the sample if no query hit.
    """

    def __init__(
        self, teacher: Teacher, samples: Tensor, target: Tensor, known: Tensor, budget: int
    ) -> None:
        """Creates the teacher.

        Args:
            teacher: Answers the queries.
            samples: [P, D] float32.
            target: [P] int64, the class that each pair has to reach.
            known: [P] float32, the distance of each pair before any query.
            budget: The most queries of a pair that `ask` answers.
        """
        self.image_shape, self.classes = teacher.image_shape, teacher.classes
        self.bounds, self.max_batch = teacher.bounds, teacher.max_batch
        self.device = teacher.device
        self.queries = np.zeros(len(samples), np.int64)
        self.asked = 0
        self.in_teacher = self.wall = 0.0
        self.points = samples.numpy().copy()
        self._teacher, self._budget = teacher, budget
        self._samples, self._target = samples.numpy(), target.numpy()
        self._known = known.numpy()
        self._best = np.full(len(samples), np.inf, np.float32)
        self._search_of = np.zeros(len(samples), np.int64)
        self._searches = 0
        self._began = self._paused = 0.0
        # Typed arrays: lists of so many objects would distort the measured memory.
        self._accounts, self._distances, self._elapsed = array("i"), array("f"), array("d")

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Times the block as one search."""
        self._searches += 1
        self._began, self._paused = time.perf_counter(), 0.0
        try:
            yield
        finally:
            self.wall += self._running_at(time.perf_counter())

    def decide(self, images: Tensor) -> Tensor:
        """Answers, counts and times queries without recording them for a pair."""
        began = time.perf_counter()
        decisions = self._teacher.decide(images)
        self.in_teacher += time.perf_counter() - began
        self.asked += len(images)
        return decisions

    def fingerprint(self) -> str:
        """The fingerprint of the teacher."""
        return self._teacher.fingerprint()

    def ask(self, images: Tensor, accounts: NDArray[np.integer]) -> Tensor:
        """Answers queries and records them.

        Args:
            images: [n, *image_shape] float32.
            accounts: [n] int, the pair that pays for each image.

        Returns:
            [n] int64 decisions.

        Raises:
            BudgetSpent: If a pair cannot pay. No image is then asked.
        """
        began, in_teacher = time.perf_counter(), self.in_teacher
        spent = self.queries + np.bincount(accounts, minlength=len(self.queries))
        if spent.max() > self._budget:
            raise BudgetSpent
        images = images.clamp(*self.bounds)
        parts = [self.decide(part) for part in images.split(self.max_batch)]
        decisions = torch.cat(parts)
        answering = self.in_teacher - in_teacher
        self._paused += time.perf_counter() - began - answering
        self.record(images, accounts, decisions)
        return decisions

    def record(self, images: Tensor, accounts: NDArray[np.integer], decisions: Tensor) -> None:
        """Records answered queries, in the order in which they were asked."""
        began = time.perf_counter()
        elapsed = self._running_at(began)  # a later time would include a part of the pause below
        distance = np.full(len(images), np.inf, np.float32)
        hit = (decisions.numpy() == self._target[accounts]).nonzero()[0]
        rows = images.flatten(1).numpy()
        gaps = rows[hit] - self._samples[accounts[hit]]
        distance[hit] = np.linalg.norm(gaps, axis=1)
        np.add.at(self.queries, accounts, 1)
        self._search_of[accounts] = self._searches
        self._accounts.extend(accounts.tolist())
        self._distances.extend(distance.tolist())
        self._elapsed.extend([elapsed] * len(images))
        nearer = hit[distance[hit] < self._best[accounts[hit]]]
        # If a pair has several, the nearest comes last and stays.
        nearer = nearer[np.argsort(-distance[nearer], kind="stable")]
        self._best[accounts[nearer]] = distance[nearer]
        self.points[accounts[nearer]] = rows[nearer]
        self._paused += time.perf_counter() - began

    def missed(self) -> int:
        """How many pairs no query hit."""
        return int(np.isinf(self._best).sum())

    def unconfirmed(self) -> int:
        """How many pairs have a nearest image that is of another class when asked again.

        A boundary point is within rounding of the boundary, and a network rounds differently in a
        batch of another size.
        """
        points = torch.from_numpy(self.points).view(-1, *self.image_shape)
        decisions = torch.cat([self._teacher.decide(part) for part in points.split(self.max_batch)])
        hit = np.isfinite(self._best)
        return int((decisions.numpy() != self._target)[hit].sum())

    def trace(self, counts: NDArray[np.int64]) -> Trace:
        """Distances and seconds after each of `counts` [G] queries per pair."""
        accounts = np.array(self._accounts, np.int32)
        distances = np.array(self._distances, np.float32)
        elapsed = np.array(self._elapsed, np.float64)
        order = np.argsort(accounts, kind="stable")
        ends = np.cumsum(self.queries)
        distance = np.repeat(self._known[:, None], len(counts), axis=1)
        seconds = np.zeros((len(self.queries), len(counts)))
        for pair, (end, length) in enumerate(zip(ends, self.queries, strict=True)):
            mine = order[end - length : end]
            if not len(mine):
                continue
            best = np.minimum.accumulate(np.minimum(distances[mine], self._known[pair]))
            place = np.minimum(counts, length) - 1
            distance[pair] = np.where(place >= 0, best[place], self._known[pair])
            seconds[pair] = np.where(place >= 0, elapsed[mine][place], 0.0)
        return Trace(counts, distance, self._summed(seconds))

    def _summed(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums the latest time of each search: [G]."""
        latest = np.zeros((self._searches + 1, seconds.shape[1]))
        np.maximum.at(latest, self._search_of, seconds)
        return latest.sum(0)

    def _running_at(self, now: float) -> float:
        return now - self._began - self._paused


def recorded(search: Search[Result], teacher: MeasuringTeacher) -> Search[Result]:
    """Wraps a search so that the teacher, which the driver has to ask, records its queries."""
    decisions = None
    while True:
        try:
            query = next(search) if decisions is None else search.send(decisions)
        except StopIteration as finished:
            return finished.value
        decisions = yield query
        answered = decisions != UNANSWERED
        images, accounts, known = query.images, query.accounts, decisions
        if not bool(answered.all()):
            images, accounts, known = images[answered], accounts[answered], decisions[answered]
        teacher.record(images, accounts.numpy(), known)
