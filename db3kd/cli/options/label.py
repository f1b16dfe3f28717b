"""Options of `db3kd label`: the search, its budget, its soft labels and its processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from db3kd.cli.options.sets import OptionSet, common_option, refuse_options
from db3kd.cli.options.shared import DryRun, PricePer1000, Seed, given, parse_counts
from db3kd.errors import ArgumentError

if TYPE_CHECKING:
    from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
    from db3kd.labelling.settings import LabelSettings
    from db3kd.labelling.workers.ray_cluster import Workers
    from db3kd.labels.soft_labels import SoftLabelSettings
    from db3kd.teachers import Teacher

AUTO = "auto"
"""The value of --surrogate with which a run trains its surrogate itself."""


@dataclass(frozen=True, kw_only=True)
class BudgetOptions(OptionSet):
    """What a run may spend."""

    panel = "Budget"

    queries: Annotated[
        int | None,
        common_option("--budget", min=0, help="Maximum number of queries in the whole run."),
    ] = None
    queries_per_sample: Annotated[
        int | None, typer.Option(min=0, help="Maximum number of queries per sample.")
    ] = None
    queries_per_pair: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Maximum number of queries per sample and class.",
            show_default="1,000; with --preset paper: 20,000",
        ),
    ] = None
    rare_classes: Annotated[
        bool,
        typer.Option(
            "--rare-classes",
            help="Continue even if the first 1,000 images or rows, spread over the set, are in one "
            "class.",
        ),
    ] = False
    dry_run: DryRun = False
    price: PricePer1000 = None


@dataclass(frozen=True, kw_only=True)
class SearchOptions(OptionSet):
    """How distances are measured."""

    panel = "Search"

    measure: Annotated[
        Literal["sd", "bd", "mbd"],
        common_option(
            help="Sample distance (sd), boundary distance (bd) or minimal boundary distance (mbd)."
        ),
    ] = "mbd"
    preset: Annotated[
        Literal["paper"] | None,
        typer.Option(help="Start from the paper's settings (20,000 queries per pair)."),
    ] = None
    starting_points: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of images or rows per class towards which rays lead.",
            show_default="chosen from the budget: up to 10 for mbd, 20 for bd; with --preset "
            "paper: 201, or 21 for sd",
        ),
    ] = None
    order: Annotated[
        Literal["nearest", "random"] | None,
        typer.Option(
            help="How to choose starting points.",
            show_default="nearest; with --preset paper: random",
        ),
    ] = None
    candidate_pool: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of images or rows from which starting points are chosen.",
            show_default="20000",
        ),
    ] = None
    targets: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of nearest classes to search per sample; other distances are estimated.",
            show_default="all",
        ),
    ] = None
    mixup_rounds: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With bd: extra rounds that search towards mixtures of the best point found and "
            "the starting points.",
            show_default="0",
        ),
    ] = None
    surrogate: Annotated[
        str | None,
        typer.Option(
            help="Network from db3kd surrogate, which saves queries; auto trains one within the "
            "budget, if that is worth its queries."
        ),
    ] = None
    surrogate_model: Annotated[
        str | None,
        typer.Option(
            help="Network that --surrogate auto trains, ideally of the teacher's architecture.",
            show_default="lenet5, or mlp for a table",
        ),
    ] = None
    surrogate_networks: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=16,
            help="Number of networks that --surrogate auto trains; the surrogate is their mean.",
            show_default="3",
        ),
    ] = None
    snapshots: Annotated[
        str, typer.Option(help="Also store distances after these queries per pair: 100,200,400.")
    ] = ""
    seed: Seed = 0

    def refuse_unused(self, budget: BudgetOptions) -> None:
        """Refuses options that the chosen measure does not use.

        Raises:
            ValueError: If one of them was given.
        """
        if self.measure == "sd":
            no_query = "needs --measure bd or mbd; sd sends no query for a pair"
            refuse_options(budget, no_query, "queries_per_pair")
            if self.order != "random" and self.preset is None:
                refuse_options(self, "needs --order random with --measure sd", "starting_points")
        if self.measure != "bd":
            refuse_options(self, "needs --measure bd", "mixup_rounds")

    def auto_surrogate(self, device: str) -> "AutoSurrogate | None":
        """Returns the planner of the run's own surrogate; None without --surrogate auto.

        The surrogate is trained on the teacher's device.

        Raises:
            ValueError: If a network is named that is not trained.
        """
        if self.surrogate != AUTO:
            needs = "needs --surrogate auto, which trains it"
            refuse_options(self, needs, "surrogate_model", "surrogate_networks")
            return None
        from db3kd.labelling.runs.auto_surrogate import DEFAULT_STEPS, AutoSurrogate
        from db3kd.training.settings import TrainSettings

        training = TrainSettings(steps=DEFAULT_STEPS, seed=self.seed, device=device)
        named = given(model=self.surrogate_model, networks=self.surrogate_networks)
        return AutoSurrogate(training=training, **named)

    def settings(self, budget: BudgetOptions) -> "LabelSettings":
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
class SoftLabelOptions(OptionSet):
    """Soft labels that are stored with the distances."""

    panel = "Soft labels"

    normalisation: Annotated[
        Literal["margin", "inverse"],
        typer.Option(
            help="Formula: softmax of -scale·distance (margin), or the paper's 1/distance "
            "(inverse)."
        ),
    ] = "margin"
    scale: Annotated[
        float | None,
        typer.Option(help="Scale of margin soft labels.", show_default="chosen by db3kd distill"),
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(help="Temperature of the soft labels.", show_default="margin: 4, inverse: 20"),
    ] = None

    def settings(self) -> "SoftLabelSettings | None":
        """Returns how soft labels are made; None if margin soft labels have no scale yet."""
        from db3kd.labels.soft_labels import DEFAULT_TEMPERATURE, SoftLabelSettings

        if self.normalisation == "inverse" and self.scale is not None:
            raise ArgumentError("scale", "needs --normalisation margin; inverse has no scale")
        if self.normalisation == "margin" and self.scale is None:
            if self.temperature is not None:
                raise ArgumentError(
                    "temperature", "margin soft labels are stored only with a --scale"
                )
            return None
        temperature = self.temperature
        if temperature is None:
            temperature = DEFAULT_TEMPERATURE[self.normalisation]
        scale = 1.0 if self.scale is None else self.scale
        return SoftLabelSettings(self.normalisation, scale, temperature)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(OptionSet):
    """How many worker processes label, and where they run."""

    panel = "Workers"

    workers: Annotated[
        int,
        typer.Option(
            min=1, help="Number of worker processes, each with its own teacher (needs Ray)."
        ),
    ] = 1
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster of the workers: HOST:PORT or auto, with its token in RAY_AUTH_TOKEN.",
            show_default="this machine",
        ),
    ] = None
    concurrent_chunks: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of chunks that a process searches at the same time.",
            show_default="2 on CUDA, otherwise 1",
        ),
    ] = None

    def pool(self, make_teacher: "Callable[[], Teacher]", device: str) -> "Workers | None":
        """Returns how to run the workers, or None to label in this process.

        Unless the teacher's device is "cpu", each worker gets a GPU or a share of one, if Ray has
        any.

        Raises:
            ImportError: If workers are needed and Ray is not installed.
        """
        from db3kd.labelling.workers.ray_cluster import Workers, import_ray

        if self.workers == 1 and self.ray_address is None:
            return None
        import_ray()
        return Workers(self.workers, self.ray_address, device != "cpu", make_teacher)
