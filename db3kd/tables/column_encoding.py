"""The values of one column as dimensions of unit vectors, and the other way round."""

import numpy as np

from db3kd.tables.checks import InvalidValueError, check_no_missing
from db3kd.tables.column_dtypes import held_bounds, holds_only_whole, number_dtype
from db3kd.tables.feature import Feature
from db3kd.tables.places import column_named, row_numbered
from db3kd.wording import shortened


def nearest_valid(feature: Feature, numbers: np.ndarray) -> np.ndarray:
    """Returns the nearest valid numbers of a feature, [n] float64."""
    assert feature.lower is not None and feature.upper is not None
    if not _is_whole(feature):
        return numbers.clip(feature.lower, feature.upper)
    return np.rint(numbers).clip(np.ceil(feature.lower), np.floor(feature.upper))


def invalid_number(feature: Feature, numbers: np.ndarray, valid: np.ndarray) -> InvalidValueError:
    """Returns the error about the first number that is not valid."""
    assert feature.lower is not None and feature.upper is not None
    row = int(np.flatnonzero(valid != numbers)[0])
    number = float(numbers[row])
    if feature.lower <= number <= feature.upper:
        expected, declared = "whole numbers", "the feature continuous with a dtype of floats"
    else:
        expected = f"{feature.lower:,.10g} to {feature.upper:,.10g}"
        declared = "wider bounds"
    return InvalidValueError(
        f"{column_named(feature.name)}: expected {expected}, got {number:,.10g} in "
        f"{row_numbered(row)}",
        declared,
        can_clip=True,
    )


def as_unit(feature: Feature, numbers: np.ndarray) -> np.ndarray:
    """Returns the dimensions of valid numbers of a feature, [n, width] float32."""
    assert feature.lower is not None and feature.upper is not None
    if not feature.width:
        return np.empty((len(numbers), 0), np.float32)
    unit = (numbers - feature.lower) / (feature.upper - feature.lower)
    return unit.astype(np.float32)[:, None]


def one_hot(feature: Feature, column: np.ndarray, clip: bool) -> np.ndarray:
    """Returns the dimensions of a categorical feature, [n, width] float32."""
    assert feature.values is not None
    place = {value: number for number, value in enumerate(feature.values)}
    found = list(column) if column.dtype.kind == "O" else column.tolist()
    places = np.empty(len(found), np.int64)
    for row, value in enumerate(found):
        try:
            places[row] = place[value]
        except (KeyError, TypeError):
            check_no_missing(feature.name, found)
            shown = shortened(map(repr, feature.values))
            why = ", and a category cannot be clipped" if clip else ""
            raise InvalidValueError(
                f"{column_named(feature.name)}: expected one of {shown}, got {value!r} in "
                f"{row_numbered(row)}{why}",
                "it as a value of the feature",
                can_clip=False,
            ) from None
    unit = np.zeros((len(found), len(place)), np.float32)
    unit[np.arange(len(found)), places] = 1
    return unit if feature.width else unit[:, :0]


def decode_column(feature: Feature, valid: np.ndarray) -> np.ndarray:
    """Returns the values of one feature, [n], from its dimensions in projected unit vectors."""
    dtype = number_dtype(str(feature.dtype))
    if feature.values is not None:
        values = np.array(feature.values, dtype or object)
        return values[valid.argmax(1) if feature.width else np.zeros(len(valid), np.int64)]
    assert feature.lower is not None and feature.upper is not None
    dtype = dtype or np.dtype(np.float64)  # pandas converts it to a dtype such as Sparse[float64]
    share = valid[:, 0] if feature.width else np.zeros(len(valid))
    numbers = feature.lower * (1 - share) + feature.upper * share  # Exact at both ends.
    if _is_whole(feature):
        numbers = np.rint(numbers)
    return numbers.clip(*held_bounds(dtype, feature.lower, feature.upper)).astype(dtype)


def _is_whole(feature: Feature) -> bool:
    """Returns whether the values of a feature of numbers are whole."""
    dtype = number_dtype(str(feature.dtype))
    return feature.kind == "integer" or (dtype is not None and holds_only_whole(dtype))
