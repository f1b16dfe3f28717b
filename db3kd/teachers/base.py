"""What a teacher is, and the one place that checks what it answers."""

import asyncio
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from db3kd.validation import INTEGER_DTYPES, check_class_names

UNANSWERED = -1
"""Stands in place of a class for an image without an answer."""


@runtime_checkable
class Teacher(Protocol):
    """A black box that names the class of each image and says nothing else.

    image_shape  shape of one image, for example (1, 28, 28)
    classes      number of classes C; answers lie in [0, C)
    bounds       lowest and highest value of an image
    max_batch    most images of one `decide` call
    device       where it wants its images

    A teacher whose classes have names has them as `class_names`, a tuple of C texts in the order of
    their numbers; `class_names_of` reads it.

    Ask through `decide_checked`, which splits, moves and checks; `decide` itself need not.

    A teacher that answers while the caller goes on has another method, `decide_async(images) ->
    Answers`: for images of its shape, any number on any device, which it splits, moves and checks
    itself.

    A teacher whose decisions arrive one after the other, so that each can be kept before the next
    is paid for, has `stream(images) -> DecisionStream`, for such images too.
    """

    image_shape: tuple[int, ...]
    classes: int
    bounds: tuple[float, float]
    max_batch: int
    device: torch.device

    def decide(self, images: Tensor) -> Tensor:
        """images [N, *image_shape], in bounds -> their classes, int64 [N], on their device."""
        ...

    def fingerprint(self) -> str:
        """SHA-256, in hex, of what defines the teacher."""
        ...


class TeacherError(RuntimeError):
    """A teacher that cannot be loaded, or that failed to answer.

    answered: int64 [n], the decisions for the first n images, obtained before the failure. They
    were paid for; keep them. maybe_paid: how many images behind those may have been paid for
    without a decision that could be handed over.
    """

    def __init__(
        self, message: str, answered: Tensor | None = None, *, maybe_paid: int = 0
    ) -> None:
        super().__init__(message)
        self.maybe_paid = maybe_paid
        self.answered = torch.empty(0, dtype=torch.int64) if answered is None else answered


class PendingDecisions(Protocol):
    """Decisions that may be under way.

    decisions: int64 [N], on the device of the images. Whatever is queued behind them on the same
    stream may read them. Where the teacher has no answer, which `settle` will say, they are -1.
    """

    @property
    def decisions(self) -> Tensor: ...

    def done(self) -> bool:
        """Whether they are there, so that `settle` does not wait."""
        ...

    def result(self) -> Tensor:
        """The decisions, once they are there, every entry in [0, classes).

        Raises TeacherError where they are not answers; `answered` holds those before the first that
        is none.
        """
        ...


class DecisionStream(Protocol):
    """Decisions that arrive while others are still being asked for, in the order of the images.

    window: most images that are asked about at any time and whose decisions were not handed over,
    or were and are not yet kept. So whatever ends the process, no more of them are lost.
    maybe_paid: once it has ended, how many images behind the decisions that it handed over may have
    been paid for.
    """

    window: int

    @property
    def maybe_paid(self) -> int: ...

    def next_part(self) -> Tensor:
        """Waits for the next decisions: int64 [n] on the CPU, empty once all were handed over.

        Calling it says that the decisions handed over before are kept. Nothing is asked before the
        first call.

        Raises:
            TeacherError: the teacher fails; `answered` holds all decisions from the first image to
                the first gap, also those that were handed over.
        """
        ...

    def stop(self) -> Tensor:
        """Asks nothing more and waits for what is under way.

        Returns all decisions from the first image to the first gap, as `TeacherError.answered`.
        If this is interrupted, what is under way is given up.
        """
        ...


@dataclass(frozen=True)
class CompletedDecisions:
    """Answers that are there, and were checked."""

    decisions: Tensor

    def done(self) -> bool:
        return True

    def result(self) -> Tensor:
        return self.decisions


def decide_checked(teacher: Teacher, images: Tensor) -> Tensor:
    """The teacher's class for each image, asked in chunks of at most `teacher.max_batch`.

    images [N, *image_shape], any device -> int64 [N] on that device, every entry in [0, classes).
    Raises ValueError for images of another shape, before any is asked, and TeacherError where the
    teacher raises or answers anything but one class an image; its `answered` holds the decisions of
    the chunks before, and those that the teacher itself says it has of the one that failed.
    """
    return decide_async_checked(teacher, images).result()


def decide_async_checked(teacher: Teacher, images: Tensor) -> PendingDecisions:
    """As `decide_checked`, but the answers may still be under way, and the last errors with them.

    The answers of a teacher without `decide_async` are there.
    """
    _check_shape(teacher, images)
    decide_async = getattr(teacher, "decide_async", None)
    if decide_async is None:
        return CompletedDecisions(_decide_in_chunks(teacher, images))
    with _OneError(teacher, images):
        return decide_async(images)


def open_stream(teacher: Teacher, images: Tensor) -> DecisionStream:
    """The stream of a teacher that has one.

    Raises:
        ValueError: the images have another shape.
    """
    _check_shape(teacher, images)
    return teacher.stream(images)


def _check_shape(teacher: Teacher, images: Tensor) -> None:
    if tuple(images.shape[1:]) != tuple(teacher.image_shape):
        raise ValueError(
            f"images: expected [N, {', '.join(map(str, teacher.image_shape))}] for "
            f"{describe(teacher)}, got {list(images.shape)}"
        )


def _decide_in_chunks(teacher: Teacher, images: Tensor) -> Tensor:
    answered = torch.empty(len(images), dtype=torch.int64, device=images.device)
    for start in range(0, len(images), teacher.max_batch):
        chunk = images[start : start + teacher.max_batch]
        try:
            answered[start : start + len(chunk)] = _decide_chunk(teacher, chunk)
        except TeacherError as error:
            kept = error.answered[: len(chunk)].to(answered.device, torch.int64)
            error.answered = torch.cat([answered[:start], kept])
            raise
    return answered


def describe(teacher: Teacher) -> str:
    """How errors call this teacher: its own `name` where it has one, else its type."""
    return str(getattr(teacher, "name", None) or type(teacher).__name__)


def class_names_of(teacher: Teacher) -> tuple[str, ...] | None:
    """The names of the teacher's classes in the order of their numbers; None if it tells none.

    Raises:
        TypeError, ValueError: they are not as many different texts as it has classes.
    """
    names = getattr(teacher, "class_names", None)
    if names is None:
        return None
    return check_class_names(names, teacher.classes, f"teacher {describe(teacher)}")


def failure(name: str, count: int, error: BaseException) -> TeacherError:
    """What is raised where the teacher of that name raised `error` on so many images."""
    return TeacherError(f"teacher {name} raised {type(error).__name__} on {count} images: {error}")


class _OneError:
    """A context in which whatever the teacher raises becomes a TeacherError.

    Also StopIteration and GeneratorExit: in the generators that searches are, they would end the
    search, or be reported by Python as "generator raised StopIteration". An interrupt and an exit
    of the process remain what they are.
    """

    def __init__(self, teacher: Teacher, images: Tensor) -> None:
        self._teacher, self._count = teacher, len(images)

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TeacherError) or error is None:
            return
        if isinstance(error, Exception | GeneratorExit | asyncio.CancelledError):
            raise failure(describe(self._teacher), self._count, error) from error


def _decide_chunk(teacher: Teacher, images: Tensor) -> Tensor:
    who = f"teacher {describe(teacher)}"
    with _OneError(teacher, images):
        decisions = teacher.decide(images.to(teacher.device))
    _check_decisions(decisions, len(images), teacher.classes, who)
    return decisions


def _check_decisions(decisions: object, count: int, classes: int, who: str) -> None:
    wanted = f"{who}: expected {count} classes as int64 [{count}]"
    if not isinstance(decisions, Tensor):
        raise TeacherError(f"{wanted}, got {type(decisions).__name__}; return a tensor")
    came = f"{list(decisions.shape)} {str(decisions.dtype).removeprefix('torch.')}"
    if decisions.ndim == 2 and len(decisions) == count and decisions.shape[1] == classes:
        raise TeacherError(f"{wanted}, got scores {came}; take argmax(1) of them")
    if decisions.ndim != 1:
        raise TeacherError(f"{wanted}, got {came}; return one class an image")
    if len(decisions) != count:
        raise TeacherError(
            f"{wanted}, got {len(decisions)} answers; answer each image once, in order"
        )
    if decisions.dtype not in INTEGER_DTYPES:
        raise TeacherError(f"{wanted}, got {came}; return class numbers as integers")
    lowest, highest = (int(value) for value in torch.aminmax(decisions))
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise TeacherError(
            f"{who} answered class {wrong}, expected [0, {classes}); number the classes from 0 or "
            "correct `classes`"
        )
