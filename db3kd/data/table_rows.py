"""The features of rows that a teacher is asked about."""

from typing import Any

from db3kd.tables import Features, Projection
from db3kd.teachers.base import Teacher, describe


def features_of(teacher: Teacher, images: Any) -> Features | None:
    """Returns the features of a table: the teacher's, or else those of the images; None without.

    Args:
        teacher: A teacher; a `TabularTeacher` has features.
        images: A tensor or an image source; an `ImageSet` of a table has features.

    Raises:
        ValueError: If the images were encoded by other features than the teacher decodes with.
    """
    known: Features | None = getattr(teacher, "features", None)
    encoded: Features | None = getattr(images, "features", None)
    if known is None or encoded is None or known == encoded:
        return encoded if known is None else known
    raise ValueError(
        f"images: expected rows that were encoded by the features of teacher {describe(teacher)}, "
        f"got others, {_difference(known, encoded)}; encode them with features=teacher.features"
    )


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
