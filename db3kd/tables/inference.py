"""The rules by which features are inferred from the values of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from db3kd.arguments.plain import check_choice
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.tables.checks import (
    MissingValueError,
    advice_on_dates,
    check_no_missing,
    check_numbers,
    check_whole,
    first_missing,
)
from db3kd.tables.column_dtypes import number_dtype
from db3kd.tables.columns import Columns
from db3kd.tables.feature import (
    KINDS,
    MAX_STEPS,
    MAX_WHOLE,
    Feature,
    Kind,
    Value,
    large_integers_error,
    plain_value,
)
from db3kd.tables.places import column_named, in_files, row_numbered, table_named
from db3kd.wording import counted, did_you_mean

_FREE_CATEGORIES = 20
"""Up to this many different values are categories, whatever the number of rows."""


def infer_features(
    columns: Columns,
    kinds: Mapping[str, Kind],
    bounds: Mapping[str, tuple[float, float]],
    values: Mapping[str, Sequence[Any]],
) -> list[Feature]:
    """Infers the feature of each column; see `Features.infer`.

    Raises:
        TypeError: If a column has values that cannot be features.
        ValueError: If values are missing or infinite, or contradict a declaration.
    """
    for argument, given in (("kinds", kinds), ("bounds", bounds), ("values", values)):
        for name in given:
            if name not in columns.names:
                known = ", ".join(columns.names)
                suggestion = did_you_mean(name, columns.names)
                raise ArgumentError(
                    argument, f"expected names among {known}, got {name!r}{suggestion}"
                )
    if not columns.arrays or not len(columns.arrays[0]):
        raise ArgumentError(
            table_named("table"), "expected at least one row and one column, got none"
        )
    try:
        return _features_of(columns, kinds, bounds, values)
    except MissingValueError as error:
        gaps = [
            name
            for name, column in zip(columns.names, columns.arrays, strict=True)
            if first_missing(list(column)) is not None and column_named(name) != error.argument
        ]
        raise MissingValueError(error.argument, error.found, gaps) from None


def _features_of(
    columns: Columns,
    kinds: Mapping[str, Kind],
    bounds: Mapping[str, tuple[float, float]],
    values: Mapping[str, Sequence[Any]],
) -> list[Feature]:
    features = []
    for number, name in enumerate(columns.names):
        column, dtype = columns.arrays[number], columns.dtypes[number]
        declared = values.get(name, columns.categories[number])
        kind = kinds.get(name, _kind(name, column, declared))
        check_choice(kind, f"kinds[{name!r}]", KINDS)
        if kind == "categorical":
            if name in bounds:
                raise ArgumentError(
                    f"bounds[{name!r}]", "the feature is categorical; declare values instead"
                )
            found = list(column) if column.dtype.kind == "O" else column.tolist()
            features.append(
                Feature.categorical(name, _categories(name, found, declared), _not_text(dtype))
            )
            continue
        if name in values:
            raise ArgumentError(
                f"values[{name!r}]", f"the feature is {kind}; declare bounds instead"
            )
        features.append(_numeric(name, column, kind, bounds.get(name), _numeric_dtype(dtype)))
    return features


def _kind(name: str, column: np.ndarray, declared: Sequence[Any] | None) -> Kind:
    if declared is not None or column.dtype.kind in "bOUS":
        return "categorical"
    numbers = check_numbers(name, column)
    whole = np.array_equal(numbers, np.rint(numbers))
    if not whole or np.ptp(numbers) > MAX_STEPS:
        return "continuous"
    large = np.abs(numbers) > MAX_WHOLE
    if column.dtype.kind in "iu" and large.any():
        row = int(large.argmax())
        raise large_integers_error(column_named(name), f"{column[row]} in {row_numbered(row)}")
    return "continuous" if large.any() else "integer"


def _numeric(
    name: str,
    column: np.ndarray,
    kind: Kind,
    bounds: tuple[float, float] | None,
    dtype: str | None,
) -> Feature:
    numbers = check_numbers(name, column)
    if kind == "integer":
        check_whole(name, numbers)
    least, most = float(numbers.min()), float(numbers.max())
    feature = Feature(name, kind, *(bounds or (least, most)), dtype=dtype).with_checked_dtype()
    assert feature.lower is not None and feature.upper is not None
    if least < feature.lower or most > feature.upper:
        raise ArgumentError(
            f"bounds[{name!r}]",
            f"expected bounds around the values of the column, {least:,.10g} to "
            f"{most:,.10g}, got {feature.lower:,.10g} to {feature.upper:,.10g}",
        )
    return feature


def _categories(name: str, found: list[Any], declared: Sequence[Any] | None) -> list[Value]:
    check_no_missing(name, found)
    different: dict[Value, Value] = {}
    for row, each in enumerate(found):
        value = plain_value(each, column_named(name), f" in {row_numbered(row)}")
        equal = different.setdefault(value, value)
        if type(value) is not type(equal):  # the decoded table would have only one of them
            raise ArgumentTypeError(
                column_named(name),
                f"expected equal values to have the same type, got "
                f"{equal!r} and {value!r} in {row_numbered(row)}; convert the column",
            )
    if declared is not None:
        values = [plain_value(value, f"values[{name!r}]") for value in declared]
        unknown = [value for value in different if value not in values]
        if unknown:
            raise ArgumentError(
                f"values[{name!r}]",
                f"expected all values of the column, but {unknown[0]!r} is missing",
            )
        return values
    if len(different) > max(_FREE_CATEGORIES, len(found) // 2):
        declare = f"declare values={{{name!r}: ...}}"
        if in_files():
            declare = "pass features= that declare them, or that lack the column"
        raise ArgumentError(
            column_named(name),
            f"expected categories that repeat, got {len(different):,} different values in "
            f"{counted(len(found), 'row')}{advice_on_dates(found[0])}; leave the column out, group "
            f"its values, or {declare}",
        )
    return sorted(different, key=lambda value: (isinstance(value, str), value))


def _not_text(dtype: str | None) -> str | None:
    """Leaves the dtype of strings to the values."""
    return None if dtype in ("object", "str") else dtype


def _numeric_dtype(dtype: str | None) -> str | None:
    """Leaves the dtype of numbers in a column of another dtype to the feature."""
    return None if dtype is None or number_dtype(dtype) is None else dtype
