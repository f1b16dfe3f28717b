"""`db3kd label`."""

import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from db3kd.cli.options import (
    TEACHER_HELP,
    Architecture,
    Autocast,
    Channels,
    Classes,
    Compile,
    CudaGraphs,
    Data,
    Device,
    MaxBatch,
    Seed,
    Shape,
    Size,
    TrustCode,
    given,
    hint_at_resuming,
    open_teacher,
    parse_counts,
    running_options,
)
from db3kd.cli.preflight import print_estimate

if TYPE_CHECKING:
    from torch import nn

    from db3kd.data.image_set import ImageSet
    from db3kd.labelling.settings import LabelSettings
    from db3kd.labelling.soft_labels import SoftLabelSettings
    from db3kd.labelling.totals import Totals
    from db3kd.ops import Normalisation
    from db3kd.teachers import Teacher


INCONSISTENT = 3
"""Exit status of a run that is finished, of a teacher that is noisy or was replaced."""


def label(
    teacher: Annotated[str, typer.Option("--teacher", help=TEACHER_HELP)],
    data: Data,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Folder of the run: a manifest and Parquet shards. Must be new, but for --resume.",
        ),
    ],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, if there is one, after checking that teacher, data "
            "and settings are the same; nothing that was answered is asked again.",
        ),
    ] = False,
    split: Annotated[
        str, typer.Option("--split", help="Which part of the data to label.")
    ] = "train",
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Label this many images only, drawn by the seed."),
    ] = None,
    measure: Annotated[
        Literal["sd", "bd", "mbd"],
        typer.Option(
            "--measure",
            help="Distance to the nearest image of a class (sd: no queries), to the boundary "
            "along rays to such images (bd), or to the boundary in any direction (mbd).",
        ),
    ] = "mbd",
    preset: Annotated[
        Literal["paper"] | None,
        typer.Option("--preset", help="Start from the paper's settings (20,000 queries a pair)."),
    ] = None,
    starting_points: Annotated[
        int | None,
        typer.Option(
            "--starting-points",
            min=1,
            help="Images of a class that rays lead to.",
            show_default="what suits the queries, at most 10 for mbd, 20 for bd",
        ),
    ] = None,
    order: Annotated[
        Literal["nearest", "random"] | None,
        typer.Option("--order", help="Which images of a class those are.", show_default="nearest"),
    ] = None,
    candidate_pool: Annotated[
        int | None,
        typer.Option(
            "--candidate-pool",
            min=1,
            help="Most images, in all, that rays may lead to; of a larger set some are drawn.",
            show_default="20000",
        ),
    ] = None,
    targets: Annotated[
        int | None,
        typer.Option(
            "--targets",
            min=1,
            help="Search only this many classes of each sample, those with the nearest images, and "
            "estimate the distances to the others.",
            show_default="all",
        ),
    ] = None,
    mixup_rounds: Annotated[
        int | None,
        typer.Option(
            "--mixup-rounds",
            min=0,
            help="Rounds of bd towards mixtures of its best point with those images.",
            show_default="0",
        ),
    ] = None,
    queries_per_pair: Annotated[
        int | None,
        typer.Option(
            "--queries-per-pair",
            min=0,
            help="Most queries for a sample and one class.",
            show_default="1000",
        ),
    ] = None,
    queries_per_sample: Annotated[
        int | None,
        typer.Option(
            "--queries-per-sample", min=0, help="Most queries for a sample, its decision included."
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget", min=0, help="Most queries of the whole run, divided over the samples."
        ),
    ] = None,
    snapshots: Annotated[
        str,
        typer.Option(
            "--snapshots", help="Note distances at these queries per pair too, as 100,200,400."
        ),
    ] = "",
    normalisation: Annotated[
        Literal["margin", "inverse"],
        typer.Option(
            "--normalisation",
            help="Formula of soft labels: margin (-scale·distance as logits), or inverse (the "
            "paper's 1/distance), which is written at once.",
        ),
    ] = "margin",
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale", help="Write margin soft labels of this scale; else distill chooses it."
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", help="Of the soft labels.", show_default="margin: 4, inverse: 20"
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=1,
            help="Processes that label, each with a teacher of its own, by Ray (extra ray). Labels "
            "and queries are those of one; a rate limit of the teacher holds for each.",
        ),
    ] = 1,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            help="Ray cluster that the workers run on, HOST:PORT or auto; else this machine. Its "
            "machines need the same files, and should share the disk of --out. Its token is taken "
            "from RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what the run would ask, take and cost, by a few real queries; write nothing.",
        ),
    ] = False,
    dry_run_queries: Annotated[
        int, typer.Option("--dry-run-queries", min=0, help="Most real queries of --dry-run.")
    ] = 400,
    price: Annotated[
        float | None,
        typer.Option("--price-per-1000", min=0, help="Of 1,000 queries; --dry-run says the cost."),
    ] = None,
    concurrent_chunks: Annotated[
        int | None,
        typer.Option(
            "--concurrent-chunks",
            min=1,
            help="Shards that one process searches at once, so that a GPU need not wait for it; a "
            "kill may cost a call of the teacher for each. Labels and queries are those of one.",
            show_default="2 on CUDA, else 1",
        ),
    ] = None,
    surrogate: Annotated[
        Path | None,
        typer.Option(
            "--surrogate",
            help="A torch network that has learnt the teacher's decisions, as a file; db3kd "
            "surrogate makes one. mbd begins at its boundaries and needs far fewer queries.",
        ),
    ] = None,
    consistency_checks: Annotated[
        int,
        typer.Option(
            "--consistency-checks",
            min=0,
            help="Most queries that ask for known answers again, at the start, before resuming and "
            "at the end, to find a teacher that is noisy or was replaced; 0 for none.",
        ),
    ] = 32,
    accept_changed_teacher: Annotated[
        bool,
        typer.Option(
            "--accept-changed-teacher",
            help="Resume although the teacher's answers have changed, and mix the two.",
        ),
    ] = False,
    max_batch: MaxBatch = None,
    autocast: Autocast = None,
    compile: Compile = False,
    cuda_graphs: CudaGraphs = False,
    architecture: Architecture = None,
    image_shape: Shape = None,
    classes: Classes = None,
    trust_code: TrustCode = False,
    size: Size = None,
    channels: Channels = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Ask a teacher for its classes and measure how far each image is from every other class.

    A query is one answered image; no budget is exceeded by a single one. Query only teachers that
    you may query. The exit status is 3 if the run is finished, and its teacher is noisy or was
    replaced on the way.

    Examples:

        db3kd label --teacher teacher.safetensors --data mnist5k --limit 300 --measure bd
        --out runs/bd

        db3kd label --teacher my_package.model:predict --data images.npz --budget 100000
        --out runs/mine

        db3kd label --teacher my_package.model:predict --data images.npz --targets 5
        --out runs/nearest-five

        db3kd label --teacher my_package.model:predict --data images.npz --queries-per-pair 100
        --surrogate surrogate.safetensors --out runs/begun-near

        db3kd label --teacher my_package.model:predict --data images.npz --budget 100000
        --out runs/mine --resume

        db3kd label --teacher my_package.model:predict --data images.npz --budget 100000
        --out runs/mine --workers 8 --dry-run --price-per-1000 0.5
    """
    from db3kd.labelling.chunk_search import chunk_size
    from db3kd.labelling.consistency import describe_checks, is_inconsistent, queries_of_checks
    from db3kd.labelling.dry_run import estimate_run
    from db3kd.labelling.run_writer import write_run
    from db3kd.labelling.sample_choice import draw_samples
    from db3kd.labelling.source import Source
    from db3kd.labelling.worker_pool import Workers, import_ray
    from db3kd.storage.manifest import MANIFEST, read_manifest
    from db3kd.storage.run_folder import check_free, holds_run, queries_in_flight

    changes = {
        "starting_points": starting_points,
        "order": order,
        "candidate_pool": candidate_pool,
        "targets": targets,
        "mixup_rounds": mixup_rounds,
        "queries_per_pair": queries_per_pair,
        "queries_per_sample": queries_per_sample,
        "queries": budget,
        "snapshots": parse_counts(snapshots) or None,
    }
    settings = _settings(preset, measure, seed, changes)
    soft_labels = _soft_label_settings(normalisation, scale, temperature)
    check_free(out, resume)
    before = read_manifest(out) if holds_run(out) else None
    source = Source(data, split, size, channels)
    images = source.load()
    running = running_options(max_batch, autocast, compile, cuda_graphs)
    described = {"image_shape": image_shape, "classes": classes, "trust_code": trust_code}
    make_teacher = partial(
        open_teacher, _found(teacher), images, architecture, device, running, **described
    )
    pool = None
    if workers > 1 or ray_address is not None:
        import_ray()
        pool = Workers(workers, ray_address, device != "cpu", make_teacher)
    asked = open_teacher(teacher, images, architecture, device, running, **described)
    network = None if surrogate is None else _network(surrogate, images, asked, trust_code)
    if dry_run:
        chosen = images.subset(draw_samples(len(images), limit, seed))
        estimate = estimate_run(asked, chosen, settings, dry_run_queries, surrogate=network)
        shards = math.ceil(len(chosen) / chunk_size(asked, settings))
        print_estimate(estimate, min(workers, shards), price)
        return
    with hint_at_resuming(out):
        totals = write_run(
            out,
            asked,
            source,
            settings,
            limit=limit,
            soft_labels=soft_labels,
            resume=resume,
            workers=pool,
            concurrent_chunks=concurrent_chunks,
            surrogate=network,
            consistency_checks=consistency_checks,
            accept_changes=accept_changed_teacher,
        )
    after = read_manifest(out)
    if after == before:
        print("nothing to do  the run was finished already")
    _print_summary(totals, queries_in_flight(after), out)
    if asked_again := queries_of_checks(after):
        print(f"checks         {asked_again} queries beside the labels'; {describe_checks(after)}")
    if is_inconsistent(after) or totals.statuses["contradictory"]:
        print(
            f"error: the teacher gave different answers to the same images; {out / MANIFEST} says "
            "how many",
            file=sys.stderr,
        )
        raise typer.Exit(INCONSISTENT)


def _found(teacher: str) -> str:
    """A file's whole path, for workers that may run in another folder; anything else as it is."""
    return str(Path(teacher).absolute()) if Path(teacher).exists() else teacher


def _network(file: Path, images: "ImageSet", teacher: "Teacher", trust_code: bool) -> "nn.Module":
    """The surrogate in a file, which must number its classes as the teacher does."""
    from db3kd.teachers import ModuleTeacher
    from db3kd.teachers.base import class_names_of

    found = open_teacher(str(file), images, None, "cpu", trust_code=trust_code)
    if not isinstance(found, ModuleTeacher):
        raise ValueError(
            f"surrogate: expected a torch network, whose gradients can be had, got {file}"
        )
    if found.bounds != images.bounds:
        raise ValueError(
            f"surrogate: expected a network for images in [0, 1], got bounds {found.bounds} in "
            f"{file}; make one with db3kd surrogate"
        )
    names = class_names_of(teacher)
    if None not in (names, found.class_names) and names != found.class_names:
        raise ValueError(
            f"surrogate: expected one of the teacher's classes in their order, got other names, "
            f"or another order, in {file}; make one of this teacher with db3kd surrogate"
        )
    return found.module


def _settings(
    preset: str | None, measure: str, seed: int, changes: dict[str, Any]
) -> "LabelSettings":
    from db3kd.labelling.settings import LabelSettings

    make = LabelSettings.paper if preset else LabelSettings
    return make(measure=measure, seed=seed, **given(**changes))


def _soft_label_settings(
    normalisation: "Normalisation", scale: float | None, temperature: float | None
) -> "SoftLabelSettings | None":
    """None where margin soft labels still lack their scale."""
    from db3kd.labelling.soft_labels import DEFAULT_TEMPERATURE, SoftLabelSettings

    if normalisation == "inverse" and scale is not None:
        raise ValueError("scale: belongs to --normalisation margin; inverse has none")
    if normalisation == "margin" and scale is None:
        if temperature is not None:
            raise ValueError("temperature: margin soft labels need a --scale too to be written")
        return None
    if temperature is None:
        temperature = DEFAULT_TEMPERATURE[normalisation]
    return SoftLabelSettings(normalisation, 1.0 if scale is None else scale, temperature)


def _print_summary(totals: "Totals", in_flight: int, out: Path) -> None:
    statuses = ", ".join(f"{count:,} {status}" for status, count in totals.statuses.most_common())
    distance = "no class was reached"
    if totals.mean_distance is not None:
        distance = f"{totals.mean_distance:.3f} (L2)"
    print(f"samples        {totals.samples:,}: {statuses}")
    print(f"queries        {totals.queries:,}, {totals.queries_per_sample:,.1f} a sample")
    if in_flight:
        print(f"paid twice     at most {in_flight:,}, unanswered at stops or with a lost worker")
    print(f"mean distance  {distance}")
    print(f"pairs reached  {totals.reached:,} of {totals.pairs:,} (sample and other class)")
    if totals.estimated:
        print(f"not searched   {totals.estimated:,} pairs, whose distances are estimated")
    if totals.statuses["contradictory"]:
        print(
            f"contradictory  {totals.statuses['contradictory']:,} samples: the teacher put equal "
            "images in different classes, so it is noisy or was replaced"
        )
    if totals.disagreements:
        print(
            f"disagreement   {totals.disagreements:,} of {totals.samples:,} samples are in another "
            "class for the teacher than in the data; the teacher's counts"
        )
    print(f"written to     {out}")
