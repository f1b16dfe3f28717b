"""`db3kd label`."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from db3kd.cli.option_sets import COMMON, OptionSet, expand_option_sets
from db3kd.cli.options import (
    ImageOptions,
    Limit,
    ModelFileOptions,
    Resume,
    Seed,
    Split,
    TeacherOptions,
    given,
    hint_at_resuming,
    parse_counts,
)
from db3kd.cli.preflight import print_estimate

if TYPE_CHECKING:
    from torch import nn

    from db3kd.data.image_set import ImageSet
    from db3kd.labelling.settings import LabelSettings
    from db3kd.labelling.soft_labels import SoftLabelSettings
    from db3kd.labelling.totals import Totals
    from db3kd.labelling.worker_pool import Workers
    from db3kd.teachers import Teacher


INCONSISTENT = 3
"""Exit status of a run that is finished, of a teacher that is noisy or was replaced."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions(OptionSet):
    """How distances are measured."""

    panel = "Search"

    measure: Annotated[
        Literal["sd", "bd", "mbd"],
        typer.Option(
            "--measure",
            help="Distance to the nearest image of a class (sd, no queries), to the boundary along "
            "rays to such images (bd), or to the boundary in any direction (mbd).",
            rich_help_panel=COMMON,
        ),
    ] = "mbd"
    preset: Annotated[
        Literal["paper"] | None,
        typer.Option("--preset", help="Start from the paper's settings (20,000 queries per pair)."),
    ] = None
    starting_points: Annotated[
        int | None,
        typer.Option(
            "--starting-points",
            min=1,
            help="Images of a class that rays lead to.",
            show_default="as many as the queries allow, at most 10 for mbd, 20 for bd",
        ),
    ] = None
    order: Annotated[
        Literal["nearest", "random"] | None,
        typer.Option("--order", help="How these images are chosen.", show_default="nearest"),
    ] = None
    candidate_pool: Annotated[
        int | None,
        typer.Option(
            "--candidate-pool",
            min=1,
            help="Maximum number of images that starting points are chosen from. A larger data set "
            "is sampled evenly over its classes.",
            show_default="20000",
        ),
    ] = None
    targets: Annotated[
        int | None,
        typer.Option(
            "--targets",
            min=1,
            help="Search only this many classes per sample, those with the nearest images, and "
            "estimate the distances to the others.",
            show_default="all",
        ),
    ] = None
    mixup_rounds: Annotated[
        int | None,
        typer.Option(
            "--mixup-rounds",
            min=0,
            help="Rounds of bd towards mixtures of the best point and the starting points.",
            show_default="0",
        ),
    ] = None
    surrogate: Annotated[
        Path | None,
        typer.Option(
            "--surrogate",
            help="File of a torch network that has learned the teacher's decisions (see db3kd "
            "surrogate). mbd follows its boundaries first and needs far fewer queries.",
        ),
    ] = None
    snapshots: Annotated[
        str,
        typer.Option(
            "--snapshots", help="Also store the distances at these queries per pair: 100,200,400."
        ),
    ] = ""
    seed: Seed = 0

    def settings(self, budget: "BudgetOptions") -> "LabelSettings":
        """Returns the settings of the run."""
        from db3kd.labelling.settings import LabelSettings

        make = LabelSettings.paper if self.preset else LabelSettings
        changes = given(
            starting_points=self.starting_points,
            order=self.order,
            candidate_pool=self.candidate_pool,
            targets=self.targets,
            mixup_rounds=self.mixup_rounds,
            snapshots=parse_counts(self.snapshots) or None,
            queries_per_pair=budget.queries_per_pair,
            queries_per_sample=budget.queries_per_sample,
            queries=budget.queries,
        )
        return make(measure=self.measure, seed=self.seed, **changes)


@dataclass(frozen=True, kw_only=True)
class BudgetOptions(OptionSet):
    """What a run may spend, and what it will."""

    panel = "Budget"

    queries: Annotated[
        int | None,
        typer.Option(
            "--budget",
            min=0,
            help="Maximum queries of the whole run, divided over the samples.",
            rich_help_panel=COMMON,
        ),
    ] = None
    queries_per_sample: Annotated[
        int | None,
        typer.Option(
            "--queries-per-sample", min=0, help="Maximum queries per sample, its decision included."
        ),
    ] = None
    queries_per_pair: Annotated[
        int | None,
        typer.Option(
            "--queries-per-pair",
            min=0,
            help="Maximum queries per sample and class.",
            show_default="1000",
        ),
    ] = None
    consistency_checks: Annotated[
        int,
        typer.Option(
            "--consistency-checks",
            min=0,
            help="Maximum queries that ask for known answers again (at the start, before resuming "
            "and at the end) to find a teacher that is noisy or was replaced. 0 turns them off.",
        ),
    ] = 32
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changed-teacher",
            help="Resume although the teacher's answers have changed, and mix both.",
        ),
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what the run would ask, take and cost, from a few real queries, and write "
            "nothing.",
            rich_help_panel=COMMON,
        ),
    ] = False
    dry_run_queries: Annotated[
        int, typer.Option("--dry-run-queries", min=0, help="Maximum real queries of --dry-run.")
    ] = 400
    price: Annotated[
        float | None,
        typer.Option(
            "--price-per-1000", min=0, help="Price of 1,000 queries, for the cost in --dry-run."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SoftLabelOptions(OptionSet):
    """Soft labels that are written with the distances."""

    panel = "Soft labels"

    normalisation: Annotated[
        Literal["margin", "inverse"],
        typer.Option(
            "--normalisation",
            help="margin: -scale·distance as logits; inverse: the paper's 1/distance, written with "
            "the distances.",
        ),
    ] = "margin"
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale", help="Write margin soft labels of this scale. By default distill chooses it."
        ),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            help="Temperature of the soft labels.",
            show_default="margin: 4, inverse: 20",
        ),
    ] = None

    def settings(self) -> "SoftLabelSettings | None":
        """Returns how soft labels are made; None if margin soft labels have no scale yet."""
        from db3kd.labelling.soft_labels import DEFAULT_TEMPERATURE, SoftLabelSettings

        if self.normalisation == "inverse" and self.scale is not None:
            raise ValueError("scale: needs --normalisation margin; inverse has no scale")
        if self.normalisation == "margin" and self.scale is None:
            if self.temperature is not None:
                raise ValueError("temperature: margin soft labels are written only with a --scale")
            return None
        temperature = self.temperature
        if temperature is None:
            temperature = DEFAULT_TEMPERATURE[self.normalisation]
        scale = 1.0 if self.scale is None else self.scale
        return SoftLabelSettings(self.normalisation, scale, temperature)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(OptionSet):
    """Which processes label."""

    panel = "Workers"

    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=1,
            help="Processes that label, each with its own teacher, through Ray (extra ray). Labels "
            "and queries do not depend on their number; a rate limit applies to each.",
        ),
    ] = 1
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            help="Ray cluster of the workers, HOST:PORT or auto; this machine by default. Its "
            "machines need the same files and the disk of --out. Its token is read from "
            "RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token.",
        ),
    ] = None
    concurrent_chunks: Annotated[
        int | None,
        typer.Option(
            "--concurrent-chunks",
            min=1,
            help="Shards that one process searches at the same time, so that a GPU does not wait. "
            "A kill may cost one call of the teacher for each.",
            show_default="2 on CUDA, else 1",
        ),
    ] = None

    def pool(self, make_teacher: "Callable[[], Teacher]", device: str) -> "Workers | None":
        """Returns the workers of the run; None if this process labels."""
        from db3kd.labelling.worker_pool import Workers, import_ray

        if self.workers == 1 and self.ray_address is None:
            return None
        import_ray()
        return Workers(self.workers, self.ray_address, device != "cpu", make_teacher)


@expand_option_sets
def label(
    teacher: TeacherOptions,
    images: ImageOptions,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            help="Folder of the run: a manifest and Parquet shards. It must be new, except with "
            "--resume.",
        ),
    ],
    search: SearchOptions,
    budget: BudgetOptions,
    soft_labels: SoftLabelOptions,
    workers: WorkerOptions,
    resume: Resume = False,
    split: Split = "train",
    limit: Limit = None,
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
    from db3kd.labelling.dry_run import estimate_run
    from db3kd.labelling.run_writer import write_run
    from db3kd.labelling.sample_choice import draw_samples
    from db3kd.storage.manifest import read_manifest
    from db3kd.storage.run_folder import check_free, holds_run

    settings, soft_label_settings = search.settings(budget), soft_labels.settings()
    check_free(out, resume)
    before = read_manifest(out) if holds_run(out) else None
    source = images.source(split)
    loaded = source.load()
    anywhere = replace(teacher, teacher=_absolute(teacher.teacher))
    pool = workers.pool(partial(anywhere.open, loaded), teacher.device)
    asked = teacher.open(loaded)
    network = None
    if search.surrogate is not None:
        network = _surrogate(search.surrogate, loaded, asked, teacher.trust_code)
    if budget.dry_run:
        chosen = loaded.subset(draw_samples(len(loaded), limit, search.seed))
        estimate = estimate_run(asked, chosen, settings, budget.dry_run_queries, surrogate=network)
        shards = math.ceil(len(chosen) / chunk_size(asked, settings))
        print_estimate(estimate, min(workers.workers, shards), budget.price)
        return
    with hint_at_resuming(out):
        totals = write_run(
            out,
            asked,
            source,
            settings,
            limit=limit,
            soft_labels=soft_label_settings,
            resume=resume,
            workers=pool,
            concurrent_chunks=workers.concurrent_chunks,
            surrogate=network,
            consistency_checks=budget.consistency_checks,
            accept_changes=budget.accept_changes,
        )
    _report(totals, before, out)


def _report(totals: "Totals", before: dict[str, Any] | None, out: Path) -> None:
    """Prints what a run measured, and ends with status 3 if the teacher contradicted itself.

    Args:
        totals: Of the run.
        before: The manifest before this command, if there was one.
        out: Folder of the run.
    """
    from db3kd.labelling.consistency import describe_checks, is_inconsistent, queries_of_checks
    from db3kd.storage.manifest import MANIFEST, read_manifest
    from db3kd.storage.run_folder import queries_in_flight

    after = read_manifest(out)
    if after == before:
        print("nothing to do  the run was already finished")
    _print_summary(totals, queries_in_flight(after), out)
    if asked_again := queries_of_checks(after):
        print(f"checks         {asked_again} more queries; {describe_checks(after)}")
    if is_inconsistent(after) or totals.statuses["contradictory"]:
        print(
            "error: the teacher gave different answers to the same images; "
            f"{out / MANIFEST} states how many",
            file=sys.stderr,
        )
        raise typer.Exit(INCONSISTENT)


def _absolute(teacher: str) -> str:
    """Returns the absolute path of a file, for workers in another folder; other names unchanged."""
    return str(Path(teacher).absolute()) if Path(teacher).exists() else teacher


def _surrogate(file: Path, images: "ImageSet", teacher: "Teacher", trust_code: bool) -> "nn.Module":
    """Loads a surrogate, which must number its classes as the teacher does."""
    from db3kd.teachers import ModuleTeacher
    from db3kd.teachers.base import class_names_of

    found = ModelFileOptions(trust_code=trust_code).load(str(file), images, "cpu")
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
