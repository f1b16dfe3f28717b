"""The features of rows that a teacher is asked about."""

from typing import Any

from db3kd.tables import Features, Projection
from db3kd.teachers.base import Teacher, describe


def features_of(teacher: Teacher, *images: Any) -> Features | None:
    """Returns the features of a table: the teacher's, or else those of the images; None without.

    Args:
        teacher: A teacher; a `TabularTeacher` has features.
        images: Tensors or image sources; an `ImageSet` of a table has features.

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
            raise ValueError(
                f"images: expected rows that were encoded by the features of {owner}, got others "
                f"in {rows.name}, {_difference(known, encoded)}; load them with these features, "
                f"{advice}"
            )
    return known


def projection_of(teacher: Teacher, images: Any) -> Projection | None:
    """Returns the projection to unit vectors of valid rows, or None for images.

    Args:
        teacher: See `features_of`.
        images: See `features_of`.

    Raises:
        ValueError: See `features_of`.
    """
    features = features_of(teacher, images)
    return None if features is None else features.project


def _difference(known: Features, encoded: Features) -> str:
    """Returns what two unequal sets of features differ in first."""
    if known.names != encoded.names:
        return f"with the columns {', '.join(encoded.names)} instead of {', '.join(known.names)}"
    for one, other in zip(known, encoded, strict=True):
        if one != other:
            return f"first {other} instead of {one}"
    return "for rows in a NumPy array instead of a DataFrame, or the other way round"
