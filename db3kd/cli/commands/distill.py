"""The `db3kd distill` command."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.commands.distill_labels import LossOptions, distill_labels
from db3kd.cli.errors import naming_options
from db3kd.cli.options.distill import (
    ProxyOptions,
    SpendingOptions,
    Student,
    TransferOptions,
    check_options,
    distill_settings,
    open_inputs,
    print_resumed,
)
from db3kd.cli.options.sets import common_option, expand_option_sets, given_options, refuse_options
from db3kd.cli.options.shared import CheckedResumeOptions
from db3kd.cli.options.strategy import StrategyName
from db3kd.cli.options.teacher import TEACHER_HELP, TeacherOptions
from db3kd.cli.options.training import StudentTrainingOptions
from db3kd.cli.outputs import check_run_folder, hint_at_resuming
from db3kd.cli.plan_output import (
    NOTHING_LEFT,
    is_timed,
    print_paid_twice,
    print_plan,
    print_result,
    print_times,
)
from db3kd.cli.rows import print_row
from db3kd.errors import ArgumentError

if TYPE_CHECKING:
    from db3kd.pipelines.distillation.prepared import PreparedDistillation
    from db3kd.planning import Strategy
    from db3kd.storage.run_queries import RunQueries
    from db3kd.teachers import Teacher


@dataclass(frozen=True, kw_only=True)
class OptionalTeacherOptions(TeacherOptions):
    """The teacher, unless a label run takes its place."""

    teacher: Annotated[str | None, common_option(help=f"The teacher: {TEACHER_HELP}")] = None  # type: ignore[assignment]  # the command checks that it is given


@dataclass(frozen=True, kw_only=True)
class StoppableTrainingOptions(StudentTrainingOptions):
    """How the student is trained, and when its training stops early."""

    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop training the student after this many reports (of about 100) in a row "
            "without a higher validation agreement.",
        ),
    ] = None


@expand_option_sets
def distill(
    *,
    teacher: OptionalTeacherOptions,
    images: TransferOptions,
    student: Student = None,
    spending: SpendingOptions,
    strategy: StrategyName = "auto",
    out: Annotated[
        Path | None,
        common_option(help="Folder of the run; with --labels, the student's .safetensors file."),
    ] = None,
    resuming: CheckedResumeOptions,
    labels: Annotated[
        Path | None,
        common_option(
            help="A run of db3kd label to distil from, instead of a teacher; sends no query."
        ),
    ] = None,
    losses: LossOptions,
    training: StoppableTrainingOptions,
    proxies: ProxyOptions,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="With --labels: number of students, with seeds --seed, --seed + 1, …, each in a "
            "file NAME-seedN.safetensors.",
            rich_help_panel="Training",
        ),
    ] = 1,
) -> None:
    """Train the best student that a query budget buys.

    The plan is printed before the first query; --dry-run stops there. Every answer is kept in
    --out, and --resume continues a run that stopped at any stage. Without --data, db3kd makes its
    own images.

    For example:

        db3kd distill --teacher my_package.model:predict --data photos --image-shape 3,32,32
        --classes 10 --budget 200000 --price-per-1000 0.25 --dry-run

        db3kd distill --teacher teacher.safetensors --data mnist5k --budget 20000
        --student lenet5-half --out runs/mine

        db3kd distill --teacher teacher.safetensors --budget 100000 --student lenet5-half
        --out runs/none

        db3kd distill --labels runs/mbd --student lenet5-half --seeds 3 --out student.safetensors
    """
    if labels is not None:
        given = [
            *(name for name in given_options(teacher) if name != "device"),
            *(name for name in given_options(images) if name != "data"),
            *given_options(spending),
            *given_options(proxies),
            *(["patience"] if training.patience is not None else []),
            *(["strategy"] if strategy != "auto" else []),
            *given_options(resuming),
        ]
        if given:
            raise ArgumentError(given[0], "cannot be combined with --labels, which sends no query")
        with naming_options(model="--student"):
            distill_labels(
                labels, out, losses, training, student, seeds, images.data, teacher.device
            )
        return
    refuse_options(losses, "needs --labels; otherwise --strategy determines it")
    if seeds != 1:
        raise ArgumentError(
            "seeds", "needs --labels; run the command once for each --seed and --out"
        )
    _distill_from_teacher(
        teacher,
        images,
        spending,
        training,
        proxies,
        student=student,
        strategy=strategy,
        out=out,
        resuming=resuming,
    )


def _distill_from_teacher(
    teacher: OptionalTeacherOptions,
    images: TransferOptions,
    spending: SpendingOptions,
    training: StoppableTrainingOptions,
    proxies: ProxyOptions,
    *,
    student: str | None,
    strategy: "Strategy",
    out: Path | None,
    resuming: CheckedResumeOptions,
) -> None:
    resume = resuming.resume
    if teacher.teacher is None:
        raise ArgumentError(
            "teacher", "expected a teacher, or --labels with the folder of a label run"
        )
    if spending.budget is None:
        raise ArgumentError("budget", "expected the maximum number of queries, got none")
    check_options(out, images, spending, training, resuming, "run")
    from db3kd.pipelines.distillation.distill import run_distillation
    from db3kd.pipelines.distillation.prepared import prepare_distillation
    from db3kd.pipelines.query_rounds.answer_run import ANSWERS
    from db3kd.pipelines.run_layout import answer_folders
    from db3kd.storage.existing_runs import queries_paid_twice

    settings = distill_settings(training, proxies, spending, teacher.device)
    settings = replace(settings, patience=training.patience)
    if out is not None:
        check_run_folder(out, resume, ANSWERS.format)
    opened, transfer, test = open_inputs(teacher, images, training.seed)
    with naming_options(images="--data"):
        prepared = prepare_distillation(
            opened,
            transfer,
            budget=spending.budget,
            student=student,
            strategy=strategy,
            settings=settings,
            out=out,
            resume=resume,
            test=test,
            price_per_1000=spending.price_per_1000,
            rare_classes=spending.rare_classes,
            accept_changed_teacher=resuming.accept_changed_teacher,
            consistency_checks=resuming.consistency_checks,
            grow=True,
        )
        so_far = prepared.count_queries()  # a refused run is refused before its plan is printed
    print_plan(prepared)
    print_resumed(prepared, so_far)
    if resume and out is not None and not so_far.finished:
        print_paid_twice(queries_paid_twice(*answer_folders(out)))
    _print_times(prepared, opened, so_far, dry_run=spending.dry_run)
    if spending.dry_run:
        return
    assert out is not None  # checked above
    with naming_options(images="--data"), hint_at_resuming(*answer_folders(out)):
        result = run_distillation(
            prepared,
            callbacks=training.callbacks(out / "student", prepared.student_settings.training),
        )
    print_result(
        result,
        prepared.price_per_1000,
        prepared.student.title,
        prepared.images or prepared.test,
        prepared.class_names,
    )


def _print_times(
    prepared: "PreparedDistillation", teacher: "Teacher", so_far: "RunQueries", *, dry_run: bool
) -> None:
    """Prints how long a run takes, unless that is hardly longer than measuring it.

    Args:
        prepared: The run.
        teacher: The teacher as it was opened.
        so_far: The queries of the run if it is resumed.
        dry_run: Whether the command stops here; then the times are always printed.
    """
    from db3kd.pipelines.distill_notes import DistillNotes, is_trained
    from db3kd.pipelines.distillation.training_steps import seconds_of_choice
    from db3kd.pipelines.student_training.time_limit import time_prepared_steps

    if not is_timed(prepared, dry_run=dry_run):
        return
    run = prepared.out if prepared.resume else None
    if run is not None and so_far.finished and is_trained(run, prepared.training):
        if dry_run:
            print_row("dry run", NOTHING_LEFT)
        return
    times = time_prepared_steps(prepared, [prepared.plan])
    asked, choice = 0.0, None
    if run is not None:
        notes = DistillNotes(run)
        asked = notes.seconds["asking"]
        if not so_far.left(prepared.plan.queries):
            choice = seconds_of_choice(prepared, notes)
    print_times(times, prepared, teacher, so_far, asked, choice, dry_run=dry_run)
    sys.stdout.flush()  # progress is written to stderr
