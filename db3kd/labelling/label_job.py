"""`LabelJob`: one labelling, from the decisions of all images to the labels of each chunk."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from db3kd.arguments.arrays import IndexLike, as_index
from db3kd.arguments.images import check_images, check_shape_of_images
from db3kd.arguments.plain import check_count, check_type
from db3kd.boundary import Surrogate
from db3kd.data.arguments import ImagesLike, TeacherLike, as_images, as_teacher
from db3kd.data.class_names import check_labels_of, matched
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import NamedImages, TensorImages
from db3kd.errors import ArgumentError
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.chunk_search import Labeller, chunk_size, surrogate_for
from db3kd.labelling.image_decisions import DECISIONS, SingleClassCheck, decide_images
from db3kd.labelling.recovered import Recovered
from db3kd.labelling.runs.totals import Totals
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.workers.chunk_dispatch import ChunkDispatcher
from db3kd.labelling.workers.worker_pool import RayWorkerPool
from db3kd.labels.labels import Labels
from db3kd.progress import Progress, ProgressListener, listening
from db3kd.progress.answers import AnswerCounter
from db3kd.querying.concurrent import default_concurrency, run_concurrently
from db3kd.querying.sent_queries import SentQueries, counting
from db3kd.querying.session import SearchTask, open_journal
from db3kd.querying.single_process import check_single_process
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers.base import Teacher
from db3kd.teachers.rescaled import check_scaled, takes_unit_images

LabelStore = RunFolder | Recovered
"""What keeps the paid answers and labels of a labelling, on disk or in memory."""


@dataclass(frozen=True)
class LabelJob:
    """A labelling with checked arguments; `prepare` makes one, and `run` does the work.

    Attributes:
        teacher: The teacher, rescaled to the bounds of `images` if necessary.
        images: The images, with labels in the teacher's class numbering.
        settings: How distances are measured.
        index: [n] int64, the images to label.
        concurrent_chunks: Chunks that this process searches at once.
        network: The weights of the surrogate, or None.
        surrogate: The surrogate made of `network`, or None.
        pool: Worker processes that label the chunks instead of this process, or None.
        samples_per_chunk: The number of samples in a chunk; None for `chunk_size`.
        single_class: Whether a single class of the first decisions stops the run.
    """

    teacher: Teacher
    images: NamedImages
    settings: LabelSettings
    index: Tensor
    concurrent_chunks: int
    network: nn.Module | None = None
    surrogate: Surrogate | None = None
    pool: RayWorkerPool | None = None
    samples_per_chunk: int | None = None
    single_class: SingleClassCheck = field(default_factory=SingleClassCheck)

    @classmethod
    def prepare(
        cls,
        teacher: TeacherLike,
        images: ImagesLike,
        settings: LabelSettings | None = None,
        *,
        index: IndexLike | None = None,
        concurrent_chunks: int | None = None,
        surrogate: nn.Module | None = None,
        single_class: SingleClassCheck | None = None,
        check_images: bool = True,
    ) -> "LabelJob":
        """Checks the arguments of a labelling: those of `db3kd.label`, with a network as surrogate.

        All images of a set are read, to find an invalid one, unless `check_images` is False: a
        caller that reads them anyway can find it in the same pass.
        """
        check_single_process()
        settings = LabelSettings() if settings is None else settings
        check_type(settings, LabelSettings, "settings", "LabelSettings")
        images = as_images(images, teacher=teacher)
        fitted_teacher, fitted_images = _fit(as_teacher(teacher, images), images)
        settings.targets_among(fitted_teacher.classes)  # raises an error for too many
        if settings.measure == "mbd":  # raises an error for a shape that does not fit
            settings.sign_opt.directions(tuple(fitted_teacher.image_shape), 0)
        if check_images and isinstance(fitted_images, ImageSet):
            fitted_images.check()
        if concurrent_chunks is None:
            concurrent_chunks = default_concurrency(torch.device(fitted_teacher.device))
        return cls(
            teacher=fitted_teacher,
            images=fitted_images,
            settings=settings,
            index=_checked_index(index, len(fitted_images)),
            concurrent_chunks=check_count(concurrent_chunks, "concurrent_chunks"),
            network=surrogate,
            surrogate=surrogate_for(fitted_teacher, settings, surrogate),
            single_class=single_class or SingleClassCheck(),
        )

    def with_surrogate(self, network: nn.Module | None) -> "LabelJob":
        """Returns the same labelling with the surrogate of a network, or without one."""
        surrogate = surrogate_for(self.teacher, self.settings, network)
        return replace(self, network=network, surrogate=surrogate)

    @property
    def max_queries(self) -> int:
        """Maximum number of queries: a decision of each image, and distances of some of them."""
        limits = self.limits
        distances = (limits[self.index] - 1).clamp_min(0)
        return int((limits > 0).sum() + distances.sum())

    @property
    def limits(self) -> Tensor:
        """The maximum number of queries for each image, including its decision, [N] int64."""
        return divide_budget(self.settings, len(self.images), self.teacher.classes)

    def run(
        self, store: LabelStore | None = None, progress: ProgressListener | None = None
    ) -> Iterator[tuple[int, Labels]]:
        """Decides all images, then labels the chunks that the store does not have.

        Yields:
            Each chunk's position in `index` and its labels; in ascending order without a pool.
        """
        chunks = self._remaining_chunks(store)
        if not chunks:
            return
        counter = _Counter(progress)
        on_answers = AnswerCounter(counter.add_queries, counter.add_known)
        with counting() if store is None else nullcontext() as sent:  # a store counts them itself
            labeller = self._labeller(*self.decide_images(store, on_answers, sent))
            for position, labels in self._label_chunks(labeller, chunks, store, on_answers, sent):
                counter.add_chunk(labels)
                yield position, labels

    def decide_images(
        self,
        store: LabelStore | None,
        on_answers: Callable[[int], None] | None,
        sent: SentQueries | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decides all images, as `run` does first; see `image_decisions.decide_images`."""
        with open_journal(store, DECISIONS, self.teacher) as journal:
            return decide_images(
                self.teacher,
                self.images,
                self.limits,
                self.settings.query_batch_size,
                on_answers,
                journal,
                check=self.single_class,
                sent=sent,
            )

    def _labeller(self, decisions: Tensor, contradictions: Tensor) -> Labeller:
        return Labeller(
            self.teacher,
            self.images,
            self.settings,
            decisions,
            self.limits,
            self.surrogate,
            contradictions,
        )

    def _label_chunks(
        self,
        labeller: Labeller,
        chunks: dict[int, Tensor],
        store: LabelStore | None,
        on_answers: Callable[[int], None],
        sent: SentQueries | None,
    ) -> Iterator[tuple[int, Labels]]:
        if self.pool is not None:
            return ChunkDispatcher(self.pool, labeller, chunks, on_answers).run()

        def search(position: int, index: Tensor) -> SearchTask[tuple[int, Labels]]:
            with open_journal(store, position, self.teacher) as journal:
                labels = yield from labeller.label_stepwise(index, on_answers, journal, sent)
            return position, labels

        searches = (search(position, index) for position, index in chunks.items())
        return run_concurrently(searches, self.concurrent_chunks, torch.device(self.teacher.device))

    def _remaining_chunks(self, store: LabelStore | None) -> dict[int, Tensor]:
        """The samples of each chunk that the store lacks, keyed by position in `index`."""
        size = self.samples_per_chunk or chunk_size(self.teacher, self.settings)
        chunks = self.index.split(size)
        positions = accumulate(map(len, chunks), initial=0)
        return {
            position: chunk
            for position, chunk in zip(positions, chunks, strict=False)
            if store is None or not store.has_shard(position)
        }

    def shown(
        self, progress: ProgressListener | bool, before: Totals
    ) -> AbstractContextManager[ProgressListener]:
        """The listener of this labelling: the caller's, or a display.

        Args:
            progress: A listener; True for a display; False for nothing.
            before: The totals of an earlier process; its decisions are counted when replayed.
        """

        def display() -> Progress:
            return Progress(
                len(self.index),
                self.max_queries,
                title=f"labelling ({self.settings.measure})",
                samples_before=before.samples,
                queries_before=before.search_queries,
            )

        return listening(progress, display)


def _fit(teacher: Teacher, images: NamedImages) -> tuple[Teacher, NamedImages]:
    """The teacher for the images' bounds, and the images with labels in its numbering."""
    if len(images) == 0:
        raise ArgumentError("images", "expected at least one, got none")
    if isinstance(images, TensorImages):
        check_images(images.tensor, teacher.image_shape, teacher.bounds)
        check_scaled(images.tensor, teacher)
        # Searches read a few images at a time, and a read from a GPU waits for it.
        return teacher, TensorImages(images.tensor.cpu())
    if isinstance(images, ImageSet):
        teacher = takes_unit_images(teacher)
        images = matched(images, teacher)
    reading = images.reading if isinstance(images, ImageSet) else None
    check_shape_of_images(images.image_shape, teacher.image_shape, images.name, reading=reading)
    check_labels_of(images, teacher)
    return teacher, images


def _checked_index(index: IndexLike | None, count: int) -> Tensor:
    rows = torch.arange(count) if index is None else as_index(index, count)
    if not len(rows):
        raise ArgumentError("index", "expected at least one row number, got none")
    numbers, counts = rows.unique(return_counts=True)
    if len(numbers) < len(rows):  # each copy would spend the budget of its image again
        most = counts.argmax()
        raise ArgumentError(
            "index",
            f"expected each row number at most once, got {numbers[most]} in {counts[most]} places",
        )
    return rows


class _Counter:
    """Counts the samples and queries of a labelling, and reports them."""

    def __init__(self, progress: ProgressListener | None) -> None:
        self._progress = progress
        self._queries = 0
        self._labelled = Totals()

    def add_queries(self, answered: int) -> None:
        self._queries += answered
        if self._progress is not None:
            self._progress.update(queries=self._queries)

    def add_known(self, answers: int) -> None:
        if isinstance(self._progress, Progress):
            self._progress.add_known(queries=answers)
        else:
            self.add_queries(answers)

    def add_chunk(self, labels: Labels) -> None:
        self._labelled.add(labels)
        if self._progress is not None:
            self._progress.update(
                samples=self._labelled.samples, mean_distance=self._labelled.mean_distance
            )
