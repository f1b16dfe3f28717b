"""The `db3kd zero-shot` command."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from db3kd.cli.errors import naming_options
from db3kd.cli.option_sets import COMMON, OptionSet, expand_option_sets
from db3kd.cli.options import Model, PlanOptions, ResumeOptions, Seeds
from db3kd.cli.outputs import hint_at_resuming, note_new_run
from db3kd.cli.plan_output import price_text, print_paid_twice
from db3kd.cli.synthesize import SynthesisOptions, at_most_text, print_totals
from db3kd.cli.teacher_options import TeacherOptions
from db3kd.cli.training_options import BatchSize, LearningRate, Steps
from db3kd.wording import also_paid

if TYPE_CHECKING:
    from db3kd.labelling.settings import LabelSettings

_QUERIES_PER_PAIR = 60
"""The default of --queries-per-pair."""


@dataclass(frozen=True, kw_only=True)
class DistanceOptions(OptionSet):
    """How distances of the pseudo samples are measured, if they are."""

    panel = "Labels"

    measure: Annotated[
        Literal["none", "sd", "bd", "mbd"],
        typer.Option("--measure", help="Also measure distances in this way, and distil them."),
    ] = "none"
    queries_per_pair: Annotated[
        int | None,
        typer.Option(
            "--queries-per-pair",
            min=0,
            help="Maximum number of queries per sample and class for these distances.",
            show_default=str(_QUERIES_PER_PAIR),
        ),
    ] = None

    def settings(self, seed: int) -> "LabelSettings | None":
        """Returns the settings of the labelling; None if no distance is measured.

        Args:
            seed: Its seed.

        Raises:
            ValueError: If `--queries-per-pair` would have no effect.
        """
        from db3kd.labelling.settings import LabelSettings

        if self.queries_per_pair is not None and self.measure in ("none", "sd"):
            raise ValueError("queries_per_pair: needs --measure bd or mbd")
        if self.measure == "none":
            return None
        most = _QUERIES_PER_PAIR if self.queries_per_pair is None else self.queries_per_pair
        return LabelSettings(self.measure, queries_per_pair=most, seed=seed)


@expand_option_sets
def zero_shot(
    teacher: TeacherOptions,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for samples, labels, students and the report.")
    ],
    synthesis: SynthesisOptions,
    distances: DistanceOptions,
    plan: PlanOptions,
    resuming: ResumeOptions,
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            help="Real images to test students on and to train a baseline on, as for db3kd label.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    model: Model = "lenet5-half",
    seeds: Seeds = 3,
    steps: Steps = 12_000,
    batch_size: BatchSize = 128,
    learning_rate: LearningRate = 3e-3,
) -> None:
    """Train students with a teacher alone: make pseudo samples, labels, students and a report.

    The maximum number of queries is printed before the first one; --dry-run stops there. Without
    --test, students are trained but not measured. The learning rate of Adam decays to 0.

    For example:

        db3kd zero-shot --teacher teacher.safetensors --test mnist5k --out runs/zero

        db3kd zero-shot --teacher my_package.model:predict --image-shape 3,32,32 --classes 10
        --model alexnet-quarter --samples 200000 --out runs/mine
    """
    from db3kd.pipelines import ZeroShotSettings, run_zero_shot
    from db3kd.pipelines.run_layout import LABELS_FOLDER, SAMPLES_FOLDER
    from db3kd.pipelines.zero_shot.run_zero_shot import max_queries_of_parts
    from db3kd.pipelines.zero_shot.students import DECISION_FOLDERS
    from db3kd.pipelines.zero_shot.transfer_set import check_zero_shot_folder
    from db3kd.report import zero_shot_table
    from db3kd.storage.existing_runs import queries_paid_twice
    from db3kd.training.settings import TrainSettings

    settings = ZeroShotSettings(
        synthesis.settings(model),
        distances.settings(synthesis.seed),
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
    resuming.check()
    resume = resuming.resume
    check_zero_shot_folder(out, resume)
    folders = (SAMPLES_FOLDER, LABELS_FOLDER, *DECISION_FOLDERS.values())
    runs = [out / folder for folder in folders]
    note_new_run(out, resume, *runs)
    opened = teacher.open()
    with naming_options(data="--test"):
        parts = max_queries_of_parts(opened, settings, test)
    known = [queries for queries in parts.values() if queries is not None]
    total = sum(known) if len(known) == len(parts) else None
    for name, queries in parts.items():
        print(f"plan           {name}: {at_most_text(queries, plan.price_per_1000)}")
    if len(parts) > 1:
        print(f"in total       {at_most_text(total, plan.price_per_1000)}")
    if plan.dry_run:
        print("dry run        no query was sent; nothing was written")
        return
    with naming_options(data="--test", student="--model"), hint_at_resuming(*runs):
        result = run_zero_shot(
            opened,
            out,
            settings,
            test=test,
            resume=resume,
            accept_changed_teacher=resuming.accept_changed_teacher,
        )
    print_totals(result.totals, plan.price_per_1000)
    if result.rows:
        print(zero_shot_table(result.rows))
    paid_twice = queries_paid_twice(*runs)
    print(
        f"all queries    {result.queries:,}{price_text(result.queries, plan.price_per_1000)}"
        f"{also_paid(paid_twice)}"
    )
    print_paid_twice(paid_twice, 14)
    print(f"written to     {result.report}")
