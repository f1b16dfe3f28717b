"""Checks of the values of a column."""

from numbers import Number
from typing import Any

import numpy as np

from db3kd.errors import ArgumentError, ArgumentTypeError, InputError
from db3kd.tables.places import column_named, row_numbered


class OutOfBoundsError(InputError):
    """A number in a table is outside the bounds of its feature.

    Args:
        problem: What was expected, and what came in which row.
        advice: What to do.

    Attributes:
        problem: See above.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem, advice)  # what pickle passes to the class again
        self.problem = problem

    def __str__(self) -> str:
        return "; ".join(self.args)


def check_numbers(name: str, column: np.ndarray) -> np.ndarray:
    """Returns the numbers of a column as float64.

    Raises:
        TypeError: If the values are not numbers.
        ValueError: If a number is missing or infinite.
    """
    if column.dtype.kind == "O":
        check_no_missing(name, list(column))
        column = np.array([_number(name, row, value) for row, value in enumerate(column)])
    if column.dtype.kind in "mM":
        raise ArgumentTypeError(
            column_named(name),
            f"expected numbers, got {column.dtype}; convert it, for example to days since a date",
        )
    if column.dtype.kind not in "biuf":
        raise ArgumentTypeError(column_named(name), f"expected numbers, got {column.dtype}")
    numbers = column.astype(np.float64)
    broken = ~np.isfinite(numbers)
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        if np.isnan(numbers[row]):
            raise _missing(name, row)
        raise ArgumentError(
            column_named(name),
            f"expected finite numbers, got {numbers[row]} in "
            f"{row_numbered(row)}; replace infinite values, or leave their rows out",
        )
    return numbers


def _number(name: str, row: int, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentTypeError(
            column_named(name), f"expected numbers, got {value!r:.80} in {row_numbered(row)}"
        ) from None


def check_no_missing(name: str, values: list[Any]) -> None:
    """Raises ValueError with the first row if a value of a column is missing."""
    row = first_missing(values)
    if row is not None:
        raise _missing(name, row)


def first_missing(values: list[Any]) -> int | None:
    """Returns the place of the first missing value, such as None, NaN or `pandas.NA`, if any."""
    for row, value in enumerate(values):
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            return row
        if isinstance(value, Number | np.generic) and value != value:
            return row
    return None


def check_whole(name: str, numbers: np.ndarray) -> None:
    """Raises ValueError with the first row if a value of an integer feature is not whole."""
    fractions = numbers != np.rint(numbers)
    if fractions.any():
        row = int(np.flatnonzero(fractions)[0])
        raise ArgumentError(
            column_named(name),
            f"expected whole numbers, got {numbers[row]} in "
            f"{row_numbered(row)}; declare the feature continuous",
        )


def _missing(name: str, row: int) -> ValueError:
    return ArgumentError(
        column_named(name),
        f"expected a value in each row, got none in "
        f"{row_numbered(row)}; fill missing values before encoding, and put them back in the "
        "teacher's function if the model needs them",
    )
