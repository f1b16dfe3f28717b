"""The worker processes of a run, on this machine or on a cluster, as Ray actors.

`db3kd.labelling.workers.chunk_dispatch` assigns chunks to them. Ray's own restarts (`max_restarts`,
`max_task_retries`) are off: they repeat a task without notifying this process, which must record
the queries in flight in the manifest before the journal is written again. `ray.util.ActorPool`
does not report which task a dead worker had.
"""

import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from db3kd.data.image_source import NamedImages
from db3kd.errors import ArgumentTypeError
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.workers.ray_cluster import Workers, connect, gpu_share
from db3kd.labelling.workers.worker import Worker, WorkerTask
from db3kd.labels.labels import Labels
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers.base import Teacher, describe

MAX_ATTEMPTS = 3
"""Maximum number of workers that may die on a shard, or in succession while starting."""

_POLL_SECONDS = 0.5

_STOP_SECONDS = 30.0
"""How long a worker may take to finish its call of the teacher when a run is stopped."""

_START_SECONDS = 600.0
"""How long the first worker may take to start; a cluster may have to start a machine."""


@contextmanager
def start_workers(
    workers: Workers,
    run: RunFolder,
    teacher: Teacher,
    images: NamedImages,
    settings: LabelSettings,
    surrogate: nn.Module | None = None,
) -> Iterator["RayWorkerPool"]:
    """Starts the workers of a run, and shuts them down at the end.

    Yields:
        The pool. Its workers get ready in the background.

    Raises:
        ImportError: If Ray is not installed.
        ConnectionError: If there is no cluster at the address.
        TypeError: If the teacher cannot be pickled.
    """
    with connect(workers) as (ray, cpus):
        task = WorkerTask(
            make_teacher=workers.make_teacher or (lambda: teacher),
            fingerprint=teacher.fingerprint(),
            images=images,
            data_fingerprint=images.fingerprint(),
            settings=settings,
            surrogate=surrogate,
            journals=run.journals,
            threads=max(1, min(torch.get_num_threads(), cpus // workers.count)),
        )
        pool = RayWorkerPool(ray, workers, _put(ray, task, describe(teacher)), run)
        try:
            yield pool
        finally:
            pool.shutdown()


class WorkerDiedError(Exception):
    """The process of a worker, or its machine, has ended."""


@dataclass(eq=False)
class _Handle:
    """A living worker.

    Attributes:
        actor: The Ray actor.
        position: The position of its chunk in the run; None while it gets ready or is idle.
        has_journal: Whether it can write the journals of the run.
    """

    actor: Any
    position: int | None = None
    has_journal: bool = True


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task.

    Attributes:
        position: The position of the chunk.
        result: The labels of the chunk, or the error that describes why its worker died.
        has_journal: Whether the worker wrote a journal.
    """

    position: int
    result: Labels | WorkerDiedError
    has_journal: bool


class RayWorkerPool:
    """The Ray actors that label one run.

    Args:
        ray: The module.
        workers: How many, and on which devices.
        task: A Ray reference to the `WorkerTask`.
        run: The run, whose folder this process holds.

    Attributes:
        run: The run.
        without_journal: The positions of the chunks that workers without a journal have, or had
            when they failed.
    """

    def __init__(self, ray: Any, workers: Workers, task: Any, run: RunFolder) -> None:
        self.run = run
        self.without_journal: set[int] = set()
        self._ray = ray
        self._task = task
        self._actor = ray.remote(Worker).options(
            num_cpus=1,
            num_gpus=gpu_share(ray, workers),
            max_restarts=0,
            max_concurrency=2,  # so that `answered` and `stop` run while `label` does
        )
        self._calls: dict[Any, _Handle] = {}
        self._idle: deque[_Handle] = deque()
        self._failed_starts = 0
        self._last_alive = time.monotonic()
        for _ in range(workers.count):
            self.start_worker()

    def put(self, *values: Any) -> list[Any]:
        """Stores values for all workers; pass the results to `submit`."""
        return [self._ray.put(value) for value in values]

    def start_worker(self) -> None:
        """Starts a worker in the background."""
        handle = _Handle(self._actor.remote())
        self._calls[handle.actor.prepare.remote(self._task)] = handle

    @property
    def has_idle(self) -> bool:
        """Whether a worker is ready for a chunk."""
        return bool(self._idle)

    @property
    def is_working(self) -> bool:
        """Whether any worker has a chunk."""
        return bool(self._working())

    def submit(self, position: int, *arguments: Any) -> None:
        """Submits a chunk to an idle worker; see `Worker.label` for the arguments."""
        handle = self._idle.popleft()
        handle.position = position
        if not handle.has_journal:
            self.without_journal.add(position)
        self._calls[handle.actor.label.remote(position, *arguments)] = handle

    def next_outcome(self) -> Outcome | None:
        """Waits a moment for a chunk to end; None if none did.

        Raises:
            ChildProcessError: If workers die while they are starting.
            TimeoutError: If no worker becomes ready.
            Exception: If a worker raises it.
        """
        done, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=_POLL_SECONDS)
        if not done:
            self._check_start_time()
            return None
        handle = self._calls.pop(done[0])
        position, handle.position = handle.position, None
        self._idle.append(handle)  # even if its call raised: `shutdown` has to reach it
        try:
            result = self._result(done[0])
        except WorkerDiedError as death:
            self._idle.remove(handle)
            result = death
        if position is not None:
            self.without_journal.discard(position)
            return Outcome(position, result, handle.has_journal)
        if isinstance(result, WorkerDiedError):
            self._replace_unready(result)
        else:
            self._welcome(handle, has_journal=result)
        return None

    def answered(self) -> dict[int, int]:
        """The number of answered queries of each chunk that is searched, as far as known."""
        asked = {
            handle.actor.answered.remote(): position for position, handle in self._working().items()
        }
        answered = {}
        for call in self._wait(list(asked), _POLL_SECONDS):
            with suppress(WorkerDiedError):
                answered[asked[call]] = self._result(call)
        return answered

    def shutdown(self) -> None:
        """Ends all workers after their current batch."""
        for handle in self._working().values():
            handle.actor.stop.remote()
        chunks = [call for call, handle in self._calls.items() if handle.position is not None]
        self._wait(chunks, _STOP_SECONDS)
        for call in self._wait(list(self._calls), 0):
            self._idle.append(self._calls.pop(call))
        self._wait([handle.actor.shutdown.remote() for handle in self._idle], _STOP_SECONDS)
        for handle in (*self._idle, *self._calls.values()):
            self._ray.kill(handle.actor)
        self._idle.clear()
        self._calls.clear()

    def _working(self) -> dict[int, _Handle]:
        """The workers that have a chunk, keyed by its position."""
        return {
            handle.position: handle
            for handle in self._calls.values()
            if handle.position is not None
        }

    def _wait(self, calls: list[Any], seconds: float) -> list[Any]:
        """Returns the calls that have ended once all have, or after `seconds`."""
        if not calls:
            return []
        return self._ray.wait(calls, num_returns=len(calls), timeout=seconds)[0]

    def _result(self, call: Any) -> Any:
        """Returns the result of a call; raises its error, or WorkerDiedError if the worker died."""
        try:
            return self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from error
        except self._ray.exceptions.RayError as error:
            raise WorkerDiedError(str(error).strip().splitlines()[0]) from error

    def _welcome(self, handle: _Handle, has_journal: bool) -> None:
        handle.has_journal = has_journal
        self._failed_starts = 0
        if not has_journal:
            warnings.warn(
                f"{self.run.path}: a worker cannot reach this folder, so the answers for its chunk "
                "are lost if it dies; put the run on a disk that all machines share",
                RuntimeWarning,
                stacklevel=2,
            )

    def _replace_unready(self, death: WorkerDiedError) -> None:
        self._failed_starts += 1
        if self._failed_starts < MAX_ATTEMPTS:
            self.start_worker()
        elif not self._calls and not self._idle:
            raise ChildProcessError(
                f"workers: {MAX_ATTEMPTS} workers in succession died while starting: {death}"
            )

    def _check_start_time(self) -> None:
        now = time.monotonic()
        if self._idle or self.is_working:
            self._last_alive = now
        elif now - self._last_alive > _START_SECONDS:
            raise TimeoutError(
                f"workers: none was ready within {_START_SECONDS:g} s; the Ray cluster needs a "
                "free CPU for each worker, and a share of a GPU if it has GPUs"
            )


def _put(ray: Any, task: WorkerTask, name: str) -> Any:
    try:
        return ray.put(task)
    except Exception as error:  # an object's own __reduce__ may raise anything
        reason = str(error).strip().splitlines()[0]
        raise ArgumentTypeError(
            "teacher",
            f"{name} cannot be pickled for the workers ({reason}); set "
            "Workers.make_teacher to a function that builds it",
        ) from error
