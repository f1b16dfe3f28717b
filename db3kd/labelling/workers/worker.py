"""A worker process of a run: it builds the teacher and labels the chunks it is given.

`db3kd.labelling.workers.worker_pool` starts workers and assigns the chunks.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Event

import torch
from torch import Tensor, nn

from db3kd.data.image_source import NamedImages
from db3kd.labelling.chunk_search import Labeller, surrogate_for
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import Labels
from db3kd.querying.session import AnswerJournal
from db3kd.storage.filesystem import SharedLock
from db3kd.storage.run_journals import Journals
from db3kd.teachers.base import Teacher, TeacherError, describe
from db3kd.teachers.rescaled import takes_unit_images


@dataclass(frozen=True)
class WorkerTask:
    """The task that all workers of a run share.

    Attributes:
        make_teacher: A function that builds the teacher in the worker.
        fingerprint: The fingerprint that the teacher must have.
        images: The images of the run.
        data_fingerprint: The fingerprint that the images must have.
        settings: The settings of the run.
        journals: The journals of the run.
        threads: CPU threads of each worker.
        surrogate: A network, as for `db3kd.label`; or None.
    """

    make_teacher: Callable[[], Teacher]
    fingerprint: str
    images: NamedImages
    data_fingerprint: str
    settings: LabelSettings
    journals: Journals
    threads: int
    surrogate: nn.Module | None = None


class Stopped(Exception):
    """The worker was asked to stop, and has no query in flight."""


class Worker:
    """Labels chunks for the process that holds the run's folder.

    Call `prepare` first, then `label` for one chunk at a time, and `shutdown` last. `answered` and
    `stop` may be called from another thread.
    """

    def __init__(self) -> None:
        self._answered = 0
        self._stop = Event()
        self._shared_lock: SharedLock | None = None

    def prepare(self, task: WorkerTask) -> bool:
        """Builds the teacher and checks that this machine has what the run needs.

        Returns:
            Whether this machine can access the run's folder. If not, the worker writes no journal,
            and the answers for a chunk are lost if the worker dies.

        Raises:
            TeacherError, ValueError: If the teacher or the images differ from the run's.
            OSError: If the folder cannot be written.
        """
        self._task = task
        self._teacher = takes_unit_images(task.make_teacher())
        found = self._teacher.fingerprint()
        advice = ", or give the teacher a text as fingerprint="
        _check("teacher", describe(self._teacher), found, task.fingerprint, advice)
        _check("images", task.images.name, task.images.fingerprint(), task.data_fingerprint)
        self._surrogate = surrogate_for(self._teacher, task.settings, task.surrogate)
        within_reach = task.journals.within_reach()
        if within_reach:
            self._shared_lock = SharedLock(task.journals.folder)
        return within_reach

    def label(
        self,
        position: int,
        index: Tensor,
        decisions: Tensor,
        limits: Tensor,
        contradictions: Tensor | None = None,
    ) -> Labels:
        """Labels the chunk of the samples `index`, [n] int64.

        Its position in the run names its journal. The other arguments are those of `Labeller`.

        Raises:
            Stopped: If the worker was asked to stop.
        """
        self._answered = 0
        torch.set_num_threads(self._task.threads)  # this applies to the calling thread only
        labeller = Labeller(
            self._teacher,
            self._task.images,
            self._task.settings,
            decisions,
            limits,
            self._surrogate,
            contradictions,
        )
        with self._journal(position) as journal:
            return labeller.label(index, self._count, journal)

    def answered(self) -> int:
        """The number of answered queries of the current chunk."""
        return self._answered

    def stop(self) -> None:
        """Makes `label` raise `Stopped` after the current batch, or part of a stream."""
        self._stop.set()

    def shutdown(self) -> None:
        """Ends all writing, so that other processes may write the folder."""
        if self._shared_lock is not None:
            self._shared_lock.release()

    def _journal(self, position: int) -> AbstractContextManager[AnswerJournal | None]:
        if self._shared_lock is None:
            return nullcontext()
        return self._task.journals.open(position, self._teacher.classes)

    def _count(self, answered: int) -> None:
        self._answered += answered
        if self._stop.is_set():
            raise Stopped


def _check(what: str, name: str, found: str, expected: str, advice: str = "") -> None:
    if found != expected:
        raise TeacherError(
            f"{what} {name}: expected the same in each worker as in the run (fingerprint "
            f"{expected[:12]}), got fingerprint {found[:12]} in a worker; copy the same files to "
            f"every machine{advice}"
        )
