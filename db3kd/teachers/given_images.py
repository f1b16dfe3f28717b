"""What users pass to `decide` beside tensors: NumPy arrays of images, and tables."""

from typing import Any

import numpy as np
from torch import Tensor

from db3kd.arguments.arrays import float_tensor
from db3kd.arguments.images import check_dense, check_images
from db3kd.errors import ArgumentTypeError
from db3kd.tables import Features
from db3kd.tables.checks import InvalidValueError
from db3kd.teachers.base import Teacher, describe


def as_images(images: Any, teacher: Teacher) -> Tensor:
    """Returns the images that a user passed to `decide` as a tensor.

    Searches pass tensors of floats, which are returned unchanged. Their values are not checked,
    because this would wait for a GPU.

    Example:
        >>> as_images(np.zeros((2, 1, 8, 8)), teacher).shape
        torch.Size([2, 1, 8, 8])

    Args:
        images: A tensor or an array [N, *image_shape] of numbers inside the teacher's bounds; or,
            for a teacher with features, a DataFrame of rows.
        teacher: The teacher that was queried.

    Raises:
        TypeError: If `images` is something else.
        ValueError: If an array or a tensor of integers has another shape or values outside of the
            bounds, or if a table holds values that the features do not have.
    """
    shape, features = tuple(teacher.image_shape), Features.of(teacher)
    if isinstance(images, Tensor):
        check_dense(images)
        if images.is_floating_point():
            return images
        return check_images(images.float(), shape, teacher.bounds)
    if features is not None and hasattr(images, "columns"):
        try:
            return features.encode(images)
        except InvalidValueError as error:
            raise error.advising(
                "", "pass teacher.features.encode(table, clip=True) instead of the table"
            ) from None
    if features is None and isinstance(images, np.ndarray) and images.dtype.kind in "fiub":
        return check_images(float_tensor(images), shape, teacher.bounds)
    expected = (
        f"expected a tensor [{', '.join(map(str, ('N', *shape)))}] of teacher {describe(teacher)}"
    )
    got = type(images).__name__
    if features is not None:
        raise ArgumentTypeError(
            "images",
            f"{expected}, or a DataFrame with its columns, got {got}; encode rows of an array with "
            "teacher.features.encode(rows)",
        )
    hint = "pass np.asarray(images)"
    if hasattr(images, "columns"):
        hint = "only a teacher with features takes tables, such as db3kd.TabularTeacher"
    elif hasattr(images, "read"):
        hint = "pass images.read(range(len(images)))"
    raise ArgumentTypeError("images", f"{expected}, or a NumPy array of numbers, got {got}; {hint}")
