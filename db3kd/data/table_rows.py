"""The features of rows that are queried, and tables as images."""

from typing import Any

import numpy as np
import torch

from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import TensorImages
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.tables import Features, Projection, Table
from db3kd.tables.checks import InvalidValueError, check_numbers
from db3kd.tables.columns import read_columns
from db3kd.tables.places import column_named, row_numbered
from db3kd.teachers.base import Teacher, describe
from db3kd.teachers.functions.tabular import fitted_columns


def features_of(teacher: Teacher, *images: Any) -> Features | None:
    """Returns the features of a table: the teacher's, or else those of the images; None without.

    Args:
        teacher: A teacher; a `TabularTeacher` has features.
        images: Image sources; an `ImageSet` of a table has features.

    Raises:
        ValueError: If images were encoded by other features than the teacher decodes with, or than
            other images.
    """
    known = Features.of(teacher)
    owner, advice = f"teacher {describe(teacher)}", "teacher.features"
    for rows in images:
        encoded = Features.of(rows)
        if known is None and encoded is not None:
            known, owner, advice = encoded, rows.name, "images.features"
        if encoded is not None and known != encoded:
            assert known is not None  # set above
            raise ArgumentError(
                "images",
                f"expected rows that were encoded by the features of {owner}, got others "
                f"in {rows.name}, {_difference(known, encoded)}; load them with these features, "
                f"{advice}",
            )
    return known


def projection_of(teacher: Teacher, images: Any) -> Projection | None:
    """Returns the projection to unit vectors of valid rows, or None for images.

    Raises:
        ValueError: See `features_of`.
    """
    features = features_of(teacher, images)
    return None if features is None else features.project


def table_as_images(table: Table, teacher: Any) -> ImageSet | TensorImages:
    """Converts a table to rows that the teacher accepts.

    Args:
        table: The table; only the columns that the teacher names are read.
        teacher: A teacher, or a fitted model with a method `predict`. The features of a model are
            inferred from the table.

    Returns:
        The encoded rows; all columns as a tensor [n, F] if the teacher has no features.

    Raises:
        TypeError: If a column does not hold what the teacher takes.
        ValueError: If a column is missing, or a value is missing or invalid.
    """
    features = Features.of(teacher)
    if features is None and is_model(teacher):
        features = Features.infer(table, names=fitted_columns(teacher))
    if features is not None:
        try:
            return ImageSet.from_table(table, features=features)
        except InvalidValueError as error:
            raise error.advising(
                "pass a db3kd.TabularTeacher whose features declare {}",
                "pass db3kd.ImageSet.from_table(table, features=features, clip=True) with the "
                "features of the teacher",
            ) from None
    columns = read_columns(table)
    try:
        numbers = [
            _only_numbers(name, column)
            for name, column in zip(columns.names, columns.arrays, strict=True)
        ]
    except TypeError as error:
        raise ArgumentTypeError(
            "images",
            f"{error}, because the teacher has no features; wrap its model: "
            "db3kd.TabularTeacher(model, db3kd.Features.infer(table))",
        ) from None
    return TensorImages(torch.from_numpy(np.stack(numbers, axis=1).astype(np.float32)))


def is_model(value: Any) -> bool:
    """Returns whether a value is a fitted model of rows, as scikit-learn has them, no teacher."""
    return (
        callable(getattr(value, "predict", None))
        and not hasattr(value, "decide")
        and not isinstance(value, type)
    )


def _only_numbers(name: str, column: np.ndarray) -> np.ndarray:
    for row, value in enumerate(column.tolist()):
        if isinstance(value, str):  # also "1", which check_numbers would convert
            raise ArgumentTypeError(
                column_named(name), f"expected numbers, got {value!r} in {row_numbered(row)}"
            )
    return check_numbers(name, column)


def _difference(known: Features, encoded: Features) -> str:
    """Returns what two unequal sets of features differ in first."""
    if known.names != encoded.names:
        return f"with the columns {', '.join(encoded.names)} instead of {', '.join(known.names)}"
    for one, other in zip(known, encoded, strict=True):
        if one != other:
            return f"first {other} instead of {one}"
    return "for rows in a NumPy array instead of a DataFrame, or the other way round"
