"""`compare`: students of several strategies at the same budget, all trained equally long."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from db3kd.arguments.plain import check_function
from db3kd.data.arguments import ImagesLike, TeacherLike
from db3kd.data.image_set import ImageSet
from db3kd.pipelines.comparison.compared_students import ComparedStudents
from db3kd.pipelines.comparison.folder import (
    STEPS,
    TEST_DECISIONS,
    ComparisonFolder,
    open_comparison,
)
from db3kd.pipelines.comparison.prepared import PreparedComparison, prepare_comparison
from db3kd.pipelines.comparison.report import ComparisonSummary, write_comparison
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.output_folder import output_folder
from db3kd.pipelines.student_network import StudentLike
from db3kd.pipelines.student_training.time_limit import time_prepared_steps
from db3kd.pipelines.student_warnings import time_limit_warning
from db3kd.planning import COMPARED, Strategy
from db3kd.progress import ProgressListener, check_progress
from db3kd.querying.consistency import describe_checks, queries_of_checks
from db3kd.report import ComparedStudent, ComparisonRow, comparison_table
from db3kd.storage.changed_teachers import compare_or_accept_teacher
from db3kd.storage.existing_runs import check_resumable, queries_paid_twice
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.evaluation import share_equal
from db3kd.wording import counted

_LOG = logging.getLogger(__name__)

_LONGER = (
    "All students of a comparison train equally long, so only another comparison with a longer "
    "time limit, or with none, can train them for longer."
)


@dataclass(frozen=True, repr=False)
class Comparison:
    """What `compare` returns.

    Attributes:
        rows: The students of each strategy, in the order of the strategies.
        queries: Queries of all students, including those about the test images and
            `check_queries`.
        test_queries: Queries about the test images.
        check_queries: Queries that repeated known answers, in addition to the budgets.
        steps: Training steps of each student.
        best: The strategy whose students are right most often: by agreement on the test images, or
            else by accuracy on labelled ones, or else by agreement on the held-out images. Of
            equally good ones, it is that with the fewest queries.
        statement: Sentences on how good that strategy is, by which measurement, and whether the
            difference to the others may be chance.
        table: The table, as Markdown.
        notes: Sentences on why strategies were not used, how the numbers were made and what they
            cost.
        folder: The folder with report.html, compare.json and the run of each student; None if the
            comparison was made without `out`.
    """

    rows: tuple[ComparisonRow, ...]
    queries: int
    test_queries: int
    check_queries: int
    steps: int
    best: str
    statement: str
    table: str
    notes: tuple[str, ...]
    folder: Path | None

    def __repr__(self) -> str:
        names = ", ".join(row.strategy for row in self.rows)
        return f"Comparison({names}; {counted(self.queries, 'query')})"


def compare(
    teacher: TeacherLike,
    images: ImagesLike | None = None,
    *,
    budget: int,
    strategies: Sequence[Strategy] = COMPARED,
    student: StudentLike | None = None,
    seeds: int = 3,
    settings: DistillSettings | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    test: ImagesLike | None = None,
    ask_about_test: bool = True,
    price_per_1000: float | None = None,
    progress: ProgressListener | bool = True,
    callbacks: Callable[[str, int], Sequence[TrainingCallback]] | None = None,
    on_student: Callable[[str, ComparedStudent], None] | None = None,
    rare_classes: bool = False,
    accept_changed_teacher: bool = False,
    consistency_checks: int = 0,
) -> Comparison:
    """Trains students with several strategies at the same budget, and compares them.

    Each student is a `distill` run of its own, with its own queries. All train for the same number
    of steps. If a strategy cannot be used at this budget, a note says why.

    Example:
        >>> comparison = db3kd.compare(
        ...     teacher, images, budget=20_000, strategies=["auto", "augmented"], out="runs/compare"
        ... )
        >>> print(comparison.table)

    Args:
        teacher: See `distill`.
        images: See `distill`.
        budget: Maximum number of queries of each student, held-out images included.
        strategies: Some of `db3kd.planning.STRATEGIES`.
        student: See `distill`.
        seeds: Number of students per strategy. The first has the seed of the settings, the others
            the following seeds.
        settings: How networks are trained; `DistillSettings()` by default. If they have no number
            of steps, it follows from the number of answers that the budget buys, and is the same
            for all students. The time limit applies to all training of the comparison together.
        out: A folder that keeps every answer, all students, report.html and compare.json. None
            uses a temporary folder; if the comparison fails, that folder is kept, and a note on the
            error names it.
        resume: Whether to continue the comparison in `out`; if that folder is empty, a new one
            starts. Strategies and seeds may be added or left out.
        test: Images to measure all students on. Each of them is queried once, in addition
            to the budget. With labels, accuracy is measured too.
        ask_about_test: Whether to query the test images. If not, they need labels, cost no query,
            and measure accuracy alone.
        price_per_1000: The price of 1,000 queries, for the table. A resumed comparison keeps its
            price unless another one is given.
        progress: See `distill`.
        callbacks: Returns the callbacks of a student's training from its strategy and seed.
        on_student: Called with the strategy and the results of each finished student.
        rare_classes: See `distill`.
        accept_changed_teacher: See `distill`.
        consistency_checks: See `distill`. The queries are in addition to the budgets of all
            students, and repeat known answers of any of them, or about test images.

    Returns:
        The rows and the table.

    Raises:
        TypeError: See `distill`.
        ValueError: See `distill`; also if no strategy can be used, or if the settings have
            `patience`, with which students would not train equally long.
        FileExistsError: See `distill`.
        FileNotFoundError: See `distill`.
        TeacherError: If the teacher fails. All answers are kept.
    """
    check_progress(progress)
    check_function(callbacks, "callbacks")
    check_function(on_student, "on_student")
    prepared = prepare_comparison(
        teacher,
        images,
        budget=budget,
        strategies=strategies,
        student=student,
        seeds=seeds,
        settings=settings,
        out=out,
        resume=resume,
        test=test,
        ask_about_test=ask_about_test,
        price_per_1000=price_per_1000,
        rare_classes=rare_classes,
        accept_changed_teacher=accept_changed_teacher,
        consistency_checks=consistency_checks,
    )
    if out is not None:
        check_resumable(out, resume, TEST_DECISIONS.format)
    prepared.log_warnings()
    return run_comparison(prepared, progress=progress, callbacks=callbacks, on_student=on_student)


def run_comparison(
    prepared: PreparedComparison,
    *,
    progress: ProgressListener | bool = True,
    callbacks: Callable[[str, int], Sequence[TrainingCallback]] | None = None,
    on_student: Callable[[str, ComparedStudent], None] | None = None,
) -> Comparison:
    """Carries out a comparison whose arguments are checked; the others are those of `compare`.

    Raises:
        TeacherChangedError: If answers of the teacher have changed.
        FileExistsError: See `compare`.
        TeacherError: See `compare`.
    """
    out, resume, check = prepared.out, prepared.resume, prepared.consistency_check
    with ExitStack() as stack:
        path = stack.enter_context(output_folder(out, resume))
        if resume:
            compare_or_accept_teacher(
                prepared.expected_runs(), accept_changed_teacher=check.accept_changed_teacher
            )
        folder = stack.enter_context(open_comparison(path, prepared.manifest(), resume=resume))
        if resume and prepared.images is not None:
            if check.queries and not prepared.stored_queries().left(prepared.plan.queries):
                check = replace(check, queries=0)
            images, known, decisions = prepared.known_answers()
            check.repeat(folder.run, prepared.teacher, images.read, known, decisions)
        prepared = replace(
            prepared,
            out=folder.path,  # absolute, or temporary
            rare_classes=folder.notes.rare_classes(prepared.rare_classes),
            known_fingerprint=prepared.data_fingerprint,
        )
        folder.notes.keep_price(prepared.price_per_1000)
        plan, steps = prepared.plan, _equal_steps(folder, prepared)
        students = ComparedStudents(
            folder=folder,
            shown=path,
            prepared=prepared,
            steps=steps,
            decisions=folder.decide_test(prepared.teacher, prepared.asked, progress),
            progress=progress,
            callbacks=callbacks,
            on_student=on_student,
        )
        rows = tuple(
            ComparisonRow(strategy, refused=plan.refused[strategy])
            if strategy in plan.refused
            else students.row(strategy)
            for strategy in plan.strategies
        )
        folder.finish(plan.test_images)
        summary = ComparisonSummary(
            prepared,
            steps,
            rows,
            _teacher_accuracy(prepared.test, students.decisions),
            paid_twice=queries_paid_twice(folder.path, *prepared.answer_folders()),
            check_queries=queries_of_checks(folder.run.manifest),
            checks=describe_checks(folder.run.manifest),
        )
        write_comparison(folder.path, summary)
    return Comparison(
        rows=rows,
        queries=summary.queries,
        test_queries=plan.test_images,
        check_queries=summary.check_queries,
        steps=steps,
        best=summary.best.row.strategy,
        statement=summary.best.statement,
        table=comparison_table(rows, prepared.price_per_1000),
        notes=tuple(summary.notes()),
        folder=out,
    )


def _teacher_accuracy(test: ImageSet | None, decisions: Tensor | None) -> float | None:
    if test is None or test.labels is None or decisions is None:
        return None
    return share_equal(decisions, test.labels)


def _equal_steps(folder: ComparisonFolder, prepared: PreparedComparison) -> int:
    """Returns the steps of every student, which are the same for all strategies.

    Training steps are timed only once, because adding a strategy to a comparison must not change
    how long the others train.
    """
    settings = prepared.settings
    steps = prepared.usual_steps
    if settings.time_limit is None:
        return steps
    limited: int | None = folder.notes.get(STEPS)
    if limited is None:
        times = time_prepared_steps(prepared, prepared.plan.plans.values())
        limited = times.steps_of_comparison(prepared.plan, settings, prepared.budget)
        folder.notes.put(STEPS, limited)
        warning = time_limit_warning(settings.time_limit, limited, steps, _LONGER)
        if warning is not None:
            _LOG.warning("%s", warning)
    return limited
