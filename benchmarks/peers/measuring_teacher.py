"""What any search is measured by: a teacher that counts, times and remembers what it is asked.

Searches differ in what they report, so none is taken at its word. The witness knows the pair of
each query; the distance a search has after so many queries is that of the nearest image that the
teacher has put in the pair's target class by then. A search that returns a worse image than its
best is credited with the best. What the witness itself takes is no part of any time.
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
    """A search asked for more than its pairs may spend; what it has found until then counts."""


@dataclass(frozen=True)
class Trace:
    """What became of P pairs after each of G numbers of queries.

    counts: [G] queries a pair. distance: [P, G] float32, L2. seconds: [G], from the start until all
    pairs had spent so many, or ended; searches of pairs one after another add up.
    """

    counts: NDArray[np.int64]
    distance: NDArray[np.float32]
    seconds: NDArray[np.float64]


class MeasuringTeacher:
    """A teacher of its own; `searching` times a search, `ask` answers it, and `note` remembers.

    teacher: who answers. samples: [P, D] float32. wanted: [P] int64, the class each pair is to
    reach. known: [P] float32, the distance each pair has before any query. budget: most queries of
    a pair that `ask` answers.

    queries: [P] answered queries of each pair. asked: images that the teacher saw, counted apart.
    in_teacher, wall: seconds in the teacher, and in all searches. points: [P, D], the nearest image
    of each pair; the sample itself where no query hit.
    """

    def __init__(
        self, teacher: Teacher, samples: Tensor, wanted: Tensor, known: Tensor, budget: int
    ) -> None:
        self.image_shape, self.classes = teacher.image_shape, teacher.classes
        self.bounds, self.max_batch = teacher.bounds, teacher.max_batch
        self.device = teacher.device
        self.queries = np.zeros(len(samples), np.int64)
        self.asked = 0
        self.in_teacher = self.wall = 0.0
        self.points = samples.numpy().copy()
        self._teacher, self._budget = teacher, budget
        self._samples, self._wanted = samples.numpy(), wanted.numpy()
        self._known = known.numpy()
        self._best = np.full(len(samples), np.inf, np.float32)
        self._search_of = np.zeros(len(samples), np.int64)
        self._searches = 0
        self._began = self._paused = 0.0
        # Arrays of the machine's own types: a list of as many objects would show in the memory.
        self._accounts, self._distances, self._elapsed = array("i"), array("f"), array("d")

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Times what is done in it as one search."""
        self._searches += 1
        self._began, self._paused = time.perf_counter(), 0.0
        try:
            yield
        finally:
            self.wall += self._running()

    def decide(self, images: Tensor) -> Tensor:
        """The teacher's answers, counted and timed, but not noted."""
        began = time.perf_counter()
        decisions = self._teacher.decide(images)
        self.in_teacher += time.perf_counter() - began
        self.asked += len(images)
        return decisions

    def fingerprint(self) -> str:
        return self._teacher.fingerprint()

    def ask(self, images: Tensor, accounts: NDArray[np.integer]) -> Tensor:
        """Decisions, int64 [n], for images [n, *image_shape], each paid for by the pair it names.

        Raises BudgetSpent, and asks none, where a pair cannot pay.
        """
        began, in_teacher = time.perf_counter(), self.in_teacher
        spent = self.queries + np.bincount(accounts, minlength=len(self.queries))
        if spent.max() > self._budget:
            raise BudgetSpent
        images = images.clamp(*self.bounds)
        parts = [self.decide(part) for part in images.split(self.max_batch)]
        decisions = torch.cat(parts)
        taught = self.in_teacher - in_teacher
        self._paused += time.perf_counter() - began - taught
        self.note(images, accounts, decisions)
        return decisions

    def note(self, images: Tensor, accounts: NDArray[np.integer], decisions: Tensor) -> None:
        """Remembers answered queries, in the order in which they were asked."""
        began = time.perf_counter()
        elapsed = self._running()
        distance = np.full(len(images), np.inf, np.float32)
        hit = (decisions.numpy() == self._wanted[accounts]).nonzero()[0]
        rows = images.flatten(1).numpy()
        gaps = rows[hit] - self._samples[accounts[hit]]
        distance[hit] = np.linalg.norm(gaps, axis=1)
        np.add.at(self.queries, accounts, 1)
        self._search_of[accounts] = self._searches
        self._accounts.extend(accounts.tolist())
        self._distances.extend(distance.tolist())
        self._elapsed.extend([elapsed] * len(images))
        nearer = hit[distance[hit] < self._best[accounts[hit]]]
        # Of a pair's several, the nearest comes last and stays.
        nearer = nearer[np.argsort(-distance[nearer], kind="stable")]
        self._best[accounts[nearer]] = distance[nearer]
        self.points[accounts[nearer]] = rows[nearer]
        self._paused += time.perf_counter() - began

    def missed(self) -> int:
        """Pairs of which no query hit."""
        return int(np.isinf(self._best).sum())

    def unconfirmed(self) -> int:
        """Pairs whose nearest image, asked again beside the others', is of another class.

        A boundary point lies within rounding of the boundary, and a network rounds otherwise in a
        batch of another size.
        """
        points = torch.from_numpy(self.points).view(-1, *self.image_shape)
        decisions = torch.cat([self._teacher.decide(part) for part in points.split(self.max_batch)])
        hit = np.isfinite(self._best)
        return int((decisions.numpy() != self._wanted)[hit].sum())

    def trace(self, counts: NDArray[np.int64]) -> Trace:
        """Distances and seconds after each of `counts` [G] queries a pair."""
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
        """[G]: over the searches, the latest of each one's pairs."""
        latest = np.zeros((self._searches + 1, seconds.shape[1]))
        np.maximum.at(latest, self._search_of, seconds)
        return latest.sum(0)

    def _running(self) -> float:
        return time.perf_counter() - self._began - self._paused


def witnessed(search: Search[Result], witness: MeasuringTeacher) -> Search[Result]:
    """The same search, whose answered queries the witness notes; its driver asks the witness."""
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
        witness.note(images, accounts.numpy(), known)
