"""`db3kd synthesize`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from db3kd.cli.errors import naming_options
from db3kd.cli.option_sets import COMMON, OptionSet, expand_option_sets
from db3kd.cli.options import Resume, Seed, TeacherOptions, given, hint_at_resuming, parse_counts

if TYPE_CHECKING:
    from db3kd.synthesis.sample_run import SynthesisTotals
    from db3kd.synthesis.synthesis import SynthesisSettings

STARTS = ("paper", "low-frequency", "shapes", "strokes", "blends", "mixed")
"""`db3kd.synthesis.starts.STARTS`, which `--help` lists without importing PyTorch."""


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions(OptionSet):
    """How pseudo samples are made."""

    panel = "Pseudo samples"

    preset: Annotated[
        Literal["guided", "plain", "paper"],
        typer.Option(
            "--preset",
            help="Settings to start from. guided: students of the answers so far choose what to "
            "ask; plain: random images; paper: 80,000 samples from noise, 40 moves of up to 5,000 "
            "queries each.",
            rich_help_panel=COMMON,
        ),
    ] = "guided"
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            min=1,
            help="Number of pseudo samples.",
            show_default="guided: 100,000, plain: 20,000",
            rich_help_panel=COMMON,
        ),
    ] = None
    queries: Annotated[
        int | None,
        typer.Option(
            "--budget",
            min=1,
            help="Maximum queries for all pseudo samples.",
            rich_help_panel=COMMON,
        ),
    ] = None
    starts: Annotated[
        str | None,
        typer.Option(
            "--starts",
            help=f"Distribution of random images: {', '.join(STARTS)}.",
            show_default="mixed",
        ),
    ] = None
    effort: Annotated[
        float | None,
        typer.Option(
            "--effort",
            min=1,
            help="Maximum random images asked, as a multiple of --samples. Above 1, images of "
            "common classes give way to those of rare ones.",
            show_default="1",
        ),
    ] = None
    moves: Annotated[
        int | None,
        typer.Option(
            "--moves",
            min=0,
            help="Maximum moves of a sample away from the boundary.",
            show_default="0",
        ),
    ] = None
    queries_per_move: Annotated[
        int | None,
        typer.Option(
            "--queries-per-move",
            min=0,
            help="Approximate queries to find the boundary again before a move.",
            show_default="50",
        ),
    ] = None
    queries_per_sample: Annotated[
        int | None,
        typer.Option(
            "--queries-per-sample",
            min=0,
            help="Maximum queries for the moves of a sample.",
            show_default="as many as they need",
        ),
    ] = None
    snapshots: Annotated[
        str,
        typer.Option(
            "--snapshots", help="Also store images and distances after these moves: 0,5,10."
        ),
    ] = ""
    seed: Seed = 0

    def settings(self, acquisition_model: str) -> "SynthesisSettings":
        """Returns the settings of the preset, changed by the options that were given.

        Args:
            acquisition_model: Architecture of the students that choose what to ask.
        """
        from db3kd.synthesis.synthesis import SynthesisSettings

        settings = {
            "guided": SynthesisSettings.guided(acquisition_model),
            "plain": SynthesisSettings(),
            "paper": SynthesisSettings.paper(),
        }[self.preset]
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
        Path, typer.Option("--out", help="Folder of the run. It must be new, except with --resume.")
    ],
    synthesis: SynthesisOptions,
    acquisition_model: Annotated[
        str,
        typer.Option(
            "--acquisition-model",
            help="Architecture of the students that choose what to ask; see --preset.",
            rich_help_panel="Pseudo samples",
        ),
    ] = "lenet5-half",
    resume: Resume = False,
) -> None:
    """Make images for a teacher from its decisions alone.

    The run is a data set: db3kd label --data DIR and db3kd distill take it like any other.

    Examples:

        db3kd synthesize --teacher teacher.safetensors --samples 20000 --out runs/pseudo

        db3kd synthesize --teacher teacher.safetensors --samples 1000 --moves 10
        --snapshots 0,5,10 --out runs/moved
    """
    from db3kd.storage.run_folder import check_free
    from db3kd.synthesis.sample_run import write_pseudo_samples

    settings = synthesis.settings(acquisition_model)
    check_free(out, resume)
    asked = teacher.open()
    with naming_options(model="--acquisition-model"), hint_at_resuming(out):
        totals = write_pseudo_samples(out, asked, settings, resume=resume)
    print_totals(totals)
    print(f"written to     {out}")


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
