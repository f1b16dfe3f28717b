"""Checks of the values of a column."""

import re
from collections.abc import Sequence
from datetime import date
from numbers import Number
from typing import Any

import numpy as np

from db3kd.errors import ArgumentError, ArgumentTypeError, InputError
from db3kd.tables.places import column_named, row_numbered
from db3kd.wording import shortened


class MissingValueError(ArgumentError):
    """A value of a table is missing.

    Args:
        argument: The column.
        found: What was expected, and what was found.
        others: The names of other columns with missing values.
    """

    def __init__(self, argument: str, found: str, others: Sequence[str] = ()) -> None:
        self.found = found
        too = f"; values are missing in {shortened(map(repr, others))} too" if others else ""
        super().__init__(
            argument,
            f"{found}{too}; fill missing values before encoding, and put them back in the "
            "teacher's function if the model needs them (docs/tabular.md shows how)",
        )


class InvalidValueError(InputError):
    """A table holds a value that its feature does not allow.

    What to do depends on the function or command that reads the table, so each of them gives its
    own advice.

    Args:
        problem: What was expected, and what came in which row.
        declared: What features that allow the value would declare, such as "wider bounds".
        can_clip: Whether the value can be moved to a valid one; a category cannot.
        declare: How to pass such features, with {} in place of `declared`; empty if the features
            cannot be chosen.
        clip: How to clip the values of the table.

    Attributes:
        problem: See above.
        declare: See above.
    """

    def __init__(
        self,
        problem: str,
        declared: str,
        can_clip: bool,
        declare: str = "declare {}",
        clip: str = "pass clip=True",
    ) -> None:
        # pickle passes these to the class again
        super().__init__(problem, declared, can_clip, declare, clip)
        self.problem, self.declare = problem, declare
        self._declared, self._can_clip, self._clip = declared, can_clip, clip

    def __str__(self) -> str:
        steps = [self.declare.format(self._declared)] if self.declare else []
        if self._can_clip:
            steps.append(f"{self._clip} to use the nearest valid value")
        steps.append("leave the row out")
        *others, last = steps
        return f"{self.problem}; {', '.join([*others, f'or {last}'] if others else [last])}"

    def advising(self, declare: str, clip: str = "pass clip=True") -> "InvalidValueError":
        """Returns the error with the advice of another function; see the class."""
        return InvalidValueError(self.problem, self._declared, self._can_clip, declare, clip)


CONVERT_DATES = (
    "; convert dates to numbers, for example to days since a date, and put them back in the "
    "teacher's function if the model needs them"
)
"""What to do with dates, as the end of a message."""

_DATE = re.compile(r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3\d{4})([T ].*)?")


def advice_on_dates(value: Any) -> str:
    """Returns what to do if a value is a date, or a text that looks like one; otherwise nothing."""
    is_date = isinstance(value, date) or (isinstance(value, str) and _DATE.fullmatch(value.strip()))
    return CONVERT_DATES if is_date else ""


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
            f"expected numbers, got {column.dtype}{CONVERT_DATES}",
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
            column_named(name),
            f"expected numbers, got {value!r:.80} in {row_numbered(row)}{advice_on_dates(value)}",
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


def _missing(name: str, row: int) -> MissingValueError:
    return MissingValueError(
        column_named(name), f"expected a value in each row, got none in {row_numbered(row)}"
    )
