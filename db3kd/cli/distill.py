"""The `db3kd distill` command."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.distill_labels import LossOptions, distill_labels
from db3kd.cli.errors import naming_options
from db3kd.cli.option_sets import COMMON, OptionSet, expand_option_sets
from db3kd.cli.options import ImageOptions, Resume, Split
from db3kd.cli.outputs import hint_at_resuming
from db3kd.cli.plan_output import print_plan, print_result
from db3kd.cli.strategy_options import StrategyName
from db3kd.cli.teacher_options import TEACHER_HELP, TeacherOptions
from db3kd.cli.training_options import StudentTrainingOptions
from db3kd.progress import duration

if TYPE_CHECKING:
    from db3kd.data.image_set import ImageSet
    from db3kd.pipelines.distill_settings import DistillSettings
    from db3kd.teachers import Teacher


@dataclass(frozen=True, kw_only=True)
class OptionalTeacherOptions(TeacherOptions):
    """The teacher, unless a label run takes its place."""

    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help=f"The teacher: {TEACHER_HELP}", rich_help_panel=COMMON),
    ] = None  # type: ignore[assignment]  # the command checks that it is given


@dataclass(frozen=True, kw_only=True)
class TransferOptions(ImageOptions):
    """The images to ask about and to train on, and those to measure accuracy on."""

    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Images, as for db3kd label; none to make pseudo samples.",
            rich_help_panel=COMMON,
        ),
    ] = None  # type: ignore[assignment]  # images are optional here
    split: Split = "train"
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Use only this many images, drawn at random."),
    ] = None
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            help="Labelled images to measure the student's accuracy on, without a query.",
            show_default="the test split of --data",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SpendingOptions(OptionSet):
    """How many queries and how much time a run may take."""

    panel = "Budget"

    budget: Annotated[
        int | None,
        typer.Option("--budget", min=1, help="Maximum number of queries.", rich_help_panel=COMMON),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan, ask nothing and stop.", rich_help_panel=COMMON
        ),
    ] = False
    price_per_1000: Annotated[
        float | None,
        typer.Option("--price-per-1000", min=0, help="Price of 1,000 queries."),
    ] = None
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit", min=1, help="Approximate seconds that all trainings may take."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ProxyOptions(OptionSet):
    """Networks that choose what is asked and teach the student."""

    panel = "Proxies"

    proxy: Annotated[
        str | None,
        typer.Option(
            "--proxy",
            help="Network of the proxies, as for --student.",
            show_default="the largest of the student's family",
        ),
    ] = None
    proxies: Annotated[
        int,
        typer.Option("--proxies", min=0, help="Number of proxies; 0 for none."),
    ] = 2
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            min=1,
            help="Stop after this many of 100 reports without a higher held-out agreement.",
        ),
    ] = None


@expand_option_sets
def distill(
    teacher: OptionalTeacherOptions,
    images: TransferOptions,
    spending: SpendingOptions,
    losses: LossOptions,
    training: StudentTrainingOptions,
    proxies: ProxyOptions,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="Folder of a run of db3kd label, whose labels are distilled without a query.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            "--student",
            "--model",
            help="Network to train: lenet5-half, alexnet-half, resnet18, mlp, … or "
            "package.module:factory.",
            show_default="a small one for the images",
            rich_help_panel=COMMON,
        ),
    ] = None,
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

    The plan is printed before anything is asked. Every answer is kept in --out, and --resume
    continues a stopped run at any stage. With --labels, students of a finished label run are
    trained instead, without a query.

    For example:

        db3kd distill --teacher teacher.safetensors --data mnist5k --budget 20000
        --student lenet5-half --out runs/mine

        db3kd distill --teacher my_package.model:predict --data photos --budget 200000
        --price-per-1000 0.25 --out runs/mine --dry-run

        db3kd distill --teacher teacher.safetensors --budget 100000 --student lenet5-half
        --out runs/none

        db3kd distill --labels runs/mbd --student lenet5-half --seeds 3 --out student.safetensors
    """
    if labels is not None:
        _refuse_with_labels(
            teacher=teacher.teacher,
            budget=spending.budget,
            time_limit=spending.time_limit,
            limit=images.limit,
            test=images.test,
        )
        file = labels.with_name(f"{labels.name}-student.safetensors") if out is None else out
        with naming_options(model="--student"):
            distill_labels(
                labels,
                file,
                losses,
                training,
                student or "lenet5-half",
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
        raise ValueError("out: expected the folder of the run, got none")
    from db3kd.labelling.sample_choice import draw_samples
    from db3kd.pipelines import distill as run_distillation
    from db3kd.pipelines import estimate_training_seconds
    from db3kd.planning import plan_budget
    from db3kd.storage.run_folder import check_free

    settings = _settings(training, proxies, spending.time_limit, teacher.device)
    if out is not None:
        check_free(out, resume)
    transfer = None
    if images.data is not None:
        loaded = images.source(images.split).load()
        transfer = loaded.subset(draw_samples(len(loaded), images.limit, training.seed))
    opened = teacher.open(transfer)
    count = None if transfer is None or strategy == "zero-shot" else len(transfer)
    plan = plan_budget(budget, opened.classes, count, strategy)
    print_plan(plan, price)
    if spending.dry_run:
        seconds = estimate_training_seconds(opened, transfer, plan, student, settings)
        print(f"trainings  about {duration(seconds)} on this machine; nothing was asked")
        return
    assert out is not None  # checked above
    measured = _test_images(images, opened)
    runs = (out, out / "labels", out / "pseudo-samples")
    with naming_options(model="--student"), hint_at_resuming(*runs):
        result = run_distillation(
            opened,
            transfer,
            budget=budget,
            student=student,
            strategy=strategy,
            settings=settings,
            out=out,
            resume=resume,
            test=measured,
            price_per_1000=price,
            callbacks=training.callbacks(out / "student", settings.training),
        )
    print_result(result, price)


def _test_images(images: TransferOptions, teacher: "Teacher") -> "ImageSet | None":
    """Returns labelled test images, classes numbered as the teacher's; None if there are none."""
    from db3kd.data.class_names import matched

    test = images.test
    if test is None and (images.data is None or images.split == "test"):
        return None
    try:
        source = images.source("test")
        loaded = (source if test is None else replace(source, data=test)).load()
    except (ValueError, FileNotFoundError):
        if test is not None:
            raise
        return None  # most folders have no test split
    if loaded.labels is None:
        return None
    return matched(loaded, teacher)


def _settings(
    training: StudentTrainingOptions, proxies: ProxyOptions, time_limit: float | None, device: str
) -> "DistillSettings":
    from db3kd.pipelines.distill_settings import DistillSettings

    rates = DistillSettings.learning_rates
    return DistillSettings(
        training=training.patient_settings(device),
        learning_rates=rates if training.learning_rate is None else (training.learning_rate,),
        proxy=proxies.proxy,
        proxies=proxies.proxies,
        time_limit=time_limit,
        patience=proxies.patience,
    )


def _refuse_with_labels(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"{name}: cannot be combined with --labels, which asks nothing")


def _refuse_without_labels(losses: LossOptions, seeds: int) -> None:
    if losses != LossOptions():
        raise ValueError(
            "preset, normalisation, scale, temperature, alpha: need --labels; without it they "
            "follow from --strategy"
        )
    if seeds != 1:
        raise ValueError("seeds: needs --labels; run the command once for each --seed and --out")
