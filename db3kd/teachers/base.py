"""What a teacher is, and the one place that checks what it answers."""

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


def decide_checked(teacher: Teacher, images: Tensor) -> Tensor:
    """The teacher's class for each image, asked in chunks of at most `teacher.max_batch`.

    images [N, *image_shape], any device -> int64 [N] on that device, every entry in [0, classes).
    Raises ValueError for images of another shape, before any is asked, and TeacherError where the
    teacher raises or answers anything but one class an image; its `answered` holds the decisions of
    the chunks before, and those that the teacher itself says it has of the one that failed.
    """
    if tuple(images.shape[1:]) != tuple(teacher.image_shape):
        raise ValueError(
            f"images: expected [N, {', '.join(map(str, teacher.image_shape))}] for "
            f"{describe(teacher)}, "
            f"got {list(images.shape)}"
        )
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


def _decide_chunk(teacher: Teacher, images: Tensor) -> Tensor:
    who = f"teacher {describe(teacher)}"
    try:
        decisions = teacher.decide(images.to(teacher.device))
    except TeacherError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise TeacherError(f"{who} raised {kind} on {len(images)} images: {error}") from error
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
