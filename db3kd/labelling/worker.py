"""What one worker of a run does: it builds the teacher, and labels the chunks that it is given.

Nothing here knows how workers are started and told; that is what db3kd.labelling.worker_pool does.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Event

import torch
from torch import Tensor, nn

from db3kd.data.image_set import ImageSet
from db3kd.labelling.chunk_search import Labeller, surrogate_for
from db3kd.labelling.labels import Labels
from db3kd.labelling.settings import LabelSettings
from db3kd.storage.filesystem import SharedLock
from db3kd.storage.journal import Journal
from db3kd.storage.run_folder import Journals
from db3kd.teachers.base import Teacher, TeacherError, describe
from db3kd.teachers.rescaled import takes_unit_images


@dataclass(frozen=True)
class WorkerTask:
    """What all workers of a run are told.

    make_teacher: builds the teacher, in the worker. fingerprint, data_fingerprint: what it and the
    images must come to. threads: of each worker. surrogate: as for `label_chunks`.
    """

    make_teacher: Callable[[], Teacher]
    fingerprint: str
    images: ImageSet
    data_fingerprint: str
    settings: LabelSettings
    journals: Journals
    threads: int
    surrogate: nn.Module | None = None


class Stopped(Exception):
    """The worker was asked to stop, and has nothing in flight."""


class Worker:
    """Labels chunks for the process that holds the run's folder.

    `prepare` comes first, then one `label` at a time, and `leave` last; `answered` and `stop` may
    be called from another thread.
    """

    def __init__(self) -> None:
        self._answered = 0
        self._stop = Event()
        self._shared_lock: SharedLock | None = None

    def prepare(self, job: WorkerTask) -> bool:
        """Gets ready; says whether the run's folder is within reach.

        Where it is not, there is no journal, and what a chunk was answered is lost with the worker.

        Raises:
            TeacherError, ValueError: the teacher or the images are not those of the run.
            OSError: the folder cannot be written.
        """
        self._threads = job.threads
        self._settings, self._images = job.settings, job.images
        self._teacher = takes_unit_images(job.make_teacher())
        _check("teacher", describe(self._teacher), self._teacher.fingerprint(), job.fingerprint)
        _check("images", job.images.name, job.images.fingerprint(), job.data_fingerprint)
        self._surrogate = surrogate_for(self._teacher, job.settings, job.surrogate)
        within_reach = job.journals.within_reach()
        if within_reach:
            self._shared_lock = SharedLock(job.journals.folder)
        self._journals = job.journals if within_reach else None
        return within_reach

    def label(
        self,
        position: int,
        index: Tensor,
        decisions: Tensor,
        limits: Tensor,
        contradictions: Tensor | None = None,
    ) -> Labels:
        """The labels of a chunk, whose shard will lie at `position`; else as `Labeller`.

        Raises:
            Stopped: it was asked to stop on the way.
        """
        self._answered = 0
        torch.set_num_threads(self._threads)  # it holds for the thread that calls
        labeller = Labeller(
            self._teacher,
            self._images,
            self._settings,
            decisions,
            limits,
            self._surrogate,
            contradictions,
        )
        with self._journal(position) as journal:
            return labeller.label(index, self._count, journal)

    def answered(self) -> int:
        """Queries of the chunk at hand that have an answer."""
        return self._answered

    def stop(self) -> None:
        """Ends the chunk at hand before its next batch, or part of a stream."""
        self._stop.set()

    def leave(self) -> None:
        """Writes no more, so that others may, before the process has ended."""
        if self._shared_lock is not None:
            self._shared_lock.release()

    def _journal(self, position: int) -> AbstractContextManager[Journal | None]:
        if self._journals is None:
            return nullcontext()
        return self._journals.open(position, self._teacher.classes)

    def _count(self, answered: int) -> None:
        self._answered += answered
        if self._stop.is_set():
            raise Stopped


def _check(what: str, name: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise TeacherError(
            f"{what} {name}: expected those of the run in each worker, got others (fingerprint "
            f"{found[:12]}, expected {wanted[:12]}); every machine needs the same files"
        )
