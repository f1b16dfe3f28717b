"""Calls a teacher and checks the decisions that it returns."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral
from typing import Self, cast

import torch
from torch import Tensor

from db3kd.arguments.images import INTEGER_DTYPES
from db3kd.arguments.plain import brief
from db3kd.errors import ArgumentError
from db3kd.teachers.answer_arrays import out_of_range
from db3kd.teachers.base import (
    AsyncTeacher,
    CompletedDecisions,
    PendingDecisions,
    RepeatingTeacher,
    Teacher,
    TeacherError,
    describe,
    failure,
)
from db3kd.wording import counted, input_noun


@dataclass(frozen=True)
class Declared:
    """What a teacher declared when its run, or its search, began; its code may change this later.

    Attributes:
        classes: The number of classes.
        image_shape: The shape of an image.
    """

    classes: int
    image_shape: tuple[int, ...]

    @classmethod
    def of(cls, teacher: Teacher) -> Self:
        """Returns what a teacher declares now."""
        return cls(teacher.classes, tuple(teacher.image_shape))

    def check(self, teacher: Teacher) -> None:
        """Raises TeacherError if the teacher declares something else now."""
        now = Declared.of(teacher)
        changed = [
            f"{name} changed from {before} to {after}"
            for name, before, after in (
                ("number of classes", self.classes, now.classes),
                ("image shape", self.image_shape, now.image_shape),
            )
            if before != after
        ]
        if changed:
            raise TeacherError(
                f"teacher {describe(teacher)}: its {' and its '.join(changed)} during the run; "
                "make it declare the same values throughout a run",
                maybe_paid=0,
            )


def max_batch_of(teacher: Teacher) -> int:
    """Returns the maximum number of images per call, which the teacher's code may have changed.

    Raises:
        TeacherError: If it is not a positive integer.
    """
    size = teacher.max_batch
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise TeacherError(
            f"teacher {describe(teacher)}: expected an integer of at least 1 as max_batch, got "
            f"{brief(size)}",
            maybe_paid=0,
        )
    return int(size)


def decide_checked(
    teacher: Teacher, images: Tensor, on_lost: Callable[[int], None] | None = None
) -> Tensor:
    """Returns the teacher's class for each image, in calls of at most `teacher.max_batch` images.

    Example:
        >>> decide_checked(teacher, torch.rand(1000, 1, 28, 28)).shape
        torch.Size([1000])

    Args:
        teacher: The teacher.
        images: [N, *image_shape] on any device.
        on_lost: See `RepeatingTeacher`.

    Returns:
        [N] int64 on the device of the images, every entry in [0, classes).

    Raises:
        ValueError: If the images have another shape. The teacher is not called.
        TeacherError: If the teacher raises, or if its decisions are invalid. `error.answered`
            holds the decisions of the earlier calls and what the teacher reports for the failed
            one, and `error.maybe_paid` is the number of further images that may have been paid
            for, without those of `on_lost`.
    """
    return decide_async_checked(teacher, images, on_lost).result()


def decide_async_checked(
    teacher: Teacher,
    images: Tensor,
    on_lost: Callable[[int], None] | None = None,
    declared: Declared | None = None,
) -> PendingDecisions:
    """Like `decide_checked`, but an `AsyncTeacher` may still be computing the decisions.

    Errors that the teacher finds later are raised by `PendingDecisions.result`.

    Args:
        teacher: See `decide_checked`.
        images: See `decide_checked`.
        on_lost: See `decide_checked`.
        declared: What the teacher declared when its run began, which must not have changed; by
            default what it declares now.
    """
    declared = declared or Declared.of(teacher)
    declared.check(teacher)
    check_shape(teacher, images)
    if not hasattr(teacher, "decide_async"):
        return CompletedDecisions(_decide_in_batches(teacher, images, on_lost, declared))
    with _ErrorsAsTeacherError(teacher, len(images)):
        return cast(AsyncTeacher, teacher).decide_async(images)


class _ErrorsAsTeacherError:
    """A context that converts everything a teacher raises to TeacherError.

    StopIteration and GeneratorExit are converted too: a search is a generator, which they would end
    silently or with "generator raised StopIteration". KeyboardInterrupt and SystemExit pass.
    """

    def __init__(self, teacher: Teacher, count: int) -> None:
        self._teacher, self._count = teacher, count

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TeacherError) or error is None:
            return
        if isinstance(error, Exception | GeneratorExit | asyncio.CancelledError):
            raise failure(
                describe(self._teacher), self._count, error, input_noun(self._teacher.image_shape)
            ) from error


def check_shape(teacher: Teacher, images: Tensor) -> None:
    """Checks that images have the shape of the teacher's.

    Raises:
        ValueError: If they have another shape.
    """
    if tuple(images.shape[1:]) != tuple(teacher.image_shape):
        raise ArgumentError(
            "images",
            f"expected [N, {', '.join(map(str, teacher.image_shape))}] for "
            f"{describe(teacher)}, got {list(images.shape)}",
        )


def _decide_in_batches(
    teacher: Teacher,
    images: Tensor,
    on_lost: Callable[[int], None] | None,
    declared: Declared,
) -> Tensor:
    decisions = torch.empty(len(images), dtype=torch.int64, device=images.device)
    start = 0
    while start < len(images):
        batch = images[start:start]
        try:
            batch = images[start : start + max_batch_of(teacher)]
            decisions[start : start + len(batch)] = _decide_batch(teacher, batch, on_lost, declared)
        except TeacherError as error:
            of_batch = error.answered[: len(batch)].to(decisions.device, torch.int64)
            error.answered = torch.cat([decisions[:start], of_batch])
            unanswered = len(batch) - len(of_batch)
            known = error.maybe_paid
            error.maybe_paid = unanswered if known is None else min(known, unanswered)
            raise
        start += len(batch)
    return decisions


def _decide_batch(
    teacher: Teacher,
    images: Tensor,
    on_lost: Callable[[int], None] | None,
    declared: Declared,
) -> Tensor:
    with _ErrorsAsTeacherError(teacher, len(images)):
        placed = images.to(teacher.device)
        if on_lost is not None and hasattr(teacher, "decide_counting_lost"):
            decisions = cast(RepeatingTeacher, teacher).decide_counting_lost(placed, on_lost)
        else:
            decisions = teacher.decide(placed)
    who = f"teacher {describe(teacher)}"
    try:
        declared.check(teacher)
    except TeacherError as error:
        error.maybe_paid = None  # the call was answered
        with suppress(TeacherError):
            check_decisions(decisions, len(images), declared.classes, who)
            error.answered = decisions
        raise
    check_decisions(decisions, len(images), declared.classes, who)
    return decisions


def check_decisions(decisions: object, count: int, classes: int, who: str) -> None:
    """Checks that a teacher returned `count` integers in [0, classes); errors begin with `who`.

    Raises:
        TeacherError: If it is not valid.
    """
    expected = f"{who}: expected {counted(count, 'class')} as int64 [{count}]"
    if not isinstance(decisions, Tensor):
        raise TeacherError(f"{expected}, got {type(decisions).__name__}; return a tensor")
    if decisions.is_nested or decisions.is_meta or decisions.layout is not torch.strided:
        raise TeacherError(f"{expected}, got a nested, sparse or meta tensor; return a dense one")
    got = f"{list(decisions.shape)} {str(decisions.dtype).removeprefix('torch.')}"
    if decisions.ndim == 2 and len(decisions) == count and decisions.shape[1] == classes:
        raise TeacherError(f"{expected}, got scores {got}; return scores.argmax(1)")
    if decisions.ndim != 1:
        raise TeacherError(f"{expected}, got {got}; return one class for each")
    if len(decisions) != count:
        raise TeacherError(
            f"{expected}, got {counted(len(decisions), 'decision')}; return one class for each, in "
            "order"
        )
    if not count:
        return
    if decisions.dtype not in INTEGER_DTYPES:
        raise TeacherError(f"{expected}, got {got}; return class numbers as integers")
    lowest, highest = (int(value) for value in torch.aminmax(decisions))
    if lowest < 0 or highest >= classes:
        invalid = lowest if lowest < 0 else highest
        raise out_of_range(invalid, classes, who)
