"""The contract between a teacher and its callers."""

import os
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from db3kd.arguments.images import check_class_names, interval_text
from db3kd.errors import Db3kdError
from db3kd.wording import InputNoun, counted

UNANSWERED = -1
"""Takes the place of a class number if an image has no decision."""


@runtime_checkable
class Teacher(Protocol):
    """A black box that returns the class of an image and nothing else.

    Any object with these members is a teacher. db3kd calls it through `decide_async_checked`, which
    splits the images into batches, moves them to the teacher's device and checks the decisions, so
    `decide` need not do any of this.

    A teacher may have three more members:

    - `class_names`: A tuple of class names in the order of the class numbers.
    - `decide_async(images) -> PendingDecisions`: See `AsyncTeacher`.
    - `stream(images) -> DecisionStream`: See `StreamingTeacher`.

    Example:
        >>> class Brightness:
        ...     image_shape, classes, bounds = (1, 28, 28), 2, (0.0, 1.0)
        ...     max_batch, device = 256, torch.device("cpu")
        ...
        ...     def decide(self, images):
        ...         return (images.mean((1, 2, 3)) > 0.5).long()
        ...
        ...     def fingerprint(self):
        ...         return "brightness, version 1"
    """

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, for example `(1, 28, 28)`."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes C. Decisions lie in [0, C)."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest pixel value."""
        ...

    @property
    def max_batch(self) -> int:
        """Maximum number of images per call of `decide`."""
        ...

    @property
    def device(self) -> torch.device:
        """The device on which `decide` expects its images."""
        ...

    def decide(self, images: Tensor) -> Tensor:
        """Returns the class of each image.

        Args:
            images: [N, *image_shape] float32 inside `bounds`, on `device`.

        Returns:
            [N] int64, on the device of the images.
        """
        ...

    def fingerprint(self) -> str:
        """Returns a text, usually a SHA-256 hex digest, that changes when the decisions may.

        Queries must not change it, and it must be the same in each process.
        """
        ...


class PendingDecisions(Protocol):
    """Decisions that a device may still be computing."""

    @property
    def decisions(self) -> Tensor:
        """[N] int64, on the device of the images.

        Work queued later on the same stream may read it. UNANSWERED marks images without a valid
        decision; `result` raises if there are any.
        """
        ...

    def done(self) -> bool:
        """Returns whether `result` would return without waiting."""
        ...

    def result(self) -> Tensor:
        """Waits for the decisions.

        Returns:
            [N] int64, every entry in [0, classes).

        Raises:
            TeacherError: If any decision is invalid. `error.answered` holds the valid prefix.
        """
        ...


class DecisionStream(Protocol):
    """Decisions that arrive one part at a time, in the order of the images.

    If a stream sends images again that may have been paid for, it has one more member: `on_lost`,
    which its caller sets to a function. The stream calls it with the number of these images, in any
    thread, before it sends them again.
    """

    @property
    def window(self) -> int:
        """Maximum number of images that are sent but not yet recorded by the caller.

        A process that is killed loses at most this many paid decisions.
        """
        ...

    @property
    def maybe_paid(self) -> int:
        """After the end: how many images after the returned decisions may have been paid for."""
        ...

    def next_part(self) -> Tensor:
        """Waits for the next decisions.

        By calling it, the caller confirms that it has recorded all earlier parts. The first image
        is sent with the first call.

        Returns:
            [n] int64 on the CPU; empty after the last decision.

        Raises:
            TeacherError: If the teacher fails. `error.answered` holds all decisions from the first
                image up to the first missing one, including those returned before.
            WrongCountError: If the count is wrong; `error.answered` leaves out parts that cannot be
                trusted.
        """
        ...

    def stop(self) -> Tensor:
        """Sends no more images and waits for the requests in flight.

        Returns:
            [n] int64: All decisions from the first image up to the first missing one. If the call
            is interrupted, the requests in flight are abandoned.
        """
        ...


class AsyncTeacher(Teacher, Protocol):
    """A teacher that computes decisions while its caller continues."""

    def decide_async(self, images: Tensor) -> PendingDecisions:
        """Starts to decide any number of images on any device.

        The teacher itself splits and moves the images and checks the decisions.
        """
        ...


class StreamingTeacher(Teacher, Protocol):
    """A teacher whose decisions arrive one after the other.

    Its caller can record each decision before it pays for the next.
    """

    def stream(self, images: Tensor) -> DecisionStream:
        """Prepares to decide any number of images on any device."""
        ...


class RepeatingTeacher(Teacher, Protocol):
    """A teacher that may send a request again although its first attempt may have been paid for."""

    def decide_counting_lost(self, images: Tensor, on_lost: Callable[[int], None] | None) -> Tensor:
        """Does what `decide` does, and reports what may be paid twice.

        Args:
            images: See `decide`.
            on_lost: Called with the number of images of a request before it is sent again, in any
                thread.
        """
        ...


class TeacherError(Db3kdError, RuntimeError):
    """A teacher cannot be loaded, or fails to answer.

    Attributes:
        answered: [n] int64: Decisions for the first n images, obtained before the failure. They
            were paid for, so callers record them.
        maybe_paid: How many of the following images may have been paid for without a decision; None
            if the teacher does not know, so that it may be all images of its last call.
        of_code: Whether the code of a teacher raised another error, whose traceback may help.
    """

    def __init__(
        self, message: str, answered: Tensor | None = None, *, maybe_paid: int | None = None
    ) -> None:
        super().__init__(message)
        self.of_code = False
        self.maybe_paid = maybe_paid
        self.answered = torch.empty(0, dtype=torch.int64) if answered is None else answered


class TeacherChangedError(TeacherError):
    """A teacher answers otherwise than when the run was stopped: it was replaced, or is noisy."""


class UnknownClassError(TeacherError):
    """A teacher answers with a class name that its list of names lacks.

    Whether a run can be resumed depends on how the list is corrected; the message explains it.
    """


class WrongCountError(TeacherError):
    """A teacher returns more or fewer classes, one after the other, than it received images.

    It has left out an image, or answered one twice, so nobody knows which answer belongs to which
    image. Callers keep `answered` only, and take back all further answers that they received.
    """


class SingleClassError(TeacherError):
    """A teacher puts all images in one class, so there is nothing to learn from its decisions.

    A resumed run ends with the same error, unless it is resumed with `rare_classes`.
    """


@dataclass(frozen=True)
class CompletedDecisions:
    """`PendingDecisions` that are complete and were checked.

    Attributes:
        decisions: [N] int64.
    """

    decisions: Tensor

    def done(self) -> bool:
        """Returns True."""
        return True

    def result(self) -> Tensor:
        """Returns the decisions."""
        return self.decisions


def describe(teacher: Teacher) -> str:
    """Returns the teacher's name for messages: its attribute `name`, or else its type."""
    return str(getattr(teacher, "name", None) or type(teacher).__name__)


def teacher_repr(teacher: Teacher) -> str:
    """Returns the `repr` of a teacher: type, name, image shape, classes, bounds and device."""
    shape = tuple(teacher.image_shape)
    return (
        f"{type(teacher).__name__}({describe(teacher)!r}, image_shape={shape}, "
        f"classes={teacher.classes}, bounds={interval_text(teacher.bounds)}, "
        f"device={str(teacher.device)!r})"
    )


def class_names_of(teacher: Teacher) -> tuple[str, ...] | None:
    """Returns the teacher's class names in the order of the class numbers, or None.

    Raises:
        TypeError: If `class_names` is not a sequence of texts.
        ValueError: If it has not one different name for each class.
    """
    names = getattr(teacher, "class_names", None)
    if names is None:
        return None
    return check_class_names(names, teacher.classes, f"teacher {describe(teacher)}")


def failure(name: str, count: int, error: BaseException, noun: InputNoun = "image") -> TeacherError:
    """Returns the TeacherError to raise if the named teacher raised `error` on `count` inputs."""
    found = TeacherError(
        f"teacher {name} raised {type(error).__name__} on {counted(count, noun)}: {error}"
        f"{_place(error)}"
    )
    found.of_code = True
    return found


_INSTALLED = tuple(
    sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")
)


def _place(error: BaseException) -> str:
    """Returns where an error was raised, such as " (client.py, line 12)"; may be empty.

    It is the last line of the user's own files; without one, of installed packages.
    """
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] != "db3kd"
    ]
    own = [frame for frame in frames if not frame[0].startswith((*_INSTALLED, "<"))]
    if not frames:
        return ""
    file, line = (own or frames)[-1]
    for folder in (*_INSTALLED, str(Path.cwd())):
        file = file.removeprefix(f"{folder}{os.sep}")
    return f" ({file}, line {line})"
