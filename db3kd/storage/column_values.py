"""Checks of the values in a shard, which a checksum does not cover."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from db3kd.errors import InputError
from db3kd.storage.kinds import Kind
from db3kd.storage.shards import REPAIR

if TYPE_CHECKING:
    import pyarrow


def check_range(column: str, values: Tensor, low: float, high: float, meaning: str = "") -> None:
    """Checks that all values are in [low, high), or [low, inf] if `high` is infinite; NaN is not.

    Raises:
        ValueError: If a value is outside; the error names the first row.
    """
    below = values <= high if math.isinf(high) else values < high
    wrong = ~((values >= low) & below)
    if bool(wrong.any()):
        place = wrong.nonzero()[0].tolist()
        limit = "]" if math.isinf(high) else ")"
        raise InputError(
            f"column {column}, row {place[0]}: expected {meaning or 'values'} in "
            f"[{low:g}, {high:g}{limit}, got {values[tuple(place)].item():g}"
        )


def check_distinct(column: str, values: Tensor) -> None:
    """Checks that no value occurs twice.

    Raises:
        ValueError: If a value does; the error names it.
    """
    ordered = values.sort().values
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise InputError(f"{column}: expected each number once, got {int(twice[0])} twice")


def check_sums(column: str, values: Tensor) -> None:
    """Checks that each row [C] of numbers of at least 0 sums to 1, or is all 0.

    Raises:
        ValueError: If a row does not; the error names it.
    """
    sums = values.double().sum(1)
    wrong = ~(((sums - 1).abs() < 1e-3) | (sums == 0))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise InputError(f"column {column}, row {row}: expected a sum of 1, got {sums[row]:g}")


def read_column(table: "pyarrow.Table", name: str, dtype: torch.dtype) -> Tensor:
    """Reads a numeric column as [n], or a column of fixed-size lists as [n, length].

    Args:
        table: The table of a shard.
        name: Name of the column.
        dtype: The dtype of the result. A float dtype accepts floats only, and an integer or bool
            dtype accepts integers and booleans.

    Raises:
        KeyError: If the column is missing.
        ValueError: If the column has values of another kind, or missing values.
    """
    array = table.column(name).combine_chunks()
    width = getattr(array.type, "list_size", None)
    flat = array if width is None else array.flatten()
    values = flat.to_numpy(zero_copy_only=False)
    kinds = "biu" if not dtype.is_floating_point else "f"
    if array.null_count or flat.null_count or values.dtype.kind not in kinds:
        raise InputError(
            f"column {name}: expected {str(dtype).removeprefix('torch.')} in every row, got "
            f"{array.type} with {array.null_count + flat.null_count} missing"
        )
    found = torch.tensor(values).to(dtype)
    return found if width is None else found.reshape(len(array), width)


def invalid_shard(path: str | Path, kind: Kind, position: int, error: Exception) -> ValueError:
    """Returns the error for a shard with invalid values."""
    file = Path(path) / kind.shards(path)[position].name
    what = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    return InputError(f"{file}: does not hold valid {kind.name}: {what}; {REPAIR}")
