"""`db3kd zero-shot`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from db3kd.cli.options import (
    DATA_HELP,
    Architecture,
    Autocast,
    BatchSize,
    Classes,
    Compile,
    CudaGraphs,
    Device,
    MaxBatch,
    Seed,
    Shape,
    TrustCode,
    hint_at_resuming,
    open_teacher,
    running_options,
)
from db3kd.cli.synthesize import (
    Budget,
    Effort,
    MovesOption,
    Preset,
    QueriesPerMove,
    QueriesPerSample,
    Resume,
    Samples,
    Snapshots,
    StartsOption,
    TeacherOption,
    print_totals,
    synthesis_settings,
)


def zero_shot(
    teacher: TeacherOption,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for samples, labels, students and report.")
    ],
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            help=f"Real images, whose test split measures students, and whose train split trains "
            f"one to compare with. {DATA_HELP}",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="The student: lenet5-half, alexnet-half, ….")
    ] = "lenet5-half",
    preset: Preset = "guided",
    samples: Samples = None,
    starts: StartsOption = None,
    effort: Effort = None,
    moves: MovesOption = None,
    queries_per_move: QueriesPerMove = None,
    queries_per_sample: QueriesPerSample = None,
    budget: Budget = None,
    snapshots: Snapshots = "",
    measure: Annotated[
        Literal["none", "sd", "bd", "mbd"],
        typer.Option(
            "--measure",
            help="Label the pseudo samples by distances to each other too, and distil "
            "those; none trains on their decisions alone.",
        ),
    ] = "none",
    queries_per_pair: Annotated[
        int,
        typer.Option("--queries-per-pair", min=0, help="Of such labels, for a sample and a class."),
    ] = 60,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Of every student.")] = 12_000,
    batch_size: BatchSize = 128,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Adam's at the start; it falls to 0.")
    ] = 3e-3,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Students, of the seeds --seed, --seed + 1, ….")
    ] = 3,
    image_shape: Shape = None,
    classes: Classes = None,
    max_batch: MaxBatch = None,
    autocast: Autocast = None,
    compile: Compile = False,
    cuda_graphs: CudaGraphs = False,
    architecture: Architecture = None,
    trust_code: TrustCode = False,
    resume: Resume = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """From a teacher alone to a student: pseudo samples, labels, students, a report.

    Without --test students are trained, but nothing can be said of how good they are.

    Examples:

        db3kd zero-shot --teacher teacher.safetensors --test mnist5k --out runs/zero

        db3kd zero-shot --teacher my_package.model:predict --image-shape 3,32,32 --classes 10
        --model alexnet-quarter --samples 200000 --out runs/mine
    """
    from db3kd.distillation.training import TrainSettings
    from db3kd.labelling.settings import LabelSettings
    from db3kd.pipelines.zero_shot import (
        LABELS_FOLDER,
        SAMPLES_FOLDER,
        ZeroShotSettings,
        run_zero_shot,
    )
    from db3kd.report.zero_shot import table
    from db3kd.storage.run_folder import check_free

    synthesis = synthesis_settings(
        preset,
        acquisition_model=model,
        samples=samples,
        starts=starts,
        effort=effort,
        moves=moves,
        queries_per_move=queries_per_move,
        queries_per_sample=queries_per_sample,
        budget=budget,
        snapshots=snapshots,
        seed=seed,
    )
    labelling = None
    if measure != "none":
        labelling = LabelSettings(measure, queries_per_pair=queries_per_pair, seed=seed)
    settings = ZeroShotSettings(
        synthesis,
        labelling,
        student=model,
        training=TrainSettings(
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            schedule="cosine",
            seed=seed,
            device=device,
        ),
        seeds=seeds,
    )
    check_free(out / SAMPLES_FOLDER, resume)
    if not resume:
        check_free(out)
    running = running_options(max_batch, autocast, compile, cuda_graphs)
    asked = open_teacher(
        teacher,
        None,
        architecture,
        device,
        running,
        image_shape=image_shape,
        classes=classes,
        trust_code=trust_code,
    )
    with hint_at_resuming(out / SAMPLES_FOLDER, out / LABELS_FOLDER):
        result = run_zero_shot(asked, out, settings, test=test, resume=resume)
    print_totals(result.totals)
    if result.rows:
        print(table(result.rows))
    print(f"written to     {result.report}")
