"""A teacher's answers about augmented images, and the columns they have in a run folder."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from db3kd.distillation.augmentation import AugmentedImages
from db3kd.storage.column_values import check_range, invalid_shard, read_column
from db3kd.storage.shards import Kind, import_pyarrow

if TYPE_CHECKING:
    import pyarrow

AUGMENTED_DECISIONS = Kind("augmented-decisions", 1)
"""Runs of a teacher's answers about augmented images. Columns: `sample`, in the order they were
drawn; `number`, of its image, 0 for the sample itself; `decision`."""


def to_table(images: AugmentedImages, rows: Tensor, decisions: Tensor) -> "pyarrow.Table":
    """A shard's columns."""
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
    """The decisions in the shard at a position, int64 [n].

    Raises:
        ValueError: it holds values that no run writes; the message names file and column.
    """
    rows = torch.arange(position, position + len(table))
    per_sample = images.queries_per_sample
    try:
        if position + len(table) > len(images):
            raise ValueError(f"expected at most {len(images) - position} rows, got {len(table)}")
        for name, expected in (("sample", rows // per_sample), ("number", rows % per_sample)):
            if not read_column(table, name, torch.int64).equal(expected):
                raise ValueError(f"column {name}: expected the images in their order")
        decisions = read_column(table, "decision", torch.int64)
        check_range("decision", decisions, 0, classes, "a class")
    except (KeyError, ValueError) as error:
        raise invalid_shard(path, AUGMENTED_DECISIONS, position, error) from error
    return decisions
