"""The `db3kd zero-shot` command."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from db3kd.cli.errors import naming_options
from db3kd.cli.option_sets import COMMON, expand_option_sets
from db3kd.cli.options import Model, Resume, Seeds
from db3kd.cli.outputs import hint_at_resuming
from db3kd.cli.synthesize import SynthesisOptions, print_totals
from db3kd.cli.teacher_options import TeacherOptions
from db3kd.cli.training_options import BatchSize, LearningRate, Steps

_QUERIES_PER_PAIR = 60
"""The default of --queries-per-pair."""


@expand_option_sets
def zero_shot(
    teacher: TeacherOptions,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for samples, labels, students and the report.")
    ],
    synthesis: SynthesisOptions,
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            help="Real images to test students on and to train a baseline on, as for db3kd label.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    model: Model = "lenet5-half",
    resume: Resume = False,
    seeds: Seeds = 3,
    measure: Annotated[
        Literal["none", "sd", "bd", "mbd"],
        typer.Option(
            "--measure",
            help="Also measure distances in this way, and distil them.",
            rich_help_panel="Labels",
        ),
    ] = "none",
    queries_per_pair: Annotated[
        int | None,
        typer.Option(
            "--queries-per-pair",
            min=0,
            help="Maximum number of queries per sample and class for these distances.",
            show_default=str(_QUERIES_PER_PAIR),
            rich_help_panel="Labels",
        ),
    ] = None,
    steps: Steps = 12_000,
    batch_size: BatchSize = 128,
    learning_rate: LearningRate = 3e-3,
) -> None:
    """Train students with a teacher alone: make pseudo samples, labels, students and a report.

    Without --test, students are trained but not measured. The learning rate of Adam decays to 0.

    For example:

        db3kd zero-shot --teacher teacher.safetensors --test mnist5k --out runs/zero

        db3kd zero-shot --teacher my_package.model:predict --image-shape 3,32,32 --classes 10
        --model alexnet-quarter --samples 200000 --out runs/mine
    """
    from db3kd.distillation.train_settings import TrainSettings
    from db3kd.labelling.settings import LabelSettings
    from db3kd.pipelines import ZeroShotSettings, run_zero_shot
    from db3kd.pipelines.run_layout import LABELS_FOLDER, SAMPLES_FOLDER
    from db3kd.pipelines.transfer_set import check_zero_shot_folder
    from db3kd.pipelines.zero_shot_students import DECISION_FOLDERS
    from db3kd.report import zero_shot_table

    if queries_per_pair is not None and measure in ("none", "sd"):
        raise ValueError("queries_per_pair: needs --measure bd or mbd")
    labelling = None
    if measure != "none":
        most = _QUERIES_PER_PAIR if queries_per_pair is None else queries_per_pair
        labelling = LabelSettings(measure, queries_per_pair=most, seed=synthesis.seed)
    settings = ZeroShotSettings(
        synthesis.settings(model),
        labelling,
        student=model,
        training=TrainSettings(
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            schedule="cosine",
            seed=synthesis.seed,
            device=teacher.device,
        ),
        seeds=seeds,
    )
    check_zero_shot_folder(out, resume)
    opened = teacher.open()
    folders = (SAMPLES_FOLDER, LABELS_FOLDER, *DECISION_FOLDERS.values())
    runs = [out / folder for folder in folders]
    with naming_options(data="--test", student="--model"), hint_at_resuming(*runs):
        result = run_zero_shot(opened, out, settings, test=test, resume=resume)
    print_totals(result.totals)
    if result.rows:
        print(zero_shot_table(result.rows))
    print(f"all queries    {result.queries:,}")
    print(f"written to     {result.report}")
