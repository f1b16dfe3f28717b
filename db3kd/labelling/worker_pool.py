"""Several processes that label one run, on this machine or on a cluster, by Ray.

The process that holds the run's folder hands out chunks and commits their shards; a worker labels
one chunk at a time and writes its journal. So where a worker dies, its chunk goes on from its
journal in another worker, and no other chunk hears of it. What a sample may spend is settled before
a run begins, so the labels, and the queries, are those of one process.
"""

import math
import os
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.data.image_set import ImageSet
from db3kd.labelling.chunk_search import Labeller
from db3kd.labelling.labels import Labels
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.worker import Worker, WorkerTask
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers.base import Teacher, describe
from db3kd.validation import check_count

ATTEMPTS = 3
"""Workers that may die over one shard, or before they are ready, until it is given up."""

_LOOK_SECONDS = 0.5
_STOP_SECONDS = 30.0
"""For a call of the teacher to end where a run is stopped; then its worker is killed."""

_START_SECONDS = 600.0
"""For a worker to be ready where there is none: a cluster may have to start a machine for it."""


@dataclass(frozen=True)
class Workers:
    """How many processes label a run, and where.

    count: of processes; a run of fewer shards keeps as many busy as it has shards. address: of a
    Ray cluster, HOST:PORT or "auto"; by default Ray is started on this machine, unless this process
    has one already. gpus: give each worker a GPU, or its share of one, where Ray has any.
    make_teacher: builds the teacher in each worker; by default the teacher at hand is sent.
    """

    count: int
    address: str | None = None
    gpus: bool = True
    make_teacher: Callable[[], Teacher] | None = None

    def __post_init__(self) -> None:
        check_count(self.count, "workers")


def import_ray() -> Any:
    """Ray, imported late: one process needs none."""
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            'workers: several need Ray: pip install "db3kd[ray]", or leave it at one'
        ) from error
    return ray


@contextmanager
def start_workers(
    workers: Workers,
    run: RunFolder,
    teacher: Teacher,
    images: ImageSet,
    settings: LabelSettings,
    surrogate: nn.Module | None = None,
) -> Iterator["RayWorkerPool"]:
    """Starts the workers of a run, and ends them again. They get ready while the caller goes on.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
        TypeError: the teacher cannot be sent.
    """
    with _connected(workers) as (ray, processors):
        job = WorkerTask(
            make_teacher=workers.make_teacher or _PickledTeacher(teacher),
            fingerprint=teacher.fingerprint(),
            images=images,
            data_fingerprint=images.fingerprint(),
            settings=settings,
            surrogate=surrogate,
            journals=run.journals,
            threads=max(1, min(torch.get_num_threads(), processors // workers.count)),
        )
        pool = RayWorkerPool(ray, workers, _send(ray, job, describe(teacher)), run)
        try:
            yield pool
        finally:
            pool.shutdown()


class _DiedError(Exception):
    """A worker's process, or its machine, is no more."""


@dataclass(eq=False)
class _WorkerHandle:
    """A worker, as long as it lives. position: of the chunk it is at; None where it is at none."""

    handle: Any
    position: int | None = None
    has_journal: bool = True


class RayWorkerPool:
    """The Ray actors that label one run, and the chunks they are at."""

    def __init__(self, ray: Any, workers: Workers, job: Any, run: RunFolder) -> None:
        self.run = run
        self._ray = ray
        self._job = job
        self._actor = ray.remote(Worker).options(
            num_cpus=1,
            num_gpus=_share_of_gpu(ray, workers),
            max_restarts=0,
            max_concurrency=2,  # else it could not say how far it is
        )
        self._busy: dict[Any, _WorkerHandle] = {}
        self._idle: deque[_WorkerHandle] = deque()
        self._died_unready = 0
        self._last_seen = time.monotonic()
        for _ in range(workers.count):
            self.start_worker()

    def label(
        self, labeller: Labeller, parts: Mapping[int, Tensor], on_answers: Callable[[int], None]
    ) -> Iterator[Labels]:
        """The labels of each part, int64 [n] by its position in the run, as they are done.

        A part over which `ATTEMPTS` workers died is set aside, and said when all others are done.
        Whatever else happens in a worker ends the run, as it would without workers.

        Raises:
            ChildProcessError: workers died over a shard, or before they were ready.
            TimeoutError: no worker became ready.
            TeacherError, OSError, ValueError: as `db3kd.labelling.label_images.label_chunks`.
        """
        return _Dispatcher(self, labeller, parts, on_answers).chunks()

    def share(self, *values: Any) -> list[Any]:
        """Puts values where `give` can name them to any worker."""
        return [self._ray.put(value) for value in values]

    def start_worker(self) -> None:
        """Starts a worker, which gets ready."""
        member = _WorkerHandle(self._actor.remote())
        self._busy[member.handle.prepare.remote(self._job)] = member

    @property
    def has_idle(self) -> bool:
        return bool(self._idle)

    @property
    def at_work(self) -> list[_WorkerHandle]:
        """The workers that have a chunk."""
        return [member for member in self._busy.values() if member.position is not None]

    def give(self, position: int, *arguments: Any) -> None:
        """Gives a chunk to an idle worker."""
        member = self._idle.popleft()
        member.position = position
        self._busy[member.handle.label.remote(position, *arguments)] = member

    def next_ended(self) -> tuple[_WorkerHandle, int, Labels | _DiedError] | None:
        """A worker, the position of the chunk it was at, and the chunk, or how the worker ended.

        None where there was none for a moment. A worker that has become ready is not told of.
        """
        ended, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=_LOOK_SECONDS)
        if not ended:
            self._check_patience()
            return None
        member = self._busy.pop(ended[0])
        position, member.position = member.position, None
        self._idle.append(member)
        try:
            result = self._result(ended[0])
        except _DiedError as death:
            self._idle.remove(member)
            result = death
        if position is not None:
            return member, position, result
        self._admit(member, result)
        return None

    def answered(self) -> dict[int, int]:
        """By position, how many queries of the chunks at hand have an answer, where it is known."""
        asked = {member.handle.answered.remote(): member.position for member in self.at_work}
        answered = {}
        for reference in self._wait(list(asked), _LOOK_SECONDS):
            with suppress(_DiedError):
                answered[asked[reference]] = self._result(reference)
        return answered

    def shutdown(self) -> None:
        """Has all workers end after the batch they are at."""
        for member in self.at_work:
            member.handle.stop.remote()
        chunks = [chunk for chunk, member in self._busy.items() if member.position is not None]
        self._wait(chunks, _STOP_SECONDS)
        for call in self._wait(list(self._busy), 0):
            self._idle.append(self._busy.pop(call))
        self._wait([member.handle.leave.remote() for member in self._idle], _LOOK_SECONDS)
        for member in (*self._idle, *self._busy.values()):
            self._ray.kill(member.handle)
        self._idle.clear()
        self._busy.clear()

    def _wait(self, references: list[Any], seconds: float) -> list[Any]:
        """Those of the calls that have ended after so many seconds, or all before that."""
        if not references:
            return []
        return self._ray.wait(references, num_returns=len(references), timeout=seconds)[0]

    def _result(self, reference: Any) -> Any:
        """What a call returned; raises what it raised, and _DiedError where it did not end."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from error
        except self._ray.exceptions.RayError as error:
            raise _DiedError(str(error).strip().splitlines()[0]) from error

    def _admit(self, member: _WorkerHandle, result: bool | _DiedError) -> None:
        """A worker is ready, or died before it was."""
        if not isinstance(result, _DiedError):
            member.has_journal = result
            if not result:
                warnings.warn(
                    f"{self.run.path}: is not on the disk of each worker; where one dies, what its "
                    "chunk was answered is lost. Put the run on a disk that all machines share.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._died_unready = 0
            return
        self._died_unready += 1
        if self._died_unready < ATTEMPTS:
            self.start_worker()
        elif not self._busy and not self._idle:
            raise ChildProcessError(
                f"workers: {ATTEMPTS} died one after the other before they were ready: {result}"
            )

    def _check_patience(self) -> None:
        now = time.monotonic()
        if self._idle or self.at_work:
            self._last_seen = now
        elif now - self._last_seen > _START_SECONDS:
            raise TimeoutError(
                f"workers: none was ready within {_START_SECONDS:g} s; each wants a processor, and "
                "its share of a GPU where there are any, in the Ray cluster"
            )


class _Dispatcher:
    """One round of chunks: those that are left, and over which workers died."""

    def __init__(
        self,
        pool: RayWorkerPool,
        labeller: Labeller,
        parts: Mapping[int, Tensor],
        on_answers: Callable[[int], None],
    ) -> None:
        self._crew = pool
        self._labeller = labeller
        self._parts = parts
        self._left = deque(parts)
        self._deaths: dict[int, list[str]] = {}
        self._on_answers = on_answers
        self._counted: Counter[int] = Counter()

    def chunks(self) -> Iterator[Labels]:
        given = self._labeller
        shared = self._crew.share(given.decisions, given.limits, given.contradictions)
        while self._left or self._crew.at_work:
            while self._left and self._crew.has_idle:
                position = self._left.popleft()
                self._crew.give(position, self._parts[position], *shared)
            ended = self._crew.next_ended()
            if ended is None:
                self._count(self._crew.answered())
                continue
            member, position, result = ended
            if isinstance(result, _DiedError):
                self._take_back(position, member, result)
                continue
            self._count({position: int((result.queries.sum(1) - 1).clamp_min(0).sum())})
            yield result
        self._raise_given_up()

    def _take_back(self, position: int, member: _WorkerHandle, death: _DiedError) -> None:
        """A chunk whose worker died waits for another, unless it cost too many."""
        most = self._labeller.limits[self._parts[position]].sum()
        self._crew.run.record_lost_worker(position, unseen=0 if member.has_journal else int(most))
        self._count({position: 0})
        self._deaths.setdefault(position, []).append(str(death))
        if len(self._deaths[position]) < ATTEMPTS:
            self._left.append(position)
        if self._left:
            self._crew.start_worker()

    def _count(self, answered: Mapping[int, int]) -> None:
        """Passes on what has changed; a chunk that begins again has its answers counted again."""
        for position, count in answered.items():
            if count != self._counted[position]:
                self._on_answers(count - self._counted[position])
                self._counted[position] = count

    def _raise_given_up(self) -> None:
        given_up = {position: why for position, why in self._deaths.items() if len(why) == ATTEMPTS}
        if given_up:
            position, why = next(iter(given_up.items()))
            others = f" (and of {len(given_up) - 1} others)" if len(given_up) > 1 else ""
            raise ChildProcessError(
                f"shard at {position}{others}: {ATTEMPTS} workers died over it, the last so: "
                f"{why[-1]}; all other shards are done"
            )


_RAY_SESSION = "session_2026-01-01_00-00-00_000000_0000000"
"""A session of Ray, as long as its name can be."""

_MOST_SOCKET_BYTES = 107


@dataclass(frozen=True)
class _PickledTeacher:
    """Makes a teacher of the one that was sent."""

    teacher: Teacher

    def __call__(self) -> Teacher:
        return self.teacher


def _check_socket_path() -> None:
    """Raises ValueError if Ray's sockets would have a path longer than the system takes."""
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    longest = os.path.join(base, "ray", _RAY_SESSION, "sockets", "plasma_store")
    if len(os.fsencode(longest)) > _MOST_SOCKET_BYTES:
        raise ValueError(
            f"workers: Ray's sockets would lie under {base}, whose path of "
            f"{len(os.fsencode(base))} bytes is too long for a socket; set RAY_TMPDIR to a short "
            "path, such as /tmp"
        )


@contextmanager
def _connected(workers: Workers) -> Iterator[tuple[Any, int]]:
    """Ray, and how many processors the workers may share; one that was started here is stopped."""
    ray = import_ray()
    if ray.is_initialized():
        yield ray, int(ray.cluster_resources().get("CPU", 1))
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else Ray warns that it hides GPUs from whoever asks for none, which it will cease to do.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if workers.address is None:
        _check_socket_path()
        ray.init("local", num_cpus=workers.count, include_dashboard=False, **quiet)
        processors = torch.get_num_threads()
    else:
        try:
            ray.init(workers.address, **quiet)
        except ConnectionError as error:
            raise ConnectionError(
                f"ray-address: no Ray cluster let us in at {workers.address}; is it running, and "
                "if it wants a token, is that in RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token?"
            ) from error
        processors = int(ray.cluster_resources().get("CPU", 1))
    try:
        yield ray, processors
    finally:
        ray.shutdown()


def _share_of_gpu(ray: Any, workers: Workers) -> float:
    """Of one GPU, so that all workers have one: the same for each, or Ray could not place them."""
    found = int(ray.cluster_resources().get("GPU", 0)) if workers.gpus else 0
    return 1 / math.ceil(workers.count / found) if found else 0


def _send(ray: Any, job: WorkerTask, name: str) -> Any:
    try:
        return ray.put(job)
    except Exception as error:  # pickle passes on whatever an object's own __reduce__ raises
        reason = str(error).strip().splitlines()[0]
        raise TypeError(
            f"teacher {name}: cannot be sent to workers ({reason}); give them a function that "
            "builds it (Workers.make_teacher)"
        ) from error
