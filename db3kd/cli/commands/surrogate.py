"""The `db3kd surrogate` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from db3kd.cli.options.sets import common_option, expand_option_sets
from db3kd.cli.options.shared import (
    DefaultModel,
    ImageOptions,
    PlanOptions,
    RareClasses,
    ResumeOptions,
    Split,
)
from db3kd.cli.options.teacher import TeacherOptions
from db3kd.cli.options.training import TRAINING, TrainingOptions
from db3kd.cli.outputs import hint_at_resuming, note_new_run
from db3kd.cli.plan_output import (
    agreement_text,
    price_text,
    print_answered,
    print_paid_twice,
    print_training_time,
)
from db3kd.cli.rows import WIDE, print_row
from db3kd.wording import also_paid, counted, input_noun

if TYPE_CHECKING:
    from db3kd.wording import InputNoun


@expand_option_sets
def surrogate(
    *,
    teacher: TeacherOptions,
    images: ImageOptions,
    out: Annotated[Path, typer.Option(help="The .safetensors file, new unless --resume is given.")],
    plan: PlanOptions,
    rare_classes: RareClasses = False,
    training: TrainingOptions,
    model: DefaultModel = None,
    resuming: ResumeOptions,
    limit: Annotated[
        int | None, common_option(min=2, help="Use only this many images or rows, drawn at random.")
    ] = None,
    queries_per_sample: Annotated[
        int,
        common_option(
            min=1,
            help="Number of queries per sample: the image or row itself and augmented versions.",
        ),
    ] = 10,
    networks: Annotated[
        int,
        common_option(
            min=1,
            max=16,
            help="Number of networks to train on the answers; the surrogate is their mean.",
        ),
    ] = 3,
    split: Split = "train",
    steps: Annotated[
        int, typer.Option(min=1, help="Number of training steps.", rich_help_panel=TRAINING)
    ] = 2000,
) -> None:
    """Train a network on a teacher's decisions, to predict where the teacher's boundaries run.

    The queries are the images or rows, and mixed, shifted and noisy versions of them. Their number
    is printed before the first one; --dry-run stops there. Query only teachers that you are allowed
    to query. Some images or rows are held out, to measure how often the surrogate agrees with the
    teacher. Several networks trained on the same answers propose nearer boundary points than one,
    but take longer.

    A .json file next to the weights records how they were made, and a .decisions folder keeps the
    answers. To train another network on the same answers without a query, remove the weights and
    use --resume.

    For example:

        db3kd surrogate --teacher teacher.safetensors --data mnist5k --limit 1000
        --out surrogate.safetensors

        db3kd surrogate --teacher my_package.model:predict --data photos --limit 1000
        --out surrogate.safetensors --price-per-1000 0.25 --dry-run
    """
    from db3kd.pipelines.student_training.time_limit import seconds_of_surrogate
    from db3kd.storage.existing_runs import queries_paid_twice
    from db3kd.surrogates.files import check_out, decisions_folder, prepare_surrogate
    from db3kd.surrogates.settings import SurrogateSettings

    trained = training.settings(teacher.device, steps=steps)
    settings = SurrogateSettings(model, queries_per_sample, training=trained, networks=networks)
    resuming.check()
    resume, any_teacher = resuming.resume, resuming.accept_changed_teacher
    check_out(out, resume)
    if not out.exists():
        note_new_run(out, resume, decisions_folder(out))
    source = images.source(split, teacher.teacher)
    loaded = source.load()
    opened = teacher.open(loaded)
    prepared = prepare_surrogate(
        out, opened, source, settings, images=loaded, limit=limit, resume=resume
    )
    noun = input_noun(loaded.image_shape)
    # A refused run is refused before a plan that looks accepted.
    so_far = prepared.count_queries(any_teacher=any_teacher)
    print_row(
        "plan",
        f"{counted(prepared.queries, 'query')}: "
        f"{counted(len(prepared.chosen), noun)} in {counted(queries_per_sample, 'version')} each"
        f"{price_text(prepared.queries, plan.price_per_1000)}",
        WIDE,
    )
    print_answered(so_far, prepared.queries, plan.price_per_1000, width=WIDE)
    if plan.dry_run:
        if not so_far.finished:
            seconds = seconds_of_surrogate(opened, settings)
            print_training_time(seconds, f"{counted(settings.steps, 'step')} of all networks")
        print_row("dry run", "no query was sent; nothing was written", WIDE)
        return
    folder = decisions_folder(prepared.out)
    with hint_at_resuming(folder):
        manifest = prepared.write(rare_classes=rare_classes, accept_changed_teacher=any_teacher)
    if so_far.finished:
        print_row("nothing to do", "the surrogate was already finished", WIDE)
    _print_summary(manifest, queries_paid_twice(folder), noun, plan.price_per_1000, out)


def _print_summary(
    manifest: dict[str, Any], paid_twice: int, noun: "InputNoun", price: float | None, out: Path
) -> None:
    queries, agreement = manifest["queries"], manifest["agreement"]
    per_sample = manifest["settings"]["surrogate"]["queries_per_sample"]
    print_row(
        "queries",
        f"{queries:,}, {per_sample:,} per sample{price_text(queries, price)}"
        f"{also_paid(paid_twice, queries, price)}",
        WIDE,
    )
    print_paid_twice(paid_twice, WIDE)
    held_out = manifest["held_out"]
    measured = agreement_text(round(agreement * held_out), held_out, f"held-out {noun}")
    print_row("agreement", f"{measured}, augmented versions included", WIDE)
    print_row("written to", out, WIDE)
