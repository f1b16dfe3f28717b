"""The `db3kd compare` command."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from db3kd.cli.options.sets import common_option, expand_option_sets
from db3kd.cli.options.shared import CheckedResumeOptions
from db3kd.cli.options.strategy import StrategyNames, parse_strategies
from db3kd.cli.options.teacher import TeacherOptions
from db3kd.cli.options.training import StudentTrainingOptions
from db3kd.cli.outputs import check_run_folder, hint_at_resuming
from db3kd.cli.plan_output import (
    NOTHING_LEFT,
    SENT_NOTHING,
    comparison_width,
    is_timed,
    print_comparison_plan,
)
from db3kd.cli.rows import print_row
from db3kd.progress import duration

if TYPE_CHECKING:
    from db3kd.data.image_set import ImageSet
    from db3kd.pipelines.comparison.compare import Comparison
    from db3kd.pipelines.comparison.prepared import PreparedComparison
    from db3kd.storage.run_queries import RunQueries
    from db3kd.teachers import Teacher


@dataclass(frozen=True, kw_only=True)
class ComparisonImages(TransferOptions):
    """The images to query and to train on, and those to measure all students on."""

    test: Annotated[
        str | None,
        common_option(
            help="Images or rows to measure all students on; each of them is queried "
            "once, in addition to --budget.",
            show_default="the labelled test split of --data, for accuracy alone and without a "
            "query",
        ),
    ] = None

    def load_test(
        self, teacher: "Teacher", transfer: "ImageSet | None", source: str | None, seed: int
    ) -> "ImageSet | None":
        """Returns the images of --test, or else labelled ones of the test split, if there are."""
        if self.test is None:
            return super().load_test(teacher, transfer, source, seed)
        return self.test_images(transfer, source, seed)


@dataclass(frozen=True, kw_only=True)
class StudentBudget(SpendingOptions):
    """How many queries each student may use, and how much time all students may take together."""

    budget: Annotated[int, common_option(min=1, help="Maximum number of queries for each student.")]


@expand_option_sets
def compare(
    *,
    teacher: TeacherOptions,
    images: ComparisonImages,
    spending: StudentBudget,
    training: StudentTrainingOptions,
    proxies: ProxyOptions,
    strategies: StrategyNames = "auto,augmented,decisions,mbd",
    student: Student = None,
    seeds: Annotated[
        int, common_option(min=1, help="Number of students, with seeds --seed, --seed + 1, ….")
    ] = 3,
    out: Annotated[
        Path | None, common_option(help="Folder for the table and the run of each student.")
    ] = None,
    resuming: CheckedResumeOptions,
) -> None:
    """Compare strategies at the same budget and the same training length, in one table.

    Each student is a run of db3kd distill in a subfolder of --out, and spends its own budget. The
    total is printed before the first query. --resume continues a stopped comparison, and accepts
    further strategies and seeds.

    For example:

        db3kd compare --teacher teacher.safetensors --data mnist5k --budget 20000
        --strategies auto,augmented,decisions,mbd --test mnist5k --out runs/compare

        db3kd compare --teacher my_package.model:predict --data photos --budget 200000
        --price-per-1000 0.25 --dry-run
    """
    chosen = parse_strategies(strategies)
    resume = resuming.resume
    check_options(out, images, spending, training, resuming, "comparison")
    from db3kd.pipelines.comparison.compare import run_comparison
    from db3kd.pipelines.comparison.folder import TEST_DECISIONS, student_folder
    from db3kd.pipelines.comparison.prepared import prepare_comparison
    from db3kd.report import ComparedStudent, percent

    settings = distill_settings(training, proxies, spending, teacher.device)
    if out is not None:
        check_run_folder(out, resume, TEST_DECISIONS.format)
    opened, transfer, test = open_inputs(teacher, images, training.seed)
    with naming_options(images="--data"):
        prepared = prepare_comparison(
            opened,
            transfer,
            budget=spending.budget,
            strategies=chosen,
            student=student,
            seeds=seeds,
            settings=settings,
            out=out,
            resume=resume,
            test=test,
            ask_about_test=images.test is not None,
            price_per_1000=spending.price_per_1000,
            rare_classes=spending.rare_classes,
            accept_changed_teacher=resuming.accept_changed_teacher,
            consistency_checks=resuming.consistency_checks,
        )
        so_far = prepared.count_queries()  # a refused run is refused before its plan is printed
    print_comparison_plan(prepared)
    print_resumed(prepared, so_far, width=comparison_width(prepared.plan))
    _print_training_time(prepared, so_far, dry_run=spending.dry_run)
    if spending.dry_run:
        return
    assert out is not None  # checked above

    def report(strategy: str, found: ComparedStudent) -> None:
        measured, share = "held-out agreement", found.held_out[0] / found.held_out[1]
        if found.test_agreement is not None:
            measured, share = "test agreement", found.test_agreement
        print(f"{strategy}, seed {found.seed}: {measured} {percent(share)}")

    with hint_at_resuming(out, *prepared.answer_folders()):
        result = run_comparison(
            prepared,
            callbacks=lambda strategy, seed: training.callbacks(
                student_folder(out, strategy, seed), settings.training
            ),
            on_student=report,
        )
    print_comparison(result)


def print_comparison(result: "Comparison") -> None:
    """Prints the table of a comparison in a folder, its notes, and where its report is."""
    from db3kd.pipelines.run_layout import REPORT_FILE

    assert result.folder is not None  # the caller passed `out`
    print(result.table)
    print(result.statement)
    for note in result.notes:
        print(note)
    print(f"written to {result.folder / REPORT_FILE}")


def _print_training_time(
    prepared: "PreparedComparison", so_far: "RunQueries", *, dry_run: bool
) -> None:
    """Prints how long the training of a comparison takes, as `distill` does for one student."""
    from db3kd.pipelines.student_training.time_limit import time_prepared_steps

    plan, settings = prepared.plan, prepared.settings
    if not is_timed(prepared, dry_run=dry_run):
        return
    if so_far.finished:
        if dry_run:
            print_row("dry run", NOTHING_LEFT, comparison_width(plan))
        return
    times = time_prepared_steps(prepared, plan.plans.values())
    seconds = times.of_comparison(plan, settings, prepared.budget)
    about = f"about {duration(seconds)} on this machine{SENT_NOTHING if dry_run else ''}"
    print_row("training", about, comparison_width(plan))
    sys.stdout.flush()  # progress is written to stderr
