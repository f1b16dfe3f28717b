"""Opens the decision stream of a teacher, and checks the decisions that arrive."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from db3kd.teachers.base import (
    DecisionStream,
    StreamingTeacher,
    Teacher,
    TeacherError,
    WrongCountError,
    describe,
)
from db3kd.teachers.decide import check_decisions, check_shape
from db3kd.wording import counted, input_noun


def open_stream(teacher: Teacher, images: Tensor, on_lost: Callable[[int], None]) -> DecisionStream:
    """Opens the decision stream of a `StreamingTeacher`.

    Args:
        teacher: The teacher.
        images: [N, *image_shape].
        on_lost: See `DecisionStream`.

    Raises:
        ValueError: If the images have another shape.
    """
    check_shape(teacher, images)
    stream: Any = cast(StreamingTeacher, teacher).stream(images)
    if hasattr(stream, "on_lost"):
        stream.on_lost = on_lost
    return _CheckedStream(stream, teacher, len(images))


class _CheckedStream:
    """A stream that returns one class for each image, or raises.

    Args:
        stream: The stream of a teacher.
        teacher: The teacher.
        count: The number of images.
    """

    def __init__(self, stream: DecisionStream, teacher: Teacher, count: int) -> None:
        self._stream, self._teacher, self._count = stream, teacher, count
        self._classes = teacher.classes  # the teacher's code may change it later
        self._parts = [torch.empty(0, dtype=torch.int64)]
        self._returned = 0

    @property
    def window(self) -> int:
        """See `DecisionStream.window`."""
        return self._stream.window

    @property
    def maybe_paid(self) -> int:
        """See `DecisionStream.maybe_paid`."""
        return self._stream.maybe_paid

    def next_part(self) -> Tensor:
        """See `DecisionStream.next_part`.

        Raises:
            TeacherError: If a decision is invalid.
            WrongCountError: If there are more or fewer decisions than images.
        """
        part = self._stream.next_part()
        who = f"teacher {describe(self._teacher)}"
        try:
            check_decisions(part, len(part), self._classes, who)
        except TeacherError as error:
            self._stream.stop()
            error.answered = torch.cat(self._parts)
            raise
        self._returned += len(part)
        if self._returned > self._count or (not len(part) and self._returned < self._count):
            self._stream.stop()
            raise self._wrong_count(who)
        part = part.long()
        self._parts.append(part)
        return part

    def stop(self) -> Tensor:
        """See `DecisionStream.stop`."""
        return self._stream.stop()

    def _wrong_count(self, who: str) -> WrongCountError:
        noun = input_noun(self._teacher.image_shape)
        images, got = counted(self._count, noun), counted(self._returned, "decision")
        return WrongCountError(
            f"{who}: expected one decision per {noun} from its stream, got {got} for {images}; "
            f"which one belongs to which {noun} is unknown, so none of them is kept",
            maybe_paid=min(self._count, self._returned + self.window),
        )
