"""Assigns the chunks of a run to worker processes.

The process that holds the run's folder assigns chunks and commits their shards. A worker labels
one chunk at a time and writes the chunk's journal. If a worker dies, its chunk resumes from the
journal in another worker, and other chunks are not affected. Budgets are divided before a run
starts, so labels and queries are the same as with a single process.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from db3kd.labelling.chunk_search import Labeller
from db3kd.labelling.workers.worker_pool import (
    MAX_ATTEMPTS,
    Outcome,
    RayWorkerPool,
    WorkerDiedError,
)
from db3kd.labels.labels import Labels


@dataclass
class ChunkDispatcher:
    """Labels chunks in the workers of a pool.

    A chunk that kills `MAX_ATTEMPTS` workers is set aside, and reported after the others are done.
    Any other error in a worker ends the run, as it would without workers.

    Attributes:
        pool: The workers of the run.
        labeller: The labeller, with the decisions of all images.
        chunks: [n] int64, the samples of each chunk, keyed by position.
        on_answers: A function that is called with the number of new answers; with a negative number
            if answers that were counted will be counted again.
    """

    pool: RayWorkerPool
    labeller: Labeller
    chunks: Mapping[int, Tensor]
    on_answers: Callable[[int], None]

    def __post_init__(self) -> None:
        self._waiting = deque(self.chunks)
        self._deaths: dict[int, list[str]] = {}
        self._counted: Counter[int] = Counter()

    def run(self) -> Iterator[tuple[int, Labels]]:
        """Yields the position of each chunk and its labels, as they complete.

        Raises:
            ChildProcessError: If workers died repeatedly while labelling a shard, or while
                starting.
            TimeoutError: If no worker becomes ready.
            TeacherError, OSError, ValueError: See `db3kd.label`.
        """
        try:
            yield from self._label_all()
        except BaseException:
            for position in self.pool.without_journal:  # whose answers are lost
                self.pool.run.record_lost_worker(position, unseen=self._max_queries(position))
            raise

    def _label_all(self) -> Iterator[tuple[int, Labels]]:
        shared = self.pool.put(
            self.labeller.decisions, self.labeller.limits, self.labeller.contradictions
        )
        while self._waiting or self.pool.is_working:
            while self._waiting and self.pool.has_idle:
                position = self._waiting.popleft()
                self.pool.submit(position, self.chunks[position], *shared)
            outcome = self.pool.next_outcome()
            if outcome is None:
                self._count(self.pool.answered())
            elif isinstance(outcome.result, WorkerDiedError):
                self._retry(outcome, outcome.result)
            else:
                labels = outcome.result
                self._count({outcome.position: labels.search_queries})
                yield outcome.position, labels
        self._raise_given_up()

    def _retry(self, outcome: Outcome, death: WorkerDiedError) -> None:
        """Queues a chunk whose worker died again, unless its attempts are exhausted."""
        position = outcome.position
        unseen = 0 if outcome.has_journal else self._max_queries(position)
        self.pool.run.record_lost_worker(position, unseen=unseen)
        self._count({position: 0})
        self._deaths.setdefault(position, []).append(str(death))
        if len(self._deaths[position]) < MAX_ATTEMPTS:
            self._waiting.append(position)
        if self._waiting:
            self.pool.start_worker()

    def _max_queries(self, position: int) -> int:
        return int(self.labeller.limits[self.chunks[position]].sum())

    def _count(self, answered: Mapping[int, int]) -> None:
        """Reports new answers; a chunk that starts again reports its old answers as negative."""
        for position, count in answered.items():
            if count != self._counted[position]:
                self.on_answers(count - self._counted[position])
                self._counted[position] = count

    def _raise_given_up(self) -> None:
        given_up = {at: why for at, why in self._deaths.items() if len(why) == MAX_ATTEMPTS}
        if given_up:
            position, why = next(iter(given_up.items()))
            others = f" (and {len(given_up) - 1} others)" if len(given_up) > 1 else ""
            raise ChildProcessError(
                f"shard at {position}{others}: {MAX_ATTEMPTS} workers died while labelling it, the "
                f"last with: {why[-1]}; all other shards are complete, so fix the cause and resume"
            )
