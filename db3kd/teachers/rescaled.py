"""Maps images in [0, 1] to the bounds of a teacher."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from db3kd.arguments.images import CONVENTIONS, UNIT_BOUNDS, check_bounds, interval_text
from db3kd.arguments.plain import brief
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.teachers.base import Teacher, class_names_of, describe, teacher_repr
from db3kd.teachers.given_images import as_images

_OF_IMAGES = ("decide_async", "stream", "decide_counting_lost")
"""Members that only some teachers have, and whose first argument is images."""

_FORWARDED = (*_OF_IMAGES, "details", "close", "requests")
"""The members of the other teacher that a `RescaledTeacher` has if the other one has them."""


class RescaledTeacher:
    """A teacher that maps its images linearly to the bounds of another teacher.

    Distances are measured in the new bounds.

    Example:
        >>> RescaledTeacher(teacher)  # takes images in [0, 1] for a teacher with bounds (0, 255)

    Args:
        teacher: The other teacher, which takes images in `teacher.bounds`.
        bounds: Lowest and highest pixel value of the new teacher's images.
    """

    def __init__(self, teacher: Teacher, bounds: tuple[float, float] = UNIT_BOUNDS) -> None:
        if not hasattr(teacher, "decide"):
            raise ArgumentTypeError(
                "teacher", f"expected a teacher, got {brief(teacher)}; wrap it: db3kd.ModuleTeacher"
            )
        self.teacher = teacher
        self.bounds = check_bounds(bounds)
        self.image_shape = tuple(teacher.image_shape)
        self.classes = teacher.classes
        self.class_names = class_names_of(teacher)
        self.device = teacher.device
        self.name = describe(teacher)

    def __repr__(self) -> str:
        return teacher_repr(self)

    @property
    def max_batch(self) -> int:
        """Maximum number of images per call."""
        return self.teacher.max_batch

    def decide(self, images: Tensor) -> Tensor:
        """Returns the class of each image; see `Teacher.decide`."""
        return self.teacher.decide(self._rescaled(as_images(images, self)))

    def fingerprint(self) -> str:
        """Returns the SHA-256 digest of the other teacher's fingerprint and both bounds."""
        known = f"{self.teacher.fingerprint()} from {self.bounds} to {tuple(self.teacher.bounds)}"
        return hashlib.sha256(known.encode()).hexdigest()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Returns members that only some teachers have, such as `stream`."""
        teacher = self.__dict__.get("teacher")
        if teacher is None or name not in _FORWARDED:
            raise AttributeError(name)
        found = getattr(teacher, name)
        if name not in _OF_IMAGES:
            return found
        return lambda images, *rest: found(self._rescaled(images), *rest)

    def _rescaled(self, images: Tensor) -> Tensor:
        lower, upper = self.bounds
        low, high = self.teacher.bounds
        # Each step rounds by itself, so a row does not depend on its neighbours. Rounding could
        # leave the bounds, so the result is clamped.
        scaled = images.to(torch.float32).sub(lower).mul((high - low) / (upper - lower)).add(low)
        return scaled.clamp(low, high)


def takes_unit_images(teacher: Teacher) -> Teacher:
    """Returns a teacher for images in [0, 1]: the teacher itself, or a `RescaledTeacher`.

    Raises:
        ValueError: If the teacher's bounds are not a known convention, such as [0, 255] or [-1, 1].
            The message explains how to declare the mapping.
    """
    bounds = _float_bounds(teacher)
    if bounds == UNIT_BOUNDS:
        return teacher
    if bounds in CONVENTIONS:
        return RescaledTeacher(teacher)
    lower, upper = bounds
    raise ArgumentError(
        "teacher",
        f"expected bounds that images in [0, 1] can be mapped to, got "
        f"{interval_text(bounds)} from {describe(teacher)}. If the mapping is linear, pass "
        "db3kd.RescaledTeacher(teacher); in a description file, set "
        f"scale = [{lower:g}, {upper:g}] or mean and std in [preprocessing]",
    )


def check_scaled(images: Tensor, teacher: Teacher) -> None:
    """Refuses a tensor that seems to be scaled to [0, 1] although the teacher takes other values.

    Raises:
        ValueError: If all values lie in [0, 1] and the teacher's bounds are another convention.
    """
    bounds = _float_bounds(teacher)
    if bounds == UNIT_BOUNDS or bounds not in CONVENTIONS or not images.numel():
        return
    lowest, highest = (float(value) for value in torch.aminmax(images))
    if lowest < 0 or highest > 1:
        return
    lower, upper = bounds
    raise ArgumentError(
        "images",
        f"expected values in {interval_text(bounds)}, the bounds of teacher "
        f"{describe(teacher)}, got values from {lowest:g} to {highest:g}, which look scaled to "
        "[0, 1]. Pass db3kd.ImageSet.from_arrays(images) to have them mapped to the teacher's "
        f"bounds, or ImageSet.from_arrays(images, bounds=({lower:g}, {upper:g})) if the values are "
        "right",
    )


def _float_bounds(teacher: Teacher) -> tuple[float, float]:
    lower, upper = teacher.bounds
    return float(lower), float(upper)
