"""Tables as callers pass them, split into columns."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.tables.feature import CATEGORY, ORDERED_CATEGORY
from db3kd.tables.places import table_named
from db3kd.wording import counted

Table = Any
"""The types that are accepted as a table: a NumPy array [n, F], a pandas DataFrame, a table of
pyarrow or polars, or a scikit-learn Bunch.

The columns of an object array may have different types.
"""


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Attributes:
        names: The names of the columns.
        arrays: The values of each column, [n], with a NumPy dtype.
        dtypes: The dtype of each column as the table names it, that of the values for a sparse one;
            "ordered category" for a pandas category with an order; None for strings or objects in
            an array, whose values determine it.
        categories: The categories of each column's pandas dtype, or None.
        is_frame: Whether the table is a DataFrame.
    """

    names: tuple[str, ...]
    arrays: tuple[np.ndarray, ...]
    dtypes: tuple[str | None, ...]
    categories: tuple[list[Any] | None, ...]
    is_frame: bool


def read_columns(table: Table, names: Sequence[str] | None = None) -> Columns:
    """Splits a table into its columns.

    Args:
        table: The table.
        names: The names of the columns. Only these columns of a DataFrame are read; an array must
            have exactly this many columns. By default, the names of the DataFrame or Bunch, or
            "x0", "x1", ... for an array.

    Raises:
        TypeError: If the type of the table is not supported.
        ValueError: If a column is missing, or the shape does not fit.
    """
    if is_table(table) and not is_frame(table):
        table = table.to_pandas()
    if not is_frame(table) and hasattr(table, "feature_names") and hasattr(table, "data"):
        if names is None and not is_frame(table.data):
            names = [str(name) for name in table.feature_names]
        table = table.data
    return _of_frame(table, names) if is_frame(table) else _of_array(table, names)


def is_frame(table: Table) -> bool:
    """Returns whether the table is a pandas DataFrame."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(table, pandas.DataFrame)


def is_table(value: Any) -> bool:
    """Returns whether a value is a pandas DataFrame, or a table that can become one.

    Tables of pyarrow and polars can. A `datasets.Dataset` has no attribute `columns`: it may hold
    images.
    """
    return is_frame(value) or (hasattr(value, "to_pandas") and hasattr(value, "columns"))


def _of_frame(table: Any, names: Sequence[str] | None) -> Columns:
    known = [str(name) for name in table.columns]
    if len(set(known)) < len(known):
        repeated = next(name for name, count in Counter(known).items() if count > 1)
        raise ArgumentError(
            table_named("table"), f"expected distinct column names, got {repeated!r} twice"
        )
    names = known if names is None else names
    place = {name: number for number, name in enumerate(known)}
    missing = [name for name in names if name not in place]
    if missing:
        raise ArgumentError(
            table_named("table"),
            f"expected the columns {', '.join(names)}, got none named "
            f"{missing[0]!r} among {', '.join(known)}",
        )
    arrays, dtypes, categories = [], [], []
    for name in names:
        column = table.iloc[:, place[name]]
        if hasattr(column.dtype, "fill_value"):  # a sparse column
            column = column.sparse.to_dense()
        found = getattr(column.dtype, "categories", None)
        if found is None:
            dtypes.append(str(column.dtype))
        else:
            dtypes.append(ORDERED_CATEGORY if column.dtype.ordered else CATEGORY)
        categories.append(None if found is None else found.tolist())
        arrays.append(_plain(column))
    return Columns(tuple(names), tuple(arrays), tuple(dtypes), tuple(categories), True)


def _plain(column: Any) -> np.ndarray:
    """Returns the values of a pandas column as a NumPy array; missing values stay missing."""
    if column.dtype.kind in "biuf" and isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    if column.dtype.kind in "biuf" and not column.isna().any():  # Nullable dtypes such as Int64.
        return column.to_numpy(column.dtype.numpy_dtype)
    if column.dtype.kind in "mMc":
        return column.to_numpy()
    return column.to_numpy(object)


def _of_array(table: Any, names: Sequence[str] | None) -> Columns:
    if not isinstance(table, np.ndarray | list | tuple):
        raise ArgumentTypeError(
            "table",
            "expected a NumPy array, a pandas DataFrame, a table of pyarrow or polars, or a "
            f"scikit-learn Bunch, got {type(table).__name__}",
        )
    # NumPy would turn a list of numbers and strings into strings.
    array = table if isinstance(table, np.ndarray) else np.array(table, object)
    if array.ndim != 2 or array.dtype.names:
        raise ArgumentError("table", f"expected rows [n, F], got the shape {list(array.shape)}")
    count = array.shape[1]
    names = [f"x{number}" for number in range(count)] if names is None else names
    if len(names) != count:
        raise ArgumentError("table", f"expected {counted(len(names), 'column')}, got {count}")
    columns = [array[:, number] for number in range(count)]
    if array.dtype.kind != "O":
        dtype = None if array.dtype.kind in "US" else str(array.dtype)
        return Columns(tuple(names), tuple(columns), (dtype,) * count, (None,) * count, False)
    arrays = tuple(
        np.array(list(column)) if _only_numbers(column) else column for column in columns
    )
    return Columns(tuple(names), arrays, (None,) * count, (None,) * count, False)


def _only_numbers(column: np.ndarray) -> bool:
    values = list(column)
    booleans = [isinstance(value, bool | np.bool_) for value in values]
    if any(booleans):
        return all(booleans)
    return all(isinstance(value, int | float | np.number) for value in values)
