"""`db3kd synthesize`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from db3kd.cli.options import (
    TEACHER_HELP,
    Architecture,
    Autocast,
    Classes,
    Compile,
    CudaGraphs,
    Device,
    MaxBatch,
    Seed,
    Shape,
    TrustCode,
    given,
    hint_at_resuming,
    open_teacher,
    parse_counts,
    running_options,
)

if TYPE_CHECKING:
    from db3kd.synthesis.sample_run import SynthesisTotals
    from db3kd.synthesis.synthesis import SynthesisSettings

STARTS = ("paper", "low-frequency", "shapes", "strokes", "blends", "mixed")
"""`db3kd.synthesis.starts.STARTS`, which `--help` lists without importing PyTorch."""

TeacherOption = Annotated[str, typer.Option("--teacher", help=TEACHER_HELP)]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples",
        min=1,
        help="Pseudo samples wanted.",
        show_default="guided: 100,000, plain: 20,000",
    ),
]
StartsOption = Annotated[
    str | None,
    typer.Option("--starts", help=f"One of {', '.join(STARTS)}.", show_default="mixed"),
]
Effort = Annotated[
    float | None,
    typer.Option(
        "--effort",
        min=1,
        help="Most starts asked, as a multiple of --samples; with more than 1, starts of common "
        "classes give way to those of rare ones.",
        show_default="1",
    ),
]
MovesOption = Annotated[
    int | None,
    typer.Option(
        "--moves", min=0, help="Most moves away from the boundary of a sample.", show_default="0"
    ),
]
QueriesPerMove = Annotated[
    int | None,
    typer.Option(
        "--queries-per-move",
        min=0,
        help="About how many queries find the boundary anew before a move.",
        show_default="50",
    ),
]
QueriesPerSample = Annotated[
    int | None,
    typer.Option(
        "--queries-per-sample",
        min=0,
        help="Most queries on the moves of a sample.",
        show_default="as many as they take",
    ),
]
Budget = Annotated[
    int | None, typer.Option("--budget", min=1, help="Most queries on all pseudo samples.")
]
Preset = Annotated[
    Literal["guided", "plain", "paper"],
    typer.Option(
        "--preset",
        help="Settings to start from. guided: students of the answers so far choose what to ask; "
        "plain: random images as they come; paper: the paper's, 80,000 samples from noise, 40 "
        "moves of up to 5,000 queries each.",
    ),
]
Snapshots = Annotated[
    str,
    typer.Option("--snapshots", help="Keep images and distances after so many moves, as 0,5,10."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what is in --out, if it is the same run.")
]


def synthesize(
    teacher: TeacherOption,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the run; must be new, but for --resume.")
    ],
    preset: Preset = "guided",
    acquisition_model: Annotated[
        str, typer.Option("--acquisition-model", help="Of the students that choose; see --preset.")
    ] = "lenet5-half",
    samples: Samples = None,
    starts: StartsOption = None,
    effort: Effort = None,
    moves: MovesOption = None,
    queries_per_move: QueriesPerMove = None,
    queries_per_sample: QueriesPerSample = None,
    budget: Budget = None,
    snapshots: Snapshots = "",
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
    """Make images for a teacher of which nothing is known but its decisions.

    The run is a data set: db3kd label --data DIR and db3kd distill take it like any other.

    Examples:

        db3kd synthesize --teacher teacher.safetensors --samples 20000 --out runs/pseudo

        db3kd synthesize --teacher teacher.safetensors --samples 1000 --moves 10
        --snapshots 0,5,10 --out runs/moved
    """
    from db3kd.storage.run_folder import check_free
    from db3kd.synthesis.sample_run import write_pseudo_samples

    settings = synthesis_settings(
        preset,
        acquisition_model=acquisition_model,
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
    check_free(out, resume)
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
    with hint_at_resuming(out):
        totals = write_pseudo_samples(out, asked, settings, resume=resume)
    print_totals(totals)
    print(f"written to     {out}")


def synthesis_settings(
    preset: str,
    *,
    acquisition_model: str,
    samples: int | None,
    starts: str | None,
    effort: float | None,
    moves: int | None,
    queries_per_move: int | None,
    queries_per_sample: int | None,
    budget: int | None,
    snapshots: str,
    seed: int,
) -> "SynthesisSettings":
    """The preset's settings with the options that were given in their place."""
    from db3kd.synthesis.synthesis import SynthesisSettings

    settings = {
        "guided": SynthesisSettings.guided(acquisition_model),
        "plain": SynthesisSettings(),
        "paper": SynthesisSettings.paper(),
    }[preset]
    moving = given(
        count=moves, queries_per_move=queries_per_move, queries_per_sample=queries_per_sample
    )
    changes = given(
        samples=samples,
        starts=starts,
        effort=effort,
        queries=budget,
        snapshots=parse_counts(snapshots) or None,
        seed=seed,
    )
    moved = dataclasses.replace(settings.moves, **moving)
    return dataclasses.replace(settings, moves=moved, **changes)


def print_totals(totals: "SynthesisTotals") -> None:
    """What a run of pseudo samples came to."""
    statuses = ", ".join(f"{count:,} {status}" for status, count in totals.statuses.items())
    print(f"pseudo samples {totals.samples:,}: {statuses}")
    print(f"queries        {totals.queries:,}, of which {totals.start_queries:,} for starts")
    print(f"by class       {', '.join(f'{count:,}' for count in totals.kept)}")
    if totals.mean_distance is not None:
        print(f"mean distance  {totals.mean_distance:.3f} (L2), {totals.mean_moves:.1f} moves")
    if totals.unreached:
        print(f"not reached    classes {', '.join(map(str, totals.unreached))}: no image was found")
