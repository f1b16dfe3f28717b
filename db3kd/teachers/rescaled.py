"""A teacher of other bounds, asked about images in [0, 1]."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from db3kd.teachers.base import Teacher, class_names_of, describe
from db3kd.validation import CONVENTIONS, UNIT_BOUNDS, check_bounds, interval_text


class RescaledTeacher:
    """A teacher whose images lie in other bounds than its own and are mapped to them.

    Distances are then measured in the new bounds.

        RescaledTeacher(teacher)  # of bounds (0, 255), for images in [0, 1]

    Args:
        teacher: takes images in `teacher.bounds`.
        bounds: of the images. The lowest value becomes the teacher's lowest, the highest its
            highest, and what lies between them is mapped linearly.
    """

    def __init__(self, teacher: Teacher, bounds: tuple[float, float] = UNIT_BOUNDS) -> None:
        self.teacher = teacher
        self.bounds = check_bounds(bounds)
        self.image_shape = tuple(teacher.image_shape)
        self.classes = teacher.classes
        self.class_names = class_names_of(teacher)
        self.device = teacher.device
        self.name = describe(teacher)

    @property
    def max_batch(self) -> int:
        """Most images of one call."""
        return self.teacher.max_batch

    def decide(self, images: Tensor) -> Tensor:
        """images [N, *image_shape], in `bounds` -> int64 [N], same device."""
        return self.teacher.decide(self._rescaled(images))

    def fingerprint(self) -> str:
        """SHA-256 hex of the teacher's fingerprint and the bounds."""
        known = f"{self.teacher.fingerprint()} from {self.bounds} to {tuple(self.teacher.bounds)}"
        return hashlib.sha256(known.encode()).hexdigest()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Ways to ask, or to describe, that only some teachers have."""
        teacher = self.__dict__.get("teacher")
        if teacher is None or name not in ("decide_async", "stream", "details", "close", "traffic"):
            raise AttributeError(name)
        found = getattr(teacher, name)
        if name not in ("decide_async", "stream"):
            return found
        return lambda images: found(self._rescaled(images))

    def _rescaled(self, images: Tensor) -> Tensor:
        lower, upper = self.bounds
        low, high = self.teacher.bounds
        # In steps that are rounded by themselves, so that a row never depends on its neighbours,
        # and clamped, since rounding could leave the bounds.
        scaled = images.to(torch.float32).sub(lower).mul((high - low) / (upper - lower)).add(low)
        return scaled.clamp(low, high)


def takes_unit_images(teacher: Teacher) -> Teacher:
    """The teacher for images in [0, 1]: itself, or rescaled if its bounds are a convention.

    Raises:
        ValueError: its bounds are neither [0, 1] nor such that the mapping is clear; the message
            says how to declare it.
    """
    bounds = tuple(float(bound) for bound in teacher.bounds)
    if bounds == UNIT_BOUNDS:
        return teacher
    if bounds in CONVENTIONS:
        return RescaledTeacher(teacher)
    lower, upper = bounds
    raise ValueError(
        f"teacher: {describe(teacher)} takes images in {interval_text(bounds)}, and the images lie "
        "in [0, 1]; how they become each other is not clear. If the mapping is linear, give "
        "db3kd.RescaledTeacher(teacher), also as package.module:name; a described model says it by "
        f"[preprocessing] scale = [{lower:g}, {upper:g}], or mean and std, in its teacher.toml"
    )


def check_scaled(images: Tensor, teacher: Teacher) -> None:
    """Refuses a tensor that seems to be scaled to [0, 1] for a teacher that takes other values.

    Raises:
        ValueError: all values lie in [0, 1], and the teacher's bounds are another convention.
    """
    bounds = tuple(float(bound) for bound in teacher.bounds)
    if bounds == UNIT_BOUNDS or bounds not in CONVENTIONS or not images.numel():
        return
    lowest, highest = (float(value) for value in torch.aminmax(images))
    if lowest < 0 or highest > 1:
        return
    lower, upper = bounds
    raise ValueError(
        f"images: expected values in {interval_text(bounds)} as teacher {describe(teacher)} takes "
        f"them, got values from {lowest:g} to {highest:g}, which look scaled to [0, 1]. Give "
        "db3kd.ImageSet.from_arrays(images), and they are mapped to the teacher's bounds; or, if "
        f"they are as they should be, ImageSet.from_arrays(images, bounds=({lower:g}, {upper:g}))"
    )
