"""`db3kd surrogate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from db3kd.cli.options import (
    TEACHER_HELP,
    Architecture,
    Autocast,
    BatchSize,
    Channels,
    Classes,
    Compile,
    CudaGraphs,
    Data,
    Device,
    LearningRate,
    MaxBatch,
    Precision,
    Seed,
    Shape,
    Size,
    TrustCode,
    hint_at_resuming,
    open_teacher,
    running_options,
)


def surrogate(
    teacher: Annotated[str, typer.Option("--teacher", help=TEACHER_HELP)],
    data: Data,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="The .safetensors file to write; must not exist, but for --resume."
        ),
    ],
    split: Annotated[str, typer.Option("--split", help="Which part of the data.")] = "train",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=2, help="Take so many of the images, drawn by the seed."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Of the surrogate: lenet5, alexnet, resnet18, …, or package.module:factory.",
        ),
    ] = "lenet5",
    queries_per_sample: Annotated[
        int,
        typer.Option(
            "--queries-per-sample",
            min=1,
            help="Images of each sample that are asked about, itself among them: exactly so many "
            "queries.",
        ),
    ] = 10,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Batches of the training.")] = 2000,
    batch_size: BatchSize = 128,
    learning_rate: LearningRate = 1e-3,
    max_batch: MaxBatch = None,
    autocast: Autocast = None,
    compile: Compile = False,
    cuda_graphs: CudaGraphs = False,
    architecture: Architecture = None,
    image_shape: Shape = None,
    classes: Classes = None,
    trust_code: TrustCode = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with what is there, if it is of the same teacher, images and settings.",
        ),
    ] = False,
    size: Size = None,
    channels: Channels = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "no",
) -> None:
    """Train a network on a teacher's decisions that says where its boundaries may lie.

    The teacher is asked about the images and about mixed, shifted and noisy ones made of them.
    Query only teachers that you may query. Some of the images are held out, to tell how often the
    surrogate decides like the teacher.

    Beside the weights a .json file of the same name says how they came about, and a .decisions
    folder keeps the answers. Remove the weights to train another network on them, with --resume and
    without a query.

    Example:

        db3kd surrogate --teacher teacher.safetensors --data mnist5k --limit 1000
        --out surrogate.safetensors
    """
    from db3kd.distillation.surrogate_training import (
        SurrogateSettings,
        check_out,
        decisions_folder,
        write_surrogate,
    )
    from db3kd.distillation.training import TrainSettings
    from db3kd.labelling.source import Source
    from db3kd.storage.manifest import read_manifest
    from db3kd.storage.run_folder import holds_run, queries_in_flight

    training = TrainSettings(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        precision=precision,
    )
    settings = SurrogateSettings(model, queries_per_sample, training=training)
    check_out(out, resume)
    finished = out.exists()
    source = Source(data, split, size, channels)
    running = running_options(max_batch, autocast, compile, cuda_graphs)
    asked = open_teacher(
        teacher,
        source.load(),
        architecture,
        device,
        running,
        image_shape=image_shape,
        classes=classes,
        trust_code=trust_code,
    )
    folder = decisions_folder(out)
    with hint_at_resuming(folder):
        made = write_surrogate(out, asked, source, settings, limit=limit, resume=resume)
    if finished:
        print("nothing to do  the surrogate was finished already")
    in_flight = queries_in_flight(read_manifest(folder)) if holds_run(folder) else 0
    _print_summary(made, in_flight, out)


def _print_summary(made: dict[str, Any], in_flight: int, out: Path) -> None:
    each = made["settings"]["surrogate"]["queries_per_sample"]
    print(f"queries        {made['queries']:,}, {each:,} a sample")
    if in_flight:
        print(f"paid twice     at most {in_flight:,}, unanswered at stops")
    print(f"agreement      {made['agreement']:.1%} with the teacher, on images held out")
    print(f"written to     {out}")
