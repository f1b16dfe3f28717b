"""The `db3kd synthesize` command."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from db3kd.cli.errors import naming_options
from db3kd.cli.options.sets import OptionSet, common_option, expand_option_sets, refuse_options
from db3kd.cli.options.shared import PlanOptions, ResumeOptions, Seed, given, parse_counts
from db3kd.cli.options.teacher import TeacherOptions
from db3kd.cli.outputs import check_run_folder, hint_at_resuming
from db3kd.cli.plan_output import (
    price_text,
    print_answered,
    print_paid_twice,
    print_training_time,
)
from db3kd.cli.rows import WIDE, print_row
from db3kd.wording import also_paid, counted

if TYPE_CHECKING:
    from db3kd.synthesis.sample_run import SynthesisTotals
    from db3kd.synthesis.settings import SynthesisSettings

STARTS = ("paper", "low-frequency", "shapes", "strokes", "blends", "palettes", "collages", "mixed")
"""The same as `db3kd.synthesis.starts.STARTS`, so that `--help` need not import torch."""


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions(OptionSet):
    """How pseudo samples are made."""

    panel = "Pseudo samples"

    preset: Annotated[
        Literal["guided", "plain", "paper"],
        common_option(
            help="How to make images: chosen by students that learn the answers (guided), at "
            "random (plain), or as in the paper (paper)."
        ),
    ] = "guided"
    acquisition_model: Annotated[
        str | None,
        typer.Option(
            help="Network of the students that choose images with --preset guided.",
            show_default="lenet5-half",
        ),
    ] = None
    samples: Annotated[
        int | None,
        common_option(
            min=1,
            help="Number of pseudo samples.",
            show_default="guided: 100,000, plain: 20,000, paper: 80,000",
        ),
    ] = None
    queries: Annotated[
        int | None,
        common_option("--budget", min=1, help="Maximum number of queries for all pseudo samples."),
    ] = None
    starts: Annotated[
        str | None,
        typer.Option(
            help=f"Kind of random images: {', '.join(STARTS)}.", show_default="mixed; paper: paper"
        ),
    ] = None
    effort: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Maximum number of random images to query, as a multiple of --samples.",
            show_default="1; paper: 1,000",
        ),
    ] = None
    moves: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Maximum number of moves of a sample away from the boundary.",
            show_default="0; paper: 40",
        ),
    ] = None
    queries_per_move: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Approximate number of queries before each move.",
            show_default="50; paper: 5,000",
        ),
    ] = None
    queries_per_sample: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Maximum number of queries to move each sample.",
            show_default="no limit; paper: 201,200",
        ),
    ] = None
    snapshots: Annotated[
        str, typer.Option(help="Also store images and distances after these moves: 0,5,10.")
    ] = ""
    seed: Seed = 0

    def settings(self) -> "SynthesisSettings":
        """Returns the settings of the preset with the given options applied.

        Raises:
            ValueError: If an option would have no effect.
        """
        from db3kd.synthesis.settings import SynthesisSettings

        if self.preset != "guided":
            refuse_options(self, "needs --preset guided", "acquisition_model")
        settings = {
            "guided": SynthesisSettings.guided(self.acquisition_model or "lenet5-half"),
            "plain": SynthesisSettings(),
            "paper": SynthesisSettings.paper(),
        }[self.preset]
        if not (settings.moves.count if self.moves is None else self.moves):
            needs = "needs --moves of at least 1"
            refuse_options(self, needs, "queries_per_move", "queries_per_sample", "snapshots")
        moves = dataclasses.replace(
            settings.moves,
            **given(
                count=self.moves,
                queries_per_move=self.queries_per_move,
                queries_per_sample=self.queries_per_sample,
            ),
        )
        changes = given(
            samples=self.samples,
            starts=self.starts,
            effort=self.effort,
            queries=self.queries,
            snapshots=parse_counts(self.snapshots) or None,
        )
        return dataclasses.replace(settings, moves=moves, seed=self.seed, **changes)


@expand_option_sets
def synthesize(
    teacher: TeacherOptions,
    out: Annotated[
        Path, typer.Option(help="Folder of the run, new or empty unless --resume is given.")
    ],
    synthesis: SynthesisOptions,
    plan: PlanOptions,
    resuming: ResumeOptions,
) -> None:
    """Make images for a teacher from its decisions alone.

    The maximum number of queries is printed before the first one; --dry-run stops there. The run is
    a data set that db3kd label and db3kd distill accept as --data.

    For example:

        db3kd synthesize --teacher teacher.safetensors --samples 20000 --out runs/pseudo

        db3kd synthesize --teacher teacher.safetensors --samples 1000 --moves 10
        --snapshots 0,5,10 --out runs/moved
    """
    from db3kd.data.pseudo_samples import PSEUDO_SAMPLES
    from db3kd.pipelines.student_training.time_limit import seconds_of_choosing
    from db3kd.storage.existing_runs import queries_paid_twice
    from db3kd.storage.run_comparison import compare_with_runs
    from db3kd.synthesis.sample_run import (
        expected_samples,
        queries_of_sample_run,
        write_samples,
    )

    resuming.check()
    resume = resuming.resume
    settings = synthesis.settings()
    check_run_folder(out, resume, PSEUDO_SAMPLES.format)
    opened = teacher.open()
    if resume:  # a refused run is refused before a plan that looks accepted
        expected = expected_samples(out, opened, settings)
        compare_with_runs([expected], any_teacher=resuming.accept_changed_teacher)
    samples = counted(settings.samples, "pseudo sample")
    most = "no maximum number of queries; --budget or --queries-per-sample sets one"
    if (queries := settings.max_queries) is not None:
        most = f"at most {counted(queries, 'query')}{price_text(queries, plan.price_per_1000)}"
    print_row("plan", f"{samples}, {most}", WIDE)
    so_far = queries_of_sample_run(out) if resume else None
    if so_far is not None:
        print_answered(so_far, queries, plan.price_per_1000, width=WIDE)
        sys.stdout.flush()  # progress is written to stderr
    if plan.dry_run:
        if so_far is None or not so_far.finished:
            seconds = seconds_of_choosing(opened, settings)
            if seconds:
                print_training_time(seconds, "of the students that choose the images")
        print_row("dry run", "no query was sent; nothing was written", WIDE)
        return
    folder = out.absolute()  # a teacher may change the working directory
    with naming_options(model="--acquisition-model"), hint_at_resuming(folder):
        totals = write_samples(
            opened,
            settings,
            out,
            resume=resume,
            accept_changed_teacher=resuming.accept_changed_teacher,
        )
    paid_twice = queries_paid_twice(folder)
    _print_totals(totals, plan.price_per_1000, paid_twice)
    print_paid_twice(paid_twice, WIDE)
    print_row("written to", out, WIDE)


def _print_totals(totals: "SynthesisTotals", price_per_1000: float | None, paid_twice: int) -> None:
    """Prints what a run of pseudo samples made and what it cost."""
    statuses = ", ".join(f"{count:,} {status}" for status, count in totals.statuses.items())
    print_row("pseudo samples", f"{totals.samples:,}: {statuses}", WIDE)
    print_row(
        "queries",
        f"{totals.queries:,}, of which {totals.start_queries:,} for starts"
        f"{price_text(totals.queries, price_per_1000)}"
        f"{also_paid(paid_twice, totals.queries, price_per_1000)}",
        WIDE,
    )
    print_row("by class", ", ".join(f"{count:,}" for count in totals.kept), WIDE)
    if totals.mean_distance is not None:
        print_row(
            "mean distance", f"{totals.mean_distance:.3f} (L2), {totals.mean_moves:.1f} moves", WIDE
        )
    if totals.unreached:
        print_row(
            "not reached",
            f"classes {', '.join(map(str, totals.unreached))}: no image was found",
            WIDE,
        )
