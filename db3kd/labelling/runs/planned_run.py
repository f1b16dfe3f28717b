"""A label run before its first query: its images, its settings and what identifies it."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.arguments.plain import check_flag, suggests_arguments
from db3kd.data.class_names import run_class_names
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import fingerprint_in_run
from db3kd.data.sample_choice import draw_samples
from db3kd.data.source import Source
from db3kd.labelling.chunk_search import chunk_size
from db3kd.labelling.image_decisions import SingleClassCheck, decisions_in
from db3kd.labelling.label_job import LabelJob
from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
from db3kd.labelling.runs.run_surrogate import RunSurrogate
from db3kd.labelling.runs.totals import Totals, answered_in_label_folder, totals_of_shards
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.workers.ray_cluster import Workers, import_ray
from db3kd.labels.labels import LABELS
from db3kd.labels.soft_labels import SoftLabelSettings
from db3kd.querying.consistency import check_consistency_checks
from db3kd.storage.changed_teachers import check_accepts_teacher
from db3kd.storage.existing_runs import begun_with, check_output, data_of_run, holds_run
from db3kd.storage.manifest import CLASS_NAMES, is_finished, make_manifest
from db3kd.storage.run_comparison import ExpectedRun, compare_with_runs
from db3kd.storage.run_queries import RunQueries
from db3kd.teachers import Teacher, describe
from db3kd.teachers.fingerprints import weights_fingerprint


@suggests_arguments
@dataclass(frozen=True)
class RunExecution:
    """How a run is carried out, as opposed to what it labels.

    Attributes:
        workers: Processes that label the chunks; labels, totals and budgets stay the same. The
            process that calls `carry_out` decides all images first. If a worker dies, another
            continues its shard. None for no other process.
        consistency_checks: See `db3kd.label`.
        accept_changed_teacher: Whether to resume a run even if the fingerprint of the teacher or
            its answers have changed; the manifest records it.
    """

    workers: Workers | None = None
    consistency_checks: int = 0
    accept_changed_teacher: bool = False

    def __post_init__(self) -> None:
        check_flag(self.accept_changed_teacher, "accept_changed_teacher")


@dataclass(frozen=True)
class ImageOrigin:
    """Where the images of a run come from; by default they are those of the job.

    Attributes:
        source: Their source; None if the caller has loaded them.
        limit: How many images of the source are drawn; None for all.
        images: The images as their source numbers their classes; None if these are the teacher's
            numbers, as in the job.
        index: [N] int64, the index of each image in the source; None if they are the whole source.
        keeps_index: Whether the run's folder keeps this index, which nothing else in it determines.
    """

    source: Source | None = None
    limit: int | None = None
    images: ImageSet | None = None
    index: Tensor | None = None
    keeps_index: bool = False


@dataclass(frozen=True)
class PlannedRun:
    """A label run in a folder, which `carry_out` opens; made by `plan_run` or `plan_source_run`.

    Attributes:
        folder: The run folder, an absolute path: a teacher may change the working directory.
        resume: Whether it continues the run in the folder, if there is one.
        execution: How it is carried out.
        job: The labelling, with the budget that remains after the surrogate.
        origin: Where its images come from.
        surrogate: The surrogate that the run trains, if that pays; None if it shall train none.
        soft_labels: How distances become soft labels; None for distances only.
        manifest: What identifies the run.
    """

    folder: Path
    resume: bool
    execution: RunExecution
    job: LabelJob
    origin: ImageOrigin
    surrogate: RunSurrogate | None
    soft_labels: SoftLabelSettings | None
    manifest: dict[str, Any]

    @property
    def expected(self) -> ExpectedRun:
        """What a run in the folder must be if this one continues it."""
        return ExpectedRun(self.folder, LABELS, self.manifest)

    @property
    def max_queries(self) -> int:
        """Maximum number of queries of the run, with those of its surrogate."""
        surrogate = 0 if self.surrogate is None else self.surrogate.plan.queries
        return self.job.max_queries + surrogate

    def count_queries(self) -> RunQueries:
        """Counts the queries of the run in the folder, which this one continues.

        No query is sent. Without a run, there are none.

        Raises:
            ValueError: If the folder holds another run.
        """
        if not holds_run(self.folder):
            return RunQueries()
        compare_with_runs([self.expected], any_teacher=self.execution.accept_changed_teacher)
        return self.queries_in(totals_of_shards(self.folder))

    def queries_in(self, totals: Totals) -> RunQueries:
        """Counts the queries of the run in the folder, from the totals of its shards."""
        folder = self.folder
        limits, size = self.job.limits[self.job.index], self.job.samples_per_chunk
        assert size is not None  # a planned run has it
        allowed = sum(int(limits[start : start + size].sum()) for start in LABELS.shards(folder))
        return RunQueries(
            answered=answered_in_label_folder(folder, totals),
            unused=allowed - totals.queries,
            # Shards may have been removed after the end of the run.
            finished=is_finished(folder) and totals.samples == len(self.job.index),
        )

    def known_decisions(self) -> tuple[Tensor, Tensor]:
        """Returns which images of `job` are decided, and their classes; see `decisions_in`."""
        return decisions_in(self.folder, self.job.limits)

    def count_checks(self, so_far: RunQueries) -> int:
        """Returns how many known queries are repeated before the run continues.

        Args:
            so_far: From `count_queries`.
        """
        if not so_far.left(self.max_queries):
            return 0
        return min(self.execution.consistency_checks, len(self.known_decisions()[0]))


def plan_run(
    folder: str | Path,
    job: LabelJob,
    *,
    surrogate: AutoSurrogate | None = None,
    resume: bool = False,
    origin: ImageOrigin | None = None,
    soft_labels: SoftLabelSettings | None = None,
    execution: RunExecution | None = None,
) -> PlannedRun:
    """Plans a run that keeps a labelling in a folder; nothing is queried or written.

    The images of a set are read once, for their fingerprint, and an invalid one is found in that
    pass. They are not checked if the run in `folder` is finished and has all its shards.

    Args:
        folder: The run folder.
        job: The labelling, with the whole budget of the run. Its images need not be checked.
        surrogate: Trains the surrogate of the run; by default it is that of the job, or none.
        resume: Whether to continue the run in `folder`, if there is one.
        origin: Where the images come from; `ImageOrigin()` by default.
        soft_labels: See `PlannedRun`.
        execution: See `plan_source_run`.

    Raises:
        ValueError: If an image is invalid, or a setting or the surrogate does not fit.
    """
    execution, origin = execution or RunExecution(), origin or ImageOrigin()
    check_accepts_teacher(execution.accept_changed_teacher, resume)
    check_consistency_checks(execution.consistency_checks, resume)
    images = job.images if origin.images is None else origin.images
    run_surrogate, settings = None, job.settings
    if surrogate is not None:
        run_surrogate, settings = surrogate.plan(job.teacher, len(images), settings, job.index)
    per_shard = _samples_per_shard(folder, resume, job.teacher, settings)
    if isinstance(images, ImageSet):
        complete = resume and _is_complete(Path(folder), len(job.index), per_shard)
        fingerprint = images.fingerprint(check=not complete)
    else:
        fingerprint = images.fingerprint()
    if resume:
        fingerprint = fingerprint_in_run(images, fingerprint, data_of_run(folder))
    entries: dict[str, object] = {
        "source": (
            {"data": job.images.name}
            if origin.source is None
            else origin.source.with_features_of(job.images)
        ),
        "limit": origin.limit,
        "teacher": describe(job.teacher),
        "queries": job.settings.queries,
        "labelling": settings,
        "soft_labels": soft_labels,
        "samples_per_shard": per_shard,
    }
    if (names := run_class_names(job.teacher, job.images)) is not None:
        entries[CLASS_NAMES] = names
    if not job.index.equal(torch.arange(len(images))):
        entries["index"] = hashlib.sha256(job.index.numpy().tobytes()).hexdigest()
    if job.network is not None:
        entries["surrogate"] = weights_fingerprint(job.network)
    elif run_surrogate is not None and run_surrogate.plan.queries:
        entries["surrogate"] = run_surrogate.entries
    manifest = make_manifest(
        entries,
        seed=job.settings.seed,
        teacher_fingerprint=job.teacher.fingerprint(),
        classes=job.teacher.classes,
        data_fingerprint=fingerprint,
    )
    return PlannedRun(
        folder=Path(folder).absolute(),
        resume=resume,
        execution=execution,
        job=replace(job, settings=settings, samples_per_chunk=per_shard),
        origin=origin,
        surrogate=run_surrogate,
        soft_labels=soft_labels,
        manifest=manifest,
    )


def _samples_per_shard(
    folder: str | Path, resume: bool, teacher: Teacher, settings: LabelSettings
) -> int:
    """Returns the number of samples in a shard.

    A run that is resumed keeps the number that it was started with, because `chunk_size` depends on
    the memory of the device, and a run may be resumed on another device.
    """
    count = begun_with(folder).get("samples_per_shard") if resume else None
    return count if type(count) is int and count > 0 else chunk_size(teacher, settings)


def _is_complete(folder: Path, samples: int, per_shard: int) -> bool:
    """Returns whether a folder holds a finished run of which no shard was removed."""
    positions = set(range(0, samples, per_shard))
    return is_finished(folder) and positions <= LABELS.shards(folder).keys()


def plan_source_run(
    folder: str | Path,
    teacher: Teacher,
    source: Source,
    settings: LabelSettings,
    *,
    images: ImageSet | None = None,
    limit: int | None = None,
    soft_labels: SoftLabelSettings | None = None,
    surrogate: nn.Module | AutoSurrogate | None = None,
    concurrent_chunks: int | None = None,
    rare_classes: bool = False,
    resume: bool = False,
    execution: RunExecution | None = None,
) -> PlannedRun:
    """Plans a run that labels the images of a source in a folder; nothing is queried or written.

    Nothing is read before the folder is known to be free. `carry_out` makes the run.

    Args:
        folder: The folder to write to; new or empty, unless `resume` is set.
        teacher: The teacher that decides the images.
        source: The source of the images.
        settings: How the images are labelled.
        images: The images of the source, if they are loaded already.
        limit: The number of images to label, drawn by the settings' seed; None for all. The run's
            sample indices are those of the source.
        soft_labels: How to make soft labels, which are stored too; None for distances only.
        surrogate: A surrogate of the teacher, or `db3kd.AutoSurrogate()`, as for `db3kd.label`;
            part of the run's identity.
        concurrent_chunks: Chunks that this process searches at once, as for `db3kd.label`.
        rare_classes: Whether to continue even if the first 1,000 images, spread over the set, are
            all in one class.
        resume: Whether to continue the run in `folder`; an empty one begins it. Teacher, images and
            settings have to be those of the run.
        execution: Workers and checks; `RunExecution()` by default.

    Raises:
        FileExistsError: If the folder is in use.
        FileNotFoundError: If the folder does not exist and `resume` is True.
        ValueError: If the images do not fit the teacher, or a setting or the surrogate does not.
    """
    check_output(folder, resume, LABELS.format)
    check_flag(rare_classes, "rare_classes")
    if execution is not None and execution.workers is not None:
        import_ray()
    images = source.load() if images is None else images
    rows = draw_samples(len(images), limit, settings.seed)
    chosen = images.subset(rows)
    job = LabelJob.prepare(
        teacher,
        chosen,
        settings,
        concurrent_chunks=concurrent_chunks,
        surrogate=None if isinstance(surrogate, AutoSurrogate) else surrogate,
        single_class=SingleClassCheck(rare_classes=rare_classes),
        check_images=False,
    )
    return plan_run(
        folder,
        job,
        surrogate=surrogate if isinstance(surrogate, AutoSurrogate) else None,
        resume=resume,
        origin=ImageOrigin(source, limit, chosen, rows),
        soft_labels=soft_labels,
        execution=execution,
    )
