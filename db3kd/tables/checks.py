"""Checks of the values of a column."""

from typing import Any

import numpy as np


class OutOfBoundsError(ValueError):
    """A number in a table is outside the bounds of its feature.

    Args:
        problem: What was expected, and what came in which row.
        advice: What to do.

    Attributes:
        problem: See above.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem


def check_numbers(name: str, column: np.ndarray) -> np.ndarray:
    """Returns the numbers of a column as float64.

    Raises:
        TypeError: If the values are not numbers.
        ValueError: If a number is missing or infinite.
    """
    if column.dtype.kind == "O":
        check_no_missing(name, list(column))
        try:
            column = np.array([float(value) for value in column])
        except (TypeError, ValueError):
            raise TypeError(f"column {name!r}: expected numbers, got other values") from None
    if column.dtype.kind in "mM":
        raise TypeError(
            f"column {name!r}: expected numbers, got {column.dtype}; convert it, for example to "
            "days since a date"
        )
    if column.dtype.kind not in "biuf":
        raise TypeError(f"column {name!r}: expected numbers, got {column.dtype}")
    numbers = column.astype(np.float64)
    broken = ~np.isfinite(numbers)
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        if np.isnan(numbers[row]):
            raise _missing(name, row)
        raise ValueError(
            f"column {name!r}: expected finite numbers, got {numbers[row]} in row {row}; replace "
            "infinite values, or leave their rows out"
        )
    return numbers


def check_no_missing(name: str, values: list[Any]) -> None:
    """Raises ValueError with the first row if a value of a column is missing."""
    for row, value in enumerate(values):
        if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
            raise _missing(name, row)


def check_whole(name: str, numbers: np.ndarray) -> None:
    """Raises ValueError with the first row if a value of an integer feature is not whole."""
    fractions = numbers != np.rint(numbers)
    if fractions.any():
        row = int(np.flatnonzero(fractions)[0])
        raise ValueError(
            f"column {name!r}: expected whole numbers, got {numbers[row]} in row {row}; declare "
            "the feature continuous"
        )


def _missing(name: str, row: int) -> ValueError:
    return ValueError(
        f"column {name!r}: expected a value in each row, got none in row {row}; fill missing "
        "values before encoding, and put them back in the teacher's function if the model needs "
        "them"
    )
