"""`distill`: from a teacher, images and a query budget to a trained student."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from db3kd.data.arguments import ImagesLike, TeacherLike
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.distillation.prepared import PreparedDistillation, prepare_distillation
from db3kd.pipelines.distillation.run import run_stages
from db3kd.pipelines.output_folder import output_folder
from db3kd.pipelines.query_rounds.answer_run import ANSWERS
from db3kd.pipelines.run_layout import REPORT_FILE
from db3kd.pipelines.student_network import StudentLike
from db3kd.pipelines.student_training.student_trainer import Choice
from db3kd.planning import BudgetPlan, Strategy
from db3kd.progress import ProgressListener, check_progress
from db3kd.querying.consistency import describe_checks
from db3kd.report import wilson_interval
from db3kd.storage.changed_teachers import compare_or_accept_teacher
from db3kd.storage.existing_runs import check_resumable
from db3kd.training.callbacks import TrainingCallback, check_callbacks
from db3kd.wording import InputNoun, also_paid, counted


@dataclass(frozen=True, repr=False)
class DistillResult:
    """What `distill` returns.

    Attributes:
        student: The trained network, in eval mode: images [N, *image_shape] in [0, 1] to scores
            [N, C].
        agreement: Share of held-out images, in [0, 1], for which the student predicts the teacher's
            class.
        interval: Its 95 % confidence interval (Wilson).
        held_out: Number of held-out images.
        matches: Number of them for which the student predicts the teacher's class.
        constant_answer: (class, matches): the teacher's most frequent class of the held-out images,
            and their number, with which always answering this class would agree.
        validation: Number of validation images, by which training was chosen and may stop early:
            the held-out images, and augmented versions of them.
        queries: All queries of the run, including `check_queries`.
        plan: How the budget was divided.
        choices: What was chosen by validation agreement.
        taught_by: Who taught the student: decisions alone, or decisions and proxies or soft labels.
        warnings: Problems found, one text each: a teacher that puts all images in one class; a
            student that is not measurably better than a constant answer; classes that the teacher
            never chose; fewer than 100 held-out images; fewer images than classes; a student that
            returns probabilities; less than a fifth of the usual training steps.
        accuracy: Share of the test images with the right class, in [0, 1]; None without `test`.
        folder: The run folder; None if the run was made without `out`.
        report: The page report.html; None if the run was made without `out`.
        noun: What messages call an image: "image", or "row" for tables.
        paid_twice: At most how many queries were paid twice: those without an answer when a process
            of the run stopped or the teacher failed, and those of requests that were repeated
            although they may have been paid for. `queries` counts them once.
        check_queries: Queries that repeated known answers, in addition to the budget.
        checks: What the check of each resumption found, in one sentence; empty without checks.
    """

    student: nn.Module
    agreement: float
    interval: tuple[float, float]
    held_out: int
    matches: int
    constant_answer: tuple[int, int]
    validation: int
    queries: int
    plan: BudgetPlan
    choices: Sequence[Choice]
    taught_by: str
    warnings: Sequence[str]
    accuracy: float | None
    folder: Path | None
    report: Path | None
    noun: InputNoun = "image"
    paid_twice: int = 0
    check_queries: int = 0
    checks: str = ""

    def __repr__(self) -> str:
        low, high = self.interval
        accuracy = "" if self.accuracy is None else f", accuracy {self.accuracy:.1%}"
        return (
            f"DistillResult(agreement {self.agreement:.1%} ({low:.1%} to {high:.1%}) on "
            f"{counted(self.held_out, self.plan.held_out_noun)}{accuracy}, "
            f"{counted(self.queries, 'query')}{also_paid(self.paid_twice)}, "
            f"strategy {self.plan.strategy!r}{', see warnings' if self.warnings else ''})"
        )


def distill(
    teacher: TeacherLike,
    images: ImagesLike | None = None,
    *,
    budget: int,
    student: StudentLike | None = None,
    strategy: Strategy = "auto",
    settings: DistillSettings | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    test: ImagesLike | None = None,
    price_per_1000: float | None = None,
    progress: ProgressListener | bool = True,
    callbacks: Sequence[TrainingCallback] = (),
    rare_classes: bool = False,
    accept_changed_teacher: bool = False,
    consistency_checks: int = 0,
) -> DistillResult:
    """Trains the best student within a query budget.

    The budget is divided among decisions for the images, decisions for augmented images that
    proxies choose, and a few held-out images on which the student's agreement with the teacher is
    measured (`db3kd.planning.plan_budget` shows the division). What is worth changing before the
    first query, such as too few images, is logged as a warning. Choices about training are made by
    validation agreement, that on the held-out images and on augmented versions of them, without
    further queries.

    Example:
        >>> result = db3kd.distill(teacher, images, budget=200_000, out="runs/mine")
        >>> result.student, result.agreement, result.queries, result.report

    Args:
        teacher: A teacher; a torch module that takes the images as they are, in [0, 1]; or, with
            rows of a table, a fitted scikit-learn model.
        images: An `ImageSet`, an array or tensor [N, *image_shape], a data set, or a DataFrame for
            a teacher of tables (see `db3kd.data.arguments.ImagesLike`), without or with labels.
            They need not be the teacher's training images, and their labels have no effect. None
            makes pseudo samples instead.
        budget: Maximum number of queries, held-out images included. With `resume`, a larger one
            than before continues a run of the strategies "auto", "augmented" and "decisions".
        student: A name for `db3kd.build_model`, a network (a copy is trained), or a function or
            class that makes one: without arguments, or of (image_shape, classes) if it needs
            arguments. By default a small network for the shape of the images.
        strategy: How the budget is spent, one of `db3kd.planning.STRATEGIES`.
        settings: How networks are trained; `DistillSettings()` by default.
        out: A run folder that keeps every answer, the networks and the report. None uses a
            temporary folder; if the run fails, that folder is kept, and a note on the error names
            it.
        resume: Whether to continue the run in `out`; if that folder is empty, a new run starts. The
            student may then differ, and so may the settings once proxies have chosen all images.
        test: Labelled images, on which the student's accuracy is measured once, without a query.
        price_per_1000: The price of 1,000 queries, for the report. A resumed run keeps its price
            unless another one is given.
        progress: True shows each stage on standard error; False shows nothing; a listener receives
            the counts of one stage after the other (docs/guide.md, "Progress").
        callbacks: Callbacks of the student's training.
        rare_classes: Whether to continue even if the first 1,000 answers, or those of the first
            rounds, are all in one class. By default the run then stops, because most often the
            teacher or the preprocessing of the images is wrong. A run needs it only once, even if
            it is resumed again. True needs images.
        accept_changed_teacher: Whether the run in `out` keeps its answers and continues even if
            the teacher has another fingerprint, as a function has after its code was edited. The
            manifest records it. True needs `resume`.
        consistency_checks: Maximum number of queries that repeat known answers of the run in `out`
            before it sends a new query, in addition to the budget. If an answer has changed, the
            teacher was replaced or is noisy, which a fingerprint need not show, and the run is not
            resumed unless `accept_changed_teacher` is True. A number above 0 needs `resume` and
            images.

    Returns:
        The student, and what it cost.

    Raises:
        TypeError: If the type of an argument is not supported.
        ValueError: If an argument does not fit, or if `out` holds another run.
        FileExistsError: If `out` is not empty and `resume` is False.
        FileNotFoundError: If `out` does not exist and `resume` is True.
        TeacherError: If the teacher fails, or puts all images in one class.
    """
    check_callbacks(callbacks)
    check_progress(progress)
    prepared = prepare_distillation(
        teacher,
        images,
        budget=budget,
        student=student,
        strategy=strategy,
        settings=settings,
        out=out,
        resume=resume,
        test=test,
        price_per_1000=price_per_1000,
        rare_classes=rare_classes,
        accept_changed_teacher=accept_changed_teacher,
        consistency_checks=consistency_checks,
        grow=True,
    )
    if out is not None:
        check_resumable(out, resume, ANSWERS.format)
    prepared.log_warnings()
    return run_distillation(prepared, progress=progress, callbacks=callbacks)


def run_distillation(
    prepared: PreparedDistillation,
    *,
    progress: ProgressListener | bool = True,
    callbacks: Sequence[TrainingCallback] = (),
    shown: Path | None = None,
) -> DistillResult:
    """Carries out a distillation whose arguments are checked; the others are those of `distill`.

    `shown` is the run folder as the report and messages name it, by default as the caller does.

    Raises:
        ValueError: If the folder holds another run.
        TeacherChangedError: If answers of the teacher have changed.
        FileExistsError: See `distill`.
        TeacherError: See `distill`.
    """
    out = prepared.out
    with output_folder(out, prepared.resume) as folder:
        if prepared.resume:
            compare_or_accept_teacher(
                prepared.expected_runs(),
                accept_changed_teacher=prepared.consistency_check.accept_changed_teacher,
            )
        finished = run_stages(
            prepared,
            folder,
            progress=progress,
            callbacks=callbacks,
            shown=folder if shown is None else shown,
        )
    return DistillResult(
        student=finished.trained.network,
        agreement=finished.matches / finished.held_out,
        interval=wilson_interval(finished.matches, finished.held_out),
        held_out=finished.held_out,
        matches=finished.matches,
        constant_answer=finished.constant_answer,
        validation=finished.validation,
        queries=finished.queries + finished.check_queries,
        plan=prepared.plan,
        choices=finished.trained.choices,
        taught_by=finished.trained.taught_by,
        warnings=finished.warnings,
        accuracy=None if finished.correct is None else finished.correct[0] / finished.correct[1],
        folder=out,
        report=None if out is None else out / REPORT_FILE,
        noun=prepared.noun,
        paid_twice=finished.paid_twice,
        check_queries=finished.check_queries,
        checks=describe_checks(finished.manifest),
    )
