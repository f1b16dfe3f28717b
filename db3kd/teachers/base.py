"""What a teacher is, and the one place that checks what it answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from db3kd.validation import INTEGER_DTYPES


@runtime_checkable
class Teacher(Protocol):
    """A black box that names the class of each image and says nothing else.

    image_shape  shape of one image, for example (1, 28, 28)
    classes      number of classes C; answers lie in [0, C)
    bounds       lowest and highest value of an image
    max_batch    most images of one `decide` call
    device       where it wants its images

    Ask through `decide_checked`, which splits, moves and checks; `decide` itself need not.

    A teacher that answers while the caller goes on has another method, `launch(images) -> Answers`:
    for images of its shape, any number on any device, which it splits, moves and checks itself.
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
    were paid for; keep them.
    """

    def __init__(self, message: str, answered: Tensor | None = None) -> None:
        super().__init__(message)
        self.answered = torch.empty(0, dtype=torch.int64) if answered is None else answered


class Answers(Protocol):
    """Decisions that may be under way.

    decisions: int64 [N], on the device of the images. Whatever is queued behind them on the same
    stream may read them. Where the teacher has no answer, which `settle` will say, they are -1.
    """

    @property
    def decisions(self) -> Tensor: ...

    def ready(self) -> bool:
        """Whether they are there, so that `settle` does not wait."""
        ...

    def settle(self) -> Tensor:
        """The decisions, once they are there, every entry in [0, classes).

        Raises TeacherError where they are not answers; `answered` holds those before the first that
        is none.
        """
        ...


@dataclass(frozen=True)
class Settled:
    """Answers that are there, and were checked."""

    decisions: Tensor

    def ready(self) -> bool:
        return True

    def settle(self) -> Tensor:
        return self.decisions


def decide_checked(teacher: Teacher, images: Tensor) -> Tensor:
    """The teacher's class for each image, asked in chunks of at most `teacher.max_batch`.

    images [N, *image_shape], any device -> int64 [N] on that device, every entry in [0, classes).
    Raises ValueError for images of another shape, before any is asked, and TeacherError where the
    teacher raises or answers anything but one class an image; its `answered` holds the decisions of
    the chunks before, and those that the teacher itself says it has of the one that failed.
    """
    return launch_checked(teacher, images).settle()


def launch_checked(teacher: Teacher, images: Tensor) -> Answers:
    """As `decide_checked`, but the answers may still be under way, and the last errors with them.

    The answers of a teacher without `launch` are there.
    """
    if tuple(images.shape[1:]) != tuple(teacher.image_shape):
        raise ValueError(
            f"images: expected [N, {', '.join(map(str, teacher.image_shape))}] for "
            f"{describe(teacher)}, "
            f"got {list(images.shape)}"
        )
    launch = getattr(teacher, "launch", None)
    if launch is None:
        return Settled(_decide_in_chunks(teacher, images))
    with _one_error(teacher, images):
        return launch(images)


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


def failure(name: str, count: int, error: Exception) -> TeacherError:
    """What is raised where the teacher of that name raised `error` on so many images."""
    return TeacherError(f"teacher {name} raised {type(error).__name__} on {count} images: {error}")


@contextmanager
def _one_error(teacher: Teacher, images: Tensor) -> Iterator[None]:
    """Whatever the teacher raises becomes a TeacherError."""
    try:
        yield
    except TeacherError:
        raise
    except Exception as error:
        raise failure(describe(teacher), len(images), error) from error


def _decide_chunk(teacher: Teacher, images: Tensor) -> Tensor:
    who = f"teacher {describe(teacher)}"
    with _one_error(teacher, images):
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
