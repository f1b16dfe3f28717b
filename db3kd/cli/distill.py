"""The `db3kd distill` command."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from db3kd.cli.distill_labels import LossOptions, distill_labels
from db3kd.cli.distill_options import (
    ProxyOptions,
    SpendingOptions,
    Student,
    TransferOptions,
    distill_settings,
)
from db3kd.cli.errors import naming_options
from db3kd.cli.option_sets import COMMON, expand_option_sets, given_options
from db3kd.cli.options import Resume
from db3kd.cli.outputs import hint_at_resuming
from db3kd.cli.plan_output import print_answered, print_plan, print_result, print_times
from db3kd.cli.strategy_options import StrategyName
from db3kd.cli.teacher_options import TEACHER_HELP, TeacherOptions
from db3kd.cli.training_options import StudentTrainingOptions


@dataclass(frozen=True, kw_only=True)
class OptionalTeacherOptions(TeacherOptions):
    """The teacher, unless a label run takes its place."""

    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help=f"The teacher: {TEACHER_HELP}", rich_help_panel=COMMON),
    ] = None  # type: ignore[assignment]  # the command checks that it is given


@dataclass(frozen=True, kw_only=True)
class StoppableTrainingOptions(StudentTrainingOptions):
    """How the student is trained, and when its training stops early."""

    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
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
        typer.Option(
            "--out",
            help="Folder of the run; with --labels, the student's .safetensors file.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    resume: Resume = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="A run of db3kd label to distil from, instead of a teacher; sends no query.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    losses: LossOptions,
    training: StoppableTrainingOptions,
    proxies: ProxyOptions,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            min=1,
            help="With --labels: number of students, with seeds --seed, --seed + 1, ….",
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
        _refuse_with_labels(
            *(name for name in given_options(teacher) if name != "device"),
            *(name for name in given_options(images) if name != "data"),
            *given_options(spending),
            *given_options(proxies),
            *(["patience"] if training.patience is not None else []),
            *(["strategy"] if strategy != "auto" else []),
            *(["resume"] if resume else []),
        )
        file = labels.with_name(f"{labels.name}-student.safetensors") if out is None else out
        with naming_options(model="--student"):
            distill_labels(
                labels,
                file,
                losses,
                training,
                student,
                seeds,
                images.data,
                teacher.device,
            )
        return
    _refuse_without_labels(losses, seeds)
    if teacher.teacher is None:
        raise ValueError("teacher: expected a teacher, or --labels with the folder of a label run")
    budget, price = spending.budget, spending.price_per_1000
    if budget is None:
        raise ValueError("budget: expected the maximum number of queries, got none")
    if out is None and not spending.dry_run:
        raise ValueError("out: expected a folder for the run, got none")
    if out is None and resume:
        raise ValueError("resume: needs --out, the folder of the run")
    images.refuse_unused()
    training.check_tracker((out or Path()) / "student")
    from db3kd.pipelines import distill as run_distillation
    from db3kd.pipelines import time_steps
    from db3kd.pipelines.distill_run import resumed_plan
    from db3kd.pipelines.distill_student import prepare_distillation
    from db3kd.planning import plan_budget
    from db3kd.storage.manifest import is_finished
    from db3kd.storage.run_folder import check_free
    from db3kd.validation import check_shape_of_images

    settings = distill_settings(training, proxies, spending.time_limit, teacher.device)
    settings = replace(settings, patience=training.patience)
    if out is not None:
        check_free(out, resume)
    transfer = images.load(training.seed)
    opened = teacher.open(transfer)
    count = None if transfer is None or strategy == "zero-shot" else len(transfer)
    if transfer is not None and count is not None:
        with naming_options(images="--data"):
            check_shape_of_images(transfer.image_shape, opened.image_shape, transfer.name)
    plan = plan_budget(budget, opened.classes, count, strategy)
    if out is not None and resume:
        plan = resumed_plan(out, plan)
    print_plan(plan, price)
    measured = images.load_test(opened, transfer)
    asked: dict[str, Any] = {
        "budget": budget,
        "student": student,
        "strategy": strategy,
        "settings": settings,
    }
    if spending.dry_run:
        used = None if plan.pseudo_samples else transfer
        with naming_options(images="--data"):
            times = time_steps(opened, used, student, settings)
        answered = 0
        if out is not None and resume:
            with naming_options(images="--data"):
                prepared = prepare_distillation(opened, transfer, **asked, out=out, resume=True)
                answered = prepared.count_answered(out)
        print_times(times, plan, settings, opened, answered)
        finished = out is not None and is_finished(out)
        print_answered(answered, plan.queries, price, finished=finished)
        return
    assert out is not None  # checked above
    runs = (out, out / "labels", out / "pseudo-samples")
    with naming_options(images="--data"), hint_at_resuming(*runs):
        result = run_distillation(
            opened,
            transfer,
            **asked,
            out=out,
            resume=resume,
            test=measured,
            price_per_1000=price,
            callbacks=training.callbacks(out / "student", settings.training),
            rare_classes=spending.rare_classes,
        )
    print_result(result, price)


def _refuse_with_labels(*names: str) -> None:
    for name in names:
        raise ValueError(f"{name}: cannot be combined with --labels, which sends no query")


def _refuse_without_labels(losses: LossOptions, seeds: int) -> None:
    if losses != LossOptions():
        raise ValueError(
            "preset, normalisation, scale, temperature, alpha: need --labels; without it, "
            "--strategy determines them"
        )
    if seeds != 1:
        raise ValueError("seeds: needs --labels; run the command once for each --seed and --out")
