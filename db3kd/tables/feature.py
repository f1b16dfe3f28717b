"""`Feature`: the valid values of one column of a table."""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from db3kd.arguments.plain import check_choice
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.tables.checks import advice_on_dates
from db3kd.tables.column_dtypes import (
    held_bounds,
    holds_only_whole,
    least_and_most,
    number_dtype,
)

Kind = Literal["continuous", "integer", "categorical"]
"""The kind of a feature's values: real numbers, whole numbers, or values without an order."""

KINDS: tuple[Kind, ...] = ("continuous", "integer", "categorical")

MAX_STEPS = 2**23
"""The widest range of an integer feature. Within it, float32 distinguishes all values."""

MAX_WHOLE = 2**53 - 1
"""The largest whole number to which float64 rounds no other whole number."""

CATEGORY, ORDERED_CATEGORY = "category", "ordered category"
"""The dtypes of a feature whose column is a pandas category."""

Value = bool | int | float | str
"""A value of a categorical feature."""


@dataclass(frozen=True)
class Feature:
    """One column of a table: its name, and which values are valid.

    A feature with a single valid value is constant, and has no dimension in the unit vector.

    Example:
        >>> Feature.continuous("alcohol", 11.0, 14.9)
        >>> Feature.integer("rooms", 1, 12)
        >>> Feature.categorical("colour", ["red", "white"])

    Attributes:
        name: The name of the column.
        kind: "continuous", "integer" or "categorical".
        lower: The lowest value; None if the feature is categorical.
        upper: The highest value; None if the feature is categorical.
        values: The values of a categorical feature: strings, numbers or booleans; otherwise None.
        dtype: The dtype of the column that a model expects, as NumPy or pandas name it, such as
            "float32", "category", or "ordered category" for a pandas category with an order. By
            default float64, int64, bool or object, depending on the values. A continuous feature
            with a dtype of integers has whole numbers only.

    Raises:
        TypeError: If a value has a type that cannot be used.
        ValueError: If the bounds or values do not describe a feature.
    """

    name: str
    kind: Kind
    lower: float | None = None
    upper: float | None = None
    values: tuple[Value, ...] | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ArgumentError("name", f"expected the name of a column, got {self.name!r}")
        check_choice(self.kind, f"kind of feature {self.name!r}", KINDS)
        if self.kind == "categorical":
            self._check_values()
        else:
            self._check_bounds()
        if self.dtype is None:
            object.__setattr__(self, "dtype", self._default_dtype())

    @classmethod
    def continuous(cls, name: str, lower: float, upper: float, dtype: str | None = None) -> Self:
        """Returns a feature of real numbers in [lower, upper]."""
        return cls(name, "continuous", lower, upper, dtype=dtype).with_checked_dtype()

    @classmethod
    def integer(cls, name: str, lower: int, upper: int, dtype: str | None = None) -> Self:
        """Returns a feature of whole numbers in [lower, upper]."""
        return cls(name, "integer", lower, upper, dtype=dtype).with_checked_dtype()

    @classmethod
    def categorical(cls, name: str, values: Sequence[Value], dtype: str | None = None) -> Self:
        """Returns a feature with these values, in this order."""
        if isinstance(values, str):  # The tuple of its characters would be valid.
            raise ArgumentTypeError(
                f"feature {name!r}", f"expected a sequence of values, got {values!r}"
            )
        return cls(name, "categorical", values=tuple(values), dtype=dtype).with_checked_dtype()

    @property
    def width(self) -> int:
        """Dimensions of the feature in the unit vector: 1, one per category, or 0 if constant."""
        if self.values is not None:
            return len(self.values) if len(self.values) > 1 else 0
        return int(self.lower != self.upper)

    @property
    def unit_names(self) -> list[str]:
        """A name for each dimension of the feature: its own, or `name=value` for each category."""
        if self.values is None:
            return [self.name] * self.width
        return [f"{self.name}={value}" for value in self.values] if self.width else []

    def with_checked_dtype(self) -> Self:
        """Returns the feature itself if its dtype holds its bounds or values.

        The constructor does not check this, because stored features may have other bounds or
        dtypes, which decoding clips and replaces.

        Raises:
            ValueError: If the dtype does not hold them.
        """
        where, dtype = f"feature {self.name!r}", number_dtype(str(self.dtype))
        if dtype is None:
            if self.kind == "categorical":
                return self
            raise ArgumentError(
                where,
                f"expected a dtype of numbers, such as float64, int32 or Int64, got {self.dtype!r}",
            )
        least, most = least_and_most(dtype)
        only_whole = holds_only_whole(dtype)
        held = f"{'whole ' * only_whole}numbers that the dtype {self.dtype} holds"
        held += f", {least:,.20g} to {most:,.20g}"
        for value in self.values or ():
            if (
                isinstance(value, str)
                or not least <= value <= most
                or (only_whole and value != int(value))
            ):
                raise ArgumentError(
                    where,
                    f"expected values among the {held}, got {value!r}; declare other values, or "
                    "convert the column to a dtype that holds it",
                )
        if self.lower is not None and self.upper is not None:
            first, last = held_bounds(dtype, self.lower, self.upper)
            if first > last or self.lower < float(least) or self.upper > float(most):
                raise ArgumentError(
                    where,
                    f"expected bounds around {held}, got {self.lower:,.10g} to "
                    f"{self.upper:,.10g}; declare other bounds, or convert the column to a dtype "
                    "that holds them",
                )
        return self

    def _check_bounds(self) -> None:
        where = f"feature {self.name!r}"
        if self.values is not None:
            raise ArgumentError(where, f"only a categorical feature has values, got {self.kind}")
        bounds: list[float] = []
        for side, bound in (("lower", self.lower), ("upper", self.upper)):
            if isinstance(bound, bool | np.bool_) or not isinstance(bound, numbers.Real):
                raise ArgumentTypeError(where, f"expected a number as {side}, got {bound!r}")
            bounds.append(float(bound))
        lower, upper = bounds
        if not (lower <= upper and math.isfinite(upper - lower)):
            raise ArgumentError(where, f"expected finite lower ≤ upper, got {lower} and {upper}")
        if self.kind == "integer":
            if not (lower.is_integer() and upper.is_integer()):
                raise ArgumentError(
                    where,
                    f"expected whole numbers as bounds, got {lower} and {upper}; declare "
                    "the feature continuous if other values are valid",
                )
            if max(-lower, upper) > MAX_WHOLE:
                raise large_integers_error(where, f"{self.lower} to {self.upper}")
            if upper - lower > MAX_STEPS:
                raise ArgumentError(
                    where,
                    f"expected integers in a range of at most {MAX_STEPS:,}, which "
                    f"float32 can distinguish, got {lower:.0f} to {upper:.0f}; declare the feature "
                    "continuous",
                )
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    def _check_values(self) -> None:
        where = f"feature {self.name!r}"
        if self.lower is not None or self.upper is not None:
            raise ArgumentError(where, "a categorical feature has values, got bounds")
        if isinstance(self.values, str) or not isinstance(self.values, Sequence):
            raise ArgumentTypeError(where, f"expected a sequence of values, got {self.values!r}")
        values = tuple(plain_value(value, where) for value in self.values)
        if not values:
            raise ArgumentError(where, "expected at least one value, got none")
        seen: set[Value] = set()
        for value in values:
            if value in seen:
                raise ArgumentError(where, f"expected different values, got {value!r} twice")
            seen.add(value)
        object.__setattr__(self, "values", values)

    def _default_dtype(self) -> str:
        if self.kind == "continuous":
            return "float64"
        if self.kind == "integer":
            return "int64"
        kinds = {type(value) for value in self.values or ()}
        if kinds == {bool}:
            return "bool"
        if kinds == {int}:
            return "int64"
        return "float64" if kinds <= {int, float} else "object"


def plain_value(value: Any, where: str, row: str = "") -> Value:
    """Returns a value of a categorical feature as a plain Python value.

    Args:
        value: The value.
        where: What errors call the feature or column.
        row: The end of an error's message that says in which row the value is.

    Raises:
        TypeError: If its type cannot be used.
        ValueError: If the value is NaN.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, bool | int | float | str):
        raise ArgumentTypeError(
            where,
            f"expected strings, numbers or booleans as values, got "
            f"{type(value).__name__} {value!r}{row}{advice_on_dates(value)}",
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ArgumentError(where, f"expected a finite number, got {value}{row}")
    return value


def large_integers_error(where: str, got: str) -> ValueError:
    """Returns the error to raise for integers beyond `MAX_WHOLE`."""
    return ArgumentError(
        where,
        f"expected integers from -(2^53 - 1) to 2^53 - 1, which float64 can distinguish, "
        f"got {got}; subtract a constant from the column, or leave it out if it only identifies "
        "rows",
    )
