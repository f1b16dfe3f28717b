"""Labels a set of images: `label` returns all labels, `label_chunks` yields them in chunks."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from torch import nn

from db3kd.arguments.arrays import IndexLike
from db3kd.arguments.plain import check_flag, check_path, check_type
from db3kd.data.arguments import ImagesLike, TeacherLike
from db3kd.errors import ArgumentError
from db3kd.labelling.image_decisions import SingleClassCheck
from db3kd.labelling.label_job import LabelJob
from db3kd.labelling.recovered import Recovered
from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
from db3kd.labelling.runs.planned_run import RunExecution, plan_run
from db3kd.labelling.runs.run_writer import carry_out
from db3kd.labelling.runs.totals import Totals
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.label_files import load_labels
from db3kd.labels.labels import LABELS, Labels
from db3kd.progress import ProgressListener, check_progress
from db3kd.querying.consistency import check_consistency_checks, warn_if_unchecked
from db3kd.storage.changed_teachers import check_accepts_teacher
from db3kd.storage.existing_runs import check_output
from db3kd.teachers.single_class import IF_RARE_IN_MEMORY


def label(
    teacher: TeacherLike,
    images: ImagesLike,
    settings: LabelSettings | None = None,
    *,
    index: IndexLike | None = None,
    progress: ProgressListener | bool = True,
    concurrent_chunks: int | None = None,
    surrogate: nn.Module | AutoSurrogate | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    recovered: Recovered | None = None,
    rare_classes: bool = False,
    accept_changed_teacher: bool = False,
    consistency_checks: int = 0,
) -> Labels:
    """Labels images by a teacher's decisions and its distances to the other classes.

    First each image is decided (one query), including images that are not labelled, because they
    are starting points. Then each sample's distance to every other class, or to the nearest
    classes, is measured. If the data set's class differs from the teacher's, the teacher's counts.
    See `Labels` for the meaning of the distances.

    Example:
        >>> labels = db3kd.label(teacher, images, db3kd.LabelSettings(queries=100_000))
        >>> labels = db3kd.label(teacher, images, out="runs/mine", resume=True)

    Args:
        teacher: A teacher, or a torch module that takes the images as they are, in [0, 1].
        images: An image set or a map-style data set of PyTorch or Hugging Face; float images
            [N, *image_shape] inside the teacher's bounds; or uint8 images, which are divided by
            255 (see `db3kd.data.arguments.ImagesLike`).
        settings: How distances are measured, and the budgets; `LabelSettings()` by default.
        index: [n] row numbers of the images to label, in this order and without duplicates, or a
            mask [N] of booleans; all by default. The decisions for the other images are queries
            too, which the labels do not count; with `out`, the totals of the manifest do
            (`unlabelled_queries`). To send nothing else to the teacher, pass
            `images.subset(index)` as the images.
        progress: True shows the samples and queries on standard error; False shows nothing; a
            listener receives their counts (docs/guide.md, "Progress").
        concurrent_chunks: Chunks that are searched at once, so that a GPU need not wait for
            Python: 2 by default on CUDA, else 1. The labels do not depend on it. Each chunk may
            have one call of the teacher in flight.
        surrogate: For measure "mbd", a network that was trained on the teacher's decisions,
            [n, *image_shape] -> scores [n, C] (see `db3kd.make_surrogate`). On a CPU
            several threads call it at the same time, and labels are bit-identical only on
            processors of one kind. With `db3kd.AutoSurrogate()` the run trains one itself, if
            that pays, on a part of its budget; this needs `out`.
        out: A run folder that keeps each answer, like the one of `db3kd label --out`. This
            function and the command can continue each other's runs with the same images, teacher
            and settings.
        resume: Whether to continue the run in `out`; an empty folder begins it. The run must have
            the same teacher, images and settings.
        recovered: The attribute `.recovered` of an earlier call's error; its answers are reused.
            The teacher, images and settings must be the same.
        rare_classes: Whether to continue even if the first 1,000 images, spread over the set, are
            all in one class. By default this stops the labelling, because it is the usual sign of
            a wrong input range or colour order.
        accept_changed_teacher: Whether the run in `out` keeps its answers and continues even if
            the teacher has another fingerprint, or other answers (see `consistency_checks`). True
            needs `resume`.
        consistency_checks: Maximum number of queries that repeat known answers of the run in `out`
            before it sends a new query, in addition to the budgets. If an answer has changed, the
            teacher was replaced or is noisy, which a fingerprint need not show, and the run is not
            resumed unless `accept_changed_teacher` is True. A number above 0 needs `resume`.

    Returns:
        The labels, in the order of `index`.

    Raises:
        TypeError: If the type of the teacher or the images is not supported; the message explains
            how to wrap them.
        ValueError: If the images do not fit the teacher, an argument is invalid, for example an
            `index` that names an image twice, or a launcher started several processes.
        IndexError: If there is no image of a number in `index`.
        TeacherError: If the teacher fails, or puts all images, or the first 1,000, in one class;
            as a `TeacherChangedError`, if answers have changed. Without `out`, every error or
            interrupt has `.recovered` if there are answers to keep.
        FileExistsError: If `out` is not empty and `resume` is False.
        FileNotFoundError: If `out` does not exist and `resume` is True.
    """
    check_flag(resume, "resume")
    check_flag(rare_classes, "rare_classes")
    check_accepts_teacher(accept_changed_teacher, resume)
    check_consistency_checks(consistency_checks, resume)
    check_progress(progress)
    expected = "the attribute recovered of an earlier call's error, or None"
    check_type(recovered, (Recovered, type(None)), "recovered", expected)
    if out is not None:
        check_path(out, "out")
    if resume and out is None:
        raise ArgumentError(
            "resume",
            "needs out=, the folder of the run; to continue labels in memory, pass "
            "recovered= instead",
        )
    if out is not None and recovered is not None:
        raise ArgumentError(
            "recovered", "expected None with out=; to continue the run in out=, pass resume=True"
        )
    expected = "a torch.nn.Module or db3kd.AutoSurrogate()"
    check_type(surrogate, (nn.Module, AutoSurrogate, type(None)), "surrogate", expected)
    auto = surrogate if isinstance(surrogate, AutoSurrogate) else None
    if auto is not None and out is None:
        raise ArgumentError(
            "surrogate",
            "a surrogate that the run trains needs out=, a folder for its answers and "
            "weights; pass out=, or train one with db3kd.make_surrogate and pass its network",
        )
    if out is None:
        single_class = SingleClassCheck(rare_classes=rare_classes, advice=IF_RARE_IN_MEMORY)
    else:
        check_output(out, resume, LABELS.format)  # before the images are read
        single_class = SingleClassCheck(rare_classes=rare_classes)
    # An interrupt while the images are read must not lose the answers of an earlier call.
    with nullcontext() if recovered is None else recovered.attached():
        job = LabelJob.prepare(
            teacher,
            images,
            settings,
            index=index,
            concurrent_chunks=concurrent_chunks,
            surrogate=None if isinstance(surrogate, AutoSurrogate) else surrogate,
            single_class=single_class,
            check_images=out is None,
        )
        if out is None:
            return _label_in_memory(job, recovered, progress)
    execution = RunExecution(
        consistency_checks=consistency_checks,
        accept_changed_teacher=accept_changed_teacher,
    )
    planned = plan_run(out, job, surrogate=auto, resume=resume, execution=execution)
    if consistency_checks:
        so_far = planned.count_queries()
        checks = planned.count_checks(so_far)
        warn_if_unchecked(consistency_checks, checks, so_far.answered)
    carry_out(planned, progress)
    return load_labels(planned.folder)


def label_chunks(
    teacher: TeacherLike,
    images: ImagesLike,
    settings: LabelSettings | None = None,
    *,
    index: IndexLike | None = None,
    progress: ProgressListener | bool = True,
    concurrent_chunks: int | None = None,
    surrogate: nn.Module | None = None,
    rare_classes: bool = False,
) -> Iterator[Labels]:
    """Labels images like `label`, but yields one chunk of samples at a time.

    Memory grows only by one class number per image.

    Example:
        >>> for labels in db3kd.label_chunks(teacher, images, settings):
        ...     store(labels)

    Args:
        teacher: See `label`.
        images: See `label`.
        settings: See `label`.
        index: See `label`.
        progress: See `label`.
        concurrent_chunks: See `label`.
        surrogate: See `label`.
        rare_classes: See `label`.

    Yields:
        The labels of each chunk, in the order of `index`.

    Raises:
        TypeError, ValueError, IndexError, TeacherError: See `label`.
    """
    check_flag(rare_classes, "rare_classes")
    check_progress(progress)
    job = LabelJob.prepare(
        teacher,
        images,
        settings,
        index=index,
        concurrent_chunks=concurrent_chunks,
        surrogate=surrogate,
        single_class=SingleClassCheck(rare_classes=rare_classes, advice=IF_RARE_IN_MEMORY),
    )
    return _chunks(job, progress)


def _chunks(job: LabelJob, progress: ProgressListener | bool) -> Iterator[Labels]:
    with job.shown(progress, Totals()) as listener:
        for _, labels in job.run(progress=listener):
            yield labels


def _label_in_memory(
    job: LabelJob, recovered: Recovered | None, progress: ProgressListener | bool
) -> Labels:
    kept = Recovered(job.teacher, job.images, job.settings, job.index, job.network)
    if recovered is not None:
        recovered.check(kept)
        kept = recovered
    before = Totals()
    if kept.labels is not None:
        before.add(kept.labels)
    with kept.attached():
        with job.shown(progress, before) as listener:
            for position, chunk in job.run(kept, listener):
                kept.add(position, chunk)
        kept.warn_of_lost()
        labels = kept.labels
    assert labels is not None  # an index is never empty
    return labels
