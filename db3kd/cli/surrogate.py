"""The `db3kd surrogate` command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from db3kd.cli.option_sets import COMMON, expand_option_sets
from db3kd.cli.options import DefaultModel, ImageOptions, RareClasses, Resume, Split
from db3kd.cli.outputs import hint_at_resuming
from db3kd.cli.teacher_options import TeacherOptions
from db3kd.cli.training_options import Steps, TrainingOptions


@expand_option_sets
def surrogate(
    *,
    teacher: TeacherOptions,
    images: ImageOptions,
    out: Annotated[
        Path,
        typer.Option("--out", help="The .safetensors file, new unless --resume is given."),
    ],
    rare_classes: RareClasses = False,
    training: TrainingOptions,
    model: DefaultModel = None,
    resume: Resume = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=2,
            help="Use only this many images, drawn at random.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    queries_per_sample: Annotated[
        int,
        typer.Option(
            "--queries-per-sample",
            min=1,
            help="Number of queries per sample: the image itself and augmented versions of it.",
            rich_help_panel=COMMON,
        ),
    ] = 10,
    networks: Annotated[
        int,
        typer.Option(
            "--networks",
            min=1,
            max=16,
            help="Number of networks to train on the answers; the surrogate is their mean.",
            rich_help_panel=COMMON,
        ),
    ] = 3,
    split: Split = "train",
    steps: Steps = 2000,
) -> None:
    """Train a network on a teacher's decisions, to predict where the teacher's boundaries run.

    The queries are the images, and mixed, shifted and noisy versions of them. Query only teachers
    that you are allowed to query. Some images are held out, to measure how often the surrogate
    agrees with the teacher. Several networks trained on the same answers propose nearer boundary
    points than one, but take longer.

    A .json file next to the weights records how they were made, and a .decisions folder keeps the
    answers. To train another network on the same answers without a query, remove the weights and
    use --resume.

    For example:

        db3kd surrogate --teacher teacher.safetensors --data mnist5k --limit 1000
        --out surrogate.safetensors
    """
    from db3kd.distillation.surrogate_files import check_out, decisions_folder, write_surrogate
    from db3kd.distillation.surrogate_settings import SurrogateSettings
    from db3kd.storage.existing_runs import holds_run
    from db3kd.storage.manifest import queries_in_flight, read_manifest

    trained = training.settings(teacher.device, steps=steps)
    settings = SurrogateSettings(model, queries_per_sample, training=trained, networks=networks)
    check_out(out, resume)
    finished = out.exists()
    source = images.source(split)
    loaded = source.load()
    opened = teacher.open(loaded)
    folder = decisions_folder(out)
    with hint_at_resuming(folder):
        manifest = write_surrogate(
            out,
            opened,
            source,
            settings,
            images=loaded,
            limit=limit,
            resume=resume,
            rare_classes=rare_classes,
        )
    if finished:
        print("nothing to do  the surrogate was already finished")
    in_flight = queries_in_flight(read_manifest(folder)) if holds_run(folder) else 0
    _print_summary(manifest, in_flight, out)


def _print_summary(manifest: dict[str, Any], in_flight: int, out: Path) -> None:
    per_sample = manifest["settings"]["surrogate"]["queries_per_sample"]
    print(f"queries        {manifest['queries']:,}, {per_sample:,} per sample")
    if in_flight:
        print(f"paid twice     at most {in_flight:,}, unanswered when a process stopped")
    print(f"agreement      {manifest['agreement']:.1%} with the teacher on held-out images")
    print(f"written to     {out}")
