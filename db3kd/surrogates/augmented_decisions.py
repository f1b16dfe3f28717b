"""A teacher's decisions for augmented images, and their columns in a run folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from db3kd.data.augmented_images import AugmentedImages
from db3kd.errors import ArgumentError, InputError
from db3kd.storage.column_values import check_range, invalid_shard, read_column
from db3kd.storage.kinds import DifferenceRules, Kind
from db3kd.storage.shards import import_pyarrow
from db3kd.wording import counted

if TYPE_CHECKING:
    import pyarrow

AUGMENTED_DECISIONS = Kind(
    "augmented-decisions", 2, differences=DifferenceRules(following=("settings.surrogate",))
)
"""The kind of run folder that holds decisions for augmented images.

The columns are `sample`, `number` (of the sample's image, 0 for the sample itself) and
`decision`. The manifest of the network beside the folder has the entry `settings.surrogate`.
"""


@dataclass(frozen=True, repr=False)
class AugmentedDecisions:
    """Augmented images, and the teacher's decision for each.

    Attributes:
        images: The images.
        decisions: [len(images)] int64; -1 if unanswered.
    """

    images: AugmentedImages
    decisions: Tensor

    def __repr__(self) -> str:
        answered = int((self.decisions >= 0).sum())
        return f"AugmentedDecisions({counted(answered, 'decision')} for {self.images!r})"


def rows_with_clean_share(images: AugmentedImages, clean_share: float) -> Tensor:
    """Returns all rows, repeating those of clean images until they reach `clean_share`.

    Args:
        images: The images.
        clean_share: Share of clean images in the result, in [0, 1). It is met approximately,
            because every clean image occurs equally often, at least once.

    Returns:
        [R] int64, for the argument `rows` of a training.

    Raises:
        ValueError: If `clean_share` is not in [0, 1).
    """
    if not 0 <= clean_share < 1:
        raise ArgumentError("clean_share", f"expected at least 0 and below 1, got {clean_share}")
    per_sample = images.queries_per_sample
    repeats = max(1, round((per_sample - 1) * clean_share / (1 - clean_share)))
    clean = torch.arange(0, len(images), per_sample)
    return torch.cat([torch.arange(len(images)), clean.repeat(repeats - 1)])


def to_table(images: AugmentedImages, rows: Tensor, decisions: Tensor) -> "pyarrow.Table":
    """Returns the columns of a shard: of `rows`, [n] int64, of all images, and their decisions."""
    arrow, _ = import_pyarrow()
    columns = {
        "sample": rows // images.queries_per_sample,
        "number": rows % images.queries_per_sample,
        "decision": decisions,
    }
    return arrow.table({name: column.numpy() for name, column in columns.items()})


def read_decisions(
    path: Path, position: int, table: "pyarrow.Table", images: AugmentedImages, classes: int
) -> Tensor:
    """Reads the decisions of a shard.

    Returns:
        [n] int64.

    Raises:
        ValueError: If the shard holds values that no run writes. The message names the file and
            the column.
    """
    rows = torch.arange(position, position + len(table))
    per_sample = images.queries_per_sample
    try:
        if position + len(table) > len(images):
            raise InputError(
                f"expected at most {counted(len(images) - position, 'row')}, got {len(table)}"
            )
        for name, expected in (("sample", rows // per_sample), ("number", rows % per_sample)):
            if not read_column(table, name, torch.int64).equal(expected):
                raise InputError(f"column {name}: expected the images in their order")
        decisions = read_column(table, "decision", torch.int64)
        check_range("decision", decisions, 0, classes, "a class")
    except (KeyError, ValueError) as error:
        raise invalid_shard(path, AUGMENTED_DECISIONS, position, error) from error
    return decisions
