"""Options that several commands share."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from db3kd.arguments.plain import SEVERAL_RUNS_SEED_BITS, check_not_negative, check_seed
from db3kd.cli.options.sets import OptionSet, common_option, refuse_options
from db3kd.errors import ArgumentError
from db3kd.wording import input_noun

if TYPE_CHECKING:
    from db3kd.data.files.image_decoding import ImageSize
    from db3kd.data.image_set import ImageSet
    from db3kd.data.source import Source

MOVED_DATA_HELP = (
    "New location of the labelled data, in any form that db3kd label accepts, if the data "
    "has moved."
)
DEVICE_HELP = "auto (CUDA if there is a GPU), cpu, cuda or cuda:N."


def parse_price(price: float | None) -> float | None:
    """Returns the value of a --price-per-1000 option after a check."""
    return None if price is None else check_not_negative(price, "--price-per-1000")


def _check_seed(seed: int) -> int:
    return check_seed(seed, "--seed", bits=SEVERAL_RUNS_SEED_BITS)


Seed = Annotated[
    int, typer.Option("--seed", callback=_check_seed, help="Seed of all random numbers.")
]
Split = Annotated[
    str,
    typer.Option(
        "--split", help="Split of the data set, such as train or test.", rich_help_panel="Data"
    ),
]
RareClasses = Annotated[
    bool,
    typer.Option(
        "--rare-classes",
        help="Continue even if the first 1,000 answers, or those of a round, are all in one class.",
        rich_help_panel="Budget",
    ),
]
PricePer1000 = Annotated[
    float | None,
    typer.Option(
        "--price-per-1000",
        callback=parse_price,
        help="Price of 1,000 queries, in any currency.",
        rich_help_panel="Budget",
    ),
]
DryRun = Annotated[
    bool,
    common_option(
        "--dry-run",
        help="Print the number of queries and their price, and stop before the first query.",
    ),
]
DefaultModel = Annotated[
    str | None,
    common_option(
        "--model",
        help="Network to train: lenet5, alexnet-half, mlp, … or package.module:factory.",
        show_default="lenet5, or mlp for a table",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(OptionSet):
    """Whether a command continues a run, and with which teacher."""

    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out and keep its answers.")
    ] = False
    accept_changed_teacher: Annotated[
        bool,
        typer.Option(
            "--accept-changed-teacher",
            help="With --resume: keep the answers of the run even if the teacher has changed.",
            rich_help_panel="Teacher",
        ),
    ] = False

    def check(self) -> None:
        """Raises ValueError if a changed teacher is accepted, but no run is continued."""
        if not self.resume:
            refuse_options(self, "needs --resume", "accept_changed_teacher")


@dataclass(frozen=True, kw_only=True)
class CheckedResumeOptions(ResumeOptions):
    """Whether a run is continued, with which teacher, and how that teacher is checked."""

    consistency_checks: Annotated[
        int,
        typer.Option(
            min=0,
            help="With --resume: repeat up to this many answered queries, in addition to --budget, "
            "to detect a replaced teacher.",
            rich_help_panel="Budget",
        ),
    ] = 0

    def check(self) -> None:
        """Raises ValueError if an option has no effect, because no run is continued."""
        super().check()
        if not self.resume:
            refuse_options(self, "needs --resume", "consistency_checks")


@dataclass(frozen=True, kw_only=True)
class PlanOptions(OptionSet):
    """Whether a command only prints its queries and their price."""

    panel = "Budget"

    dry_run: DryRun = False
    price_per_1000: PricePer1000 = None


READING = ("size", "channels", "features", "label_column", "clip")
"""The fields of `ImageOptions` that say how images are read."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions(OptionSet):
    """Which images a command uses."""

    panel = "Data"

    data: Annotated[
        str,
        common_option(
            help="mnist5k, digits, cifar10, hub:NAME, a folder, a .npz or .parquet file; tables: "
            "wine, breast_cancer, iris, a .csv file."
        ),
    ]
    size: Annotated[
        str | None,
        typer.Option(
            metavar="<pixels>",
            help="Resize image files to cover this size, such as 28 or 24,32 (height,width), and "
            "crop them to their centre.",
        ),
    ] = None
    channels: Annotated[
        int | None, typer.Option(help="Read image files as grey (1) or colour (3).")
    ] = None
    features: Annotated[
        Path | None,
        typer.Option(
            help="File of a table's features: .json, .toml, or a student's .safetensors.",
            show_default="those of the model, or inferred from the table",
        ),
    ] = None
    label_column: Annotated[
        str | None,
        typer.Option(
            help="Column of a table that holds the class labels.",
            show_default="label, labels or target, if there is one",
        ),
    ] = None
    clip: Annotated[
        bool,
        typer.Option(
            "--clip",
            help="Move numbers of a table that its features do not allow to the nearest valid one, "
            "and print how many.",
        ),
    ] = False

    def source(self, split: str, *models: str | None, data: str | None = None) -> "Source":
        """Returns where the images of a split come from.

        Args:
            split: The split.
            models: The models that are asked about the images. A table is encoded by the features
                that one of them declares, or else inferred from the columns that one was fitted on.
            data: Other data to read with these options, by default those of --data.

        Raises:
            ValueError: If the images are a model, or if the features differ from those of a model.
        """
        from db3kd.cli.model_features import (
            SourceOfFittedModel,
            SourceOfModel,
            columns_of_models,
            features_of_models,
        )
        from db3kd.data.loading import may_hold_table
        from db3kd.data.source import Source
        from db3kd.tables import Features

        if data is None:
            refuse_model(self.data, "data")
            data = self.data
        given = None if self.features is None else Features.load(self.features)
        models = models if may_hold_table(data) else ()
        known = features_of_models(models, given)
        features = given if known is None else known
        values = (
            data,
            split,
            _parse_size(self.size),
            self.channels,
            None if features is None else features.to_json(),
            self.label_column,
            self.clip,
        )
        if known is not None:
            return SourceOfModel(*values)
        columns = None if features is not None else columns_of_models(models)
        return Source(*values) if columns is None else SourceOfFittedModel(*values, columns)


def _parse_size(text: str | None) -> "ImageSize | None":
    """Returns the value of a --size option."""
    if text is None:
        return None
    sides = re.fullmatch(r"([1-9]\d*)(?:,([1-9]\d*))?", text)
    if sides is None:
        raise ArgumentError(
            "size", f"expected pixels such as 28, or height and width such as 24,32, got {text!r}"
        )
    height, width = sides.groups()
    return int(height) if width is None else (int(height), int(width))


def refuse_model(data: str, option: str) -> None:
    """Raises ValueError if the value of an option for images is a model."""
    from db3kd.teachers.model_sources import is_model_source

    if is_model_source(data):
        raise ArgumentError(
            option,
            f"expected images or rows, got the model {data!r}; pass it as the teacher or student, "
            "and the images or rows as --data",
        )


def load_split_or_all(source: "Source") -> "tuple[ImageSet, str]":
    """Loads a split of a set; for "test", all of its images if it has no splits.

    Returns:
        The images, and which part of the set they are: "the test split" or "all images".
    """
    from db3kd.data.files.splits import MissingSplitError
    from db3kd.data.loading import has_splits

    if source.split != "test":
        return source.load(), f"the {source.split} split"
    if has_splits(source.data):
        try:
            return source.load(), "the test split"
        except MissingSplitError as error:
            if error.splits != ("train",):
                raise
    loaded = replace(source, split="train").load()
    return loaded, f"all {input_noun(loaded.image_shape)}s (there is no test split),"


def given(**options: Any) -> dict[str, Any]:
    """Returns the options that were given; the others are None."""
    return {name: value for name, value in options.items() if value is not None}


def parse_counts(text: str) -> tuple[int, ...]:
    """Returns the numbers of a --snapshots option."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ArgumentError(
            "snapshots", f"expected numbers such as 5,10,20, got {text!r}"
        ) from None
