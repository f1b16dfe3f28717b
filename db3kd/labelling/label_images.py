"""Labelling a data set: the teacher's decisions, the distances to its boundaries, soft labels."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from db3kd.boundary import Surrogate
from db3kd.data.arguments import as_images, as_teacher
from db3kd.data.class_names import matched
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import NamedImages, TensorImages
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.chunk_search import Labeller, chunk_size, surrogate_for
from db3kd.labelling.contradictions import EqualImages
from db3kd.labelling.label_files import load_labels
from db3kd.labelling.labels import LABELS, Labels, to_table
from db3kd.labelling.recovered import Recovered
from db3kd.labelling.run_identity import DECISIONS, NAMES, label_manifest, run_images
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.totals import add_up
from db3kd.progress import ProgressListener
from db3kd.querying.concurrent import default_concurrency, run_concurrently
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import UNANSWERED, fitting_batch_size, query_in_batches
from db3kd.querying.session import SearchTask
from db3kd.storage.journal import Journal
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers.base import Teacher, TeacherError, describe
from db3kd.teachers.rescaled import check_scaled, takes_unit_images
from db3kd.validation import check_count, check_images


class Checks(Protocol):
    """Is told once all images are decided; see db3kd.labelling.consistency.ConsistencyChecks."""

    def decided(self, labeller: Labeller, parts: Mapping[int, Tensor]) -> None: ...


class WorkerPool(Protocol):
    """Other processes that label chunks; see db3kd.labelling.worker_pool.RayWorkerPool."""

    def label(
        self,
        labeller: Labeller,
        parts: Mapping[int, Tensor],
        on_answers: Callable[[int], None],
    ) -> Iterator[Labels]:
        """The labels of each part, int64 [n] by its position in the run, in any order.

        on_answers: called with how many more queries were answered; less than none where answers
        that were counted are to be counted again.
        """
        ...


def label(
    teacher: Teacher | nn.Module,
    images: ImageSet | Tensor | np.ndarray,
    settings: LabelSettings | None = None,
    *,
    index: Tensor | None = None,
    progress: ProgressListener | None = None,
    concurrent_chunks: int | None = None,
    surrogate: nn.Module | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    recovered: Recovered | None = None,
) -> Labels:
    """What `label_chunks` yields, as one; what it paid for outlives an error.

        labels = db3kd.label(teacher, images, out="runs/mine", resume=True)

    Args:
        teacher: also a torch module, which takes the images as they are, in [0, 1].
        images: an image set; or float images [N, *image_shape], inside the teacher's bounds; or
            uint8 images, which are divided by 255.
        settings, index, progress, flights, surrogate: as for `label_chunks`.
        out: a run folder, as `db3kd label --out` writes, in which each answer is kept. The labels
            are read back from it.
        resume: go on with the run in `out`, if there is one, after checking that it is the same.
        recovered: what an error of an earlier call has as `.recovered`: nothing in it is asked
            again. It must be of the same teacher, images and settings.

    Raises:
        TypeError: the teacher or the images are of another type; the message says how to wrap them.
        TeacherError, ValueError: as `label_chunks`. Without `out`, whatever error or interrupt ends
            this has `.recovered`, if anything was answered.
        FileExistsError: `out` holds something, and `resume` is off.
    """
    if resume and out is None:
        raise ValueError("resume: belongs to out=, the folder to resume; without one, recovered=")
    if out is not None and recovered is not None:
        raise ValueError("recovered: expected None with out=, which keeps answers itself")
    settings, images = settings or LabelSettings(), as_images(images)
    teacher, checked = _fitted(as_teacher(teacher, images), images)
    index = _checked_index(index, len(images))
    if out is not None and len(index.unique()) < len(index):
        raise ValueError("index: expected each image once with out=, got some of them twice")
    parts = index.split(chunk_size(teacher, settings))
    positions = list(accumulate(map(len, parts), initial=0))[:-1]
    kept: Recovered | RunFolder = Recovered(teacher, checked, settings, index, surrogate)
    with ExitStack() as stack:
        if out is not None:
            is_set = isinstance(checked, ImageSet)
            known = run_images(checked, settings, teacher.classes) if is_set else None
            described = label_manifest(
                teacher,
                checked,
                settings,
                source={"data": checked.name},
                samples_per_shard=chunk_size(teacher, settings),
                data_fingerprint=known.digests.fingerprint if known else checked.fingerprint(),
                surrogate=surrogate,
                index=index,
            )
            run = RunFolder.open(
                out, LABELS, described, resume=resume, apart_from=NAMES, images=known
            )
            kept = stack.enter_context(run)
        else:
            if recovered is not None:
                recovered.check(kept)
                kept = recovered
            stack.enter_context(kept.attached())
        left = [position for position in positions if not kept.has_shard(position)]
        chunks = label_chunks(
            teacher,
            images,
            settings,
            index=index,
            progress=progress,
            folder=kept,
            concurrent_chunks=concurrent_chunks,
            surrogate=surrogate,
        )
        for position, chunk in zip(left, chunks, strict=True) if left else ():
            if isinstance(kept, Recovered):
                kept.add(position, chunk)
            else:
                kept.write_shard(position, to_table(chunk))
        if isinstance(kept, Recovered):
            return kept.labels
        if not kept.finished:
            kept.finish(vars(add_up(kept)))
    return load_labels(out)


def label_chunks(
    teacher: Teacher,
    images: ImageSet | Tensor,
    settings: LabelSettings | None = None,
    *,
    index: Tensor | None = None,
    progress: ProgressListener | None = None,
    folder: RunFolder | Recovered | None = None,
    pool: WorkerPool | None = None,
    concurrent_chunks: int | None = None,
    surrogate: nn.Module | None = None,
    checks: Checks | None = None,
) -> Iterator[Labels]:
    """Labels images, a chunk of samples at a time.

    images: an image set of the teacher's image shape, or a float32 tensor [N, *image_shape] inside
    its bounds. index: int64 [n], which of them to label, in this order; all by default. folder:
    keeps each answer until the shard of its chunk is committed, at the chunk's place in `index`,
    and gives the answers it has; chunks that have a shard are left out. crew: labels the chunks
    in this process's stead, and they come in any order; the labels are the same. flights: chunks
    that this process searches at once, by default 2 where the teacher is on CUDA, so that it need
    not wait, and else 1; the labels are the same. Each may have a call of the teacher in flight.
    surrogate: a network that has learnt the teacher's decisions, images [n, *image_shape] -> scores
    [n, classes], from which "mbd" begins; see db3kd.boundary.Surrogate. Its rounding depends on how
    many threads there are, so labels with one are the same to the bit for equally many alone.
    checks: ask the teacher for answers that are known, to see whether it has changed.

    First each image is decided (one query), also those not to be labelled, for rays start towards
    them; then a sample's distance to every other class, or to its nearest ones, is measured. Memory
    does not grow with N but for one class number an image. A sample that its data set puts in
    another class than the teacher does is labelled by the teacher's decision. The distance to a
    class without images, or that was not reached, is +inf; that of the own class is 0; that of a
    class which `settings.targets` leaves out is estimated, and marked. A sample that no query was
    left for has the decision -1.

    Raises ValueError for images that do not fit the teacher, and TeacherError where the teacher
    fails, or puts all images in one class: then there is no boundary to measure.
    """
    settings, images = settings or LabelSettings(), as_images(images)
    teacher, images = _fitted(as_teacher(teacher, images), images)
    index = _checked_index(index, len(images))
    if concurrent_chunks is None:
        concurrent_chunks = default_concurrency(torch.device(teacher.device))
    check_count(concurrent_chunks, "concurrent_chunks")
    guess = surrogate_for(teacher, settings, surrogate)
    meter = _Meter(progress)
    return _Labelling(
        teacher, images, settings, meter, folder, pool, concurrent_chunks, guess, checks
    ).chunks(index)


def _fitted(teacher: Teacher, images: ImageSet | Tensor) -> tuple[Teacher, NamedImages]:
    """The teacher for the images' bounds, and the images with labels in its numbering."""
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")
    if isinstance(images, Tensor):
        check_images(images, teacher.image_shape, teacher.bounds)
        check_scaled(images, teacher)
        return teacher, TensorImages(images)
    if isinstance(images, ImageSet):
        teacher = takes_unit_images(teacher)
        images = matched(images, teacher)
    if tuple(images.image_shape) != tuple(teacher.image_shape):
        raise ValueError(
            f"images: expected shape {tuple(teacher.image_shape)} as teacher {describe(teacher)} "
            f"takes, got {tuple(images.image_shape)} from {images.name}"
        )
    if images.labels is not None and int(images.labels.max()) >= teacher.classes:
        raise ValueError(
            f"images: expected labels in [0, {teacher.classes}) as teacher {describe(teacher)} has "
            f"{teacher.classes} classes, got {int(images.labels.max())} in {images.name}"
        )
    if isinstance(images, ImageSet):
        images.check()
    return teacher, images


def _checked_index(index: Tensor | None, count: int) -> Tensor:
    if index is None:
        return torch.arange(count)
    if index.dtype != torch.int64 or index.ndim != 1:
        raise TypeError(f"index: expected int64 [n], got {list(index.shape)} {index.dtype}")
    if not len(index) or not 0 <= int(index.min()) <= int(index.max()) < count:
        raise ValueError(f"index: expected at least one number in [0, {count}), got {index}")
    return index


class _Meter:
    """Adds up what a run has done and passes it on."""

    def __init__(self, progress: ProgressListener | None) -> None:
        self._progress = progress
        self._queries = 0
        self._samples = 0
        self._distance = torch.zeros(2, dtype=torch.float64)

    def queries(self, answered: int) -> None:
        self._queries += answered
        if self._progress is not None:
            self._progress.update(queries=self._queries)

    def chunk(self, labels: Labels) -> None:
        self._samples += len(labels)
        reached = labels.measured_distances
        self._distance += torch.stack([reached.sum(), torch.tensor(float(len(reached)))])
        if self._progress is not None:
            total, count = self._distance.tolist()
            self._progress.update(
                samples=self._samples, mean_distance=total / count if count else None
            )


@dataclass(frozen=True)
class _Labelling:
    """One call of `label_chunks`, its arguments checked."""

    teacher: Teacher
    images: NamedImages
    settings: LabelSettings
    meter: _Meter
    folder: RunFolder | Recovered | None
    pool: WorkerPool | None
    concurrent_chunks: int
    surrogate: Surrogate | None
    checks: Checks | None

    def chunks(self, index: Tensor) -> Iterator[Labels]:
        limits = divide_budget(self.settings, len(self.images), self.teacher.classes)
        checks = self.checks
        if checks is not None and (known := self._known_decisions(limits)) is not None:
            checks.decided(Labeller(self.teacher, self.images, self.settings, known, limits), {})
            checks = None
        decisions, contradictions = self._decide_all(limits)
        labeller = Labeller(
            self.teacher,
            self.images,
            self.settings,
            decisions,
            limits,
            self.surrogate,
            contradictions,
        )
        parts = self._parts(index)
        if checks is not None:
            checks.decided(labeller, parts)
        if self.pool is None:
            concurrent_chunks = (self._search_chunk(labeller, *part) for part in parts.items())
            chunks = run_concurrently(
                concurrent_chunks, self.concurrent_chunks, torch.device(self.teacher.device)
            )
        else:
            chunks = self.pool.label(labeller, parts, self.meter.queries)
        for labels in chunks:
            self.meter.chunk(labels)
            yield labels

    def _parts(self, index: Tensor) -> dict[int, Tensor]:
        """What is left to label, in chunks by their place in `index`."""
        parts = index.split(chunk_size(self.teacher, self.settings))
        positions = accumulate(map(len, parts), initial=0)
        return {
            position: part
            for position, part in zip(positions, parts, strict=False)
            if self.folder is None or not self.folder.has_shard(position)
        }

    def _search_chunk(self, labeller: Labeller, position: int, part: Tensor) -> SearchTask[Labels]:
        with self._journal(position) as journal:
            return (yield from labeller.run_stepwise(part, self.meter.queries, journal))

    def _journal(self, of: int | str) -> AbstractContextManager[Journal | None]:
        if self.folder is None:
            return nullcontext()
        return self.folder.journal(of, self.teacher.classes)

    def _known_decisions(self, limits: Tensor) -> Tensor | None:
        """The decisions from before, of a run that was stopped when some of them were there."""
        journals, wanted = self.folder.journals, (limits > 0).nonzero()[:, 0]
        calls = journals.read(journals.file("decisions")).calls
        answers = [answer for call in calls for answer in call.answers.tolist()]
        if not 0 < len(answers) < len(wanted):
            return None
        known = torch.full_like(limits, UNANSWERED)
        known[wanted[: len(answers)]] = torch.tensor(answers)
        return known

    def _decide_all(self, limits: Tensor) -> tuple[Tensor, Tensor]:
        """[N] int64: the teacher's class of each image, UNANSWERED where its limit is 0.

        And what contradicts itself among them, [K, 2]; see db3kd.labelling.contradictions.
        """
        teacher, images = self.teacher, self.images
        query_batch_size = fitting_batch_size(self.settings.query_batch_size, teacher.image_shape)
        decisions = torch.full((len(images),), UNANSWERED)
        equal = EqualImages(len(images))
        with self._journal(DECISIONS) as journal:
            for index in (limits > 0).nonzero()[:, 0].split(query_batch_size):
                batch = images.read(index)
                check_images(batch, teacher.image_shape, teacher.bounds, f"images of {images.name}")
                equal.add(index, batch)
                ledger = Ledger(torch.ones_like(index))
                everyone = torch.arange(len(index))
                search = query_in_batches(
                    lambda rows, batch=batch: batch[rows], everyone, query_batch_size
                )
                decisions[index] = run(search, teacher, ledger, self.meter.queries, journal)
        decided = decisions[decisions != UNANSWERED]
        if len(decided) > 1 and bool((decided == decided[0]).all()):
            raise TeacherError(
                f"teacher {describe(teacher)} put all {len(decided)} images of {images.name} in "
                f"class {int(decided[0])}: expected at least two classes, there is no boundary to "
                "measure"
            )
        return decisions, equal.contradictions(images, decisions)
