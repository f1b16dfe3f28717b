"""What a model says of a batch of images, in whatever form, as one class an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError
from db3kd.validation import check_count, check_threshold

_MOST_NUMBERS = 1_000_000


NEXT_BEST = "next best"
"""The background rule that passes over scores which belong to no class."""


@dataclass(frozen=True)
class Numbering:
    """How a model numbers the classes: with a background class in front, from 1, or in any way.

    offset      the model's number of class 0; the others follow it
    numbers     the model's number of each class, in place of `offset`
    background  what becomes of an answer that is none of the classes: None for an error, or
                "next best": of scores, those of the classes alone count
    """

    offset: int = 0
    numbers: tuple[int, ...] | None = None
    background: str | None = None

    def __post_init__(self) -> None:
        if check_count(self.offset, "class_offset", least=0) >= _MOST_NUMBERS:
            raise ValueError(
                f"class_offset: expected a number below {_MOST_NUMBERS:,}, got {self.offset}"
            )
        if self.background not in (None, NEXT_BEST):
            raise ValueError(
                f"background: expected {NEXT_BEST!r}, or nothing for an error, got "
                f"{self.background!r}"
            )
        if self.numbers is None:
            return
        if self.offset:
            raise ValueError("class_offset: does not go with class_numbers; give one of them")
        for number in self.numbers:
            check_count(number, "class_numbers", least=0)
        if len(set(self.numbers)) < len(self.numbers) or len(self.numbers) < 2:
            raise ValueError(
                f"class_numbers: expected two or more different numbers, got {list(self.numbers)}"
            )
        if max(self.numbers) >= _MOST_NUMBERS:
            raise ValueError(
                f"class_numbers: expected numbers below {_MOST_NUMBERS:,}, got {max(self.numbers)}"
            )

    def class_of(self, classes: int) -> np.ndarray:
        """int64 [highest number + 1]: the class that each number of the model is, -1 for none."""
        numbers = self.numbers or range(self.offset, self.offset + classes)
        if len(numbers) != classes:
            raise ValueError(f"class_numbers: expected {classes} numbers, got {len(numbers)}")
        table = np.full(max(numbers) + 1, -1, np.int64)
        table[list(numbers)] = np.arange(classes)
        return table


class AnswerReader:
    """Reads class numbers, class names or scores; of scores, only where the largest is.

    Nothing but a class leaves `read`, so a search cannot use more than decisions.

    classes    number of classes C
    names      the C class names in the order of their numbers, if they are known
    numbering  how the model numbers the classes, if not from 0 to C - 1
    threshold  the model gives one score an image, and class 1 begins at this score
    """

    def __init__(
        self,
        classes: int,
        names: Sequence[str] | None = None,
        numbering: Numbering | None = None,
        threshold: float | None = None,
    ) -> None:
        if names is not None and len(names) != classes:
            raise ValueError(f"labels: expected {classes} class names, got {len(names)}")
        if threshold is not None:
            threshold = check_threshold(threshold, classes)
            if numbering is not None:
                raise ValueError("threshold: does not go with class_offset or class_numbers")
        self.classes = classes
        self.names = None if names is None else tuple(names)
        self._number = {name: number for number, name in enumerate(names or ())}
        self._numbering = numbering
        self._threshold = threshold
        self._class_of = None if numbering is None else numbering.class_of(classes)

    def identity(self) -> dict[str, Any]:
        """What decides which class an answer is, beside the names: empty in the plain case."""
        known = {"numbering": self._numbering, "threshold": self._threshold}
        return {name: repr(value) for name, value in known.items() if value is not None}

    def read(self, answers: Any, count: int, who: str) -> Tensor:
        """The classes of `count` images, int64 [count]; errors begin with `who`.

        answers: an array or nested lists: class numbers or names [count] or [count, 1], or scores
        [count, C], of which the first of the largest counts.

        Raises TeacherError for anything else: another shape, NaN, a class outside [0, C), an
        unknown name.
        """
        if self._threshold is not None:
            return self._above_threshold(answers, count, who)
        width = self.classes if self._class_of is None else len(self._class_of)
        wanted = f"{who}: expected {count} classes, or scores [{count}, {width}]"
        array = _as_array(answers, wanted)
        if self._fits_scores(array, count, width):
            if np.isnan(array).any():
                raise TeacherError(f"{wanted}, got NaN among the scores")
            if self._class_of is not None:
                return self._of_scores(array, wanted)
            return torch.from_numpy(array.argmax(1).astype(np.int64))
        if array.shape not in ((count,), (count, 1)):
            raise TeacherError(f"{wanted}, got an answer of shape {list(array.shape)}")
        return self._numbers(array.reshape(count), wanted)

    def _fits_scores(self, array: np.ndarray, count: int, width: int) -> bool:
        if array.ndim != 2 or len(array) != count or array.dtype.kind not in "iuf":
            return False
        if self._class_of is None:
            return array.shape[1] == width
        return array.shape[1] >= width and array.shape[1] > 1

    def _above_threshold(self, answers: Any, count: int, who: str) -> Tensor:
        wanted = f"{who}: expected one score an image, [{count}] or [{count}, 1], for its threshold"
        array = _as_array(answers, wanted)
        if array.shape not in ((count,), (count, 1)) or array.dtype.kind not in "iuf":
            raise TeacherError(f"{wanted}, got {array.dtype} of shape {list(array.shape)}")
        if np.isnan(array).any():
            raise TeacherError(f"{wanted}, got NaN among the scores")
        return torch.from_numpy((array.reshape(count) >= self._threshold).astype(np.int64))

    def _of_scores(self, scores: np.ndarray, wanted: str) -> Tensor:
        """The class whose column is the largest, of a model that numbers classes its own way."""
        columns = np.flatnonzero(self._class_of >= 0)
        if self._numbering.background == NEXT_BEST:
            return torch.from_numpy(self._class_of[columns[scores[:, columns].argmax(1)]])
        return self._of_numbers(scores.argmax(1), wanted)

    def _of_numbers(self, numbers: np.ndarray, wanted: str) -> Tensor:
        """The classes that the model's own numbers, whole and not negative, stand for."""
        inside = numbers < len(self._class_of)
        classes = np.where(inside, self._class_of[np.where(inside, numbers, 0)], -1)
        if (classes < 0).any():
            first = int((classes < 0).argmax())
            raise TeacherError(
                f"{wanted}, got the model's class {numbers[first]} for image {first}, which is "
                "none of the declared classes: correct class_offset or class_numbers, or, if it "
                f"is the background of a model that gives scores, set background = {NEXT_BEST!r}"
            )
        return torch.from_numpy(classes)

    def _numbers(self, answers: np.ndarray, wanted: str) -> Tensor:
        if answers.dtype.kind in "OSU":
            return torch.tensor([self._of_name(name, wanted) for name in answers.tolist()])
        if answers.dtype.kind not in "iuf":
            raise TeacherError(f"{wanted}, got {answers.dtype}")
        wrong = ~((answers >= 0) & np.isfinite(answers) & (answers == np.floor(answers)))
        if self._class_of is None:
            wrong |= answers >= self.classes
        if wrong.any():
            first = int(wrong.argmax())
            raise TeacherError(
                f"{wanted}, got class {answers[first]} for image {first}; classes are whole "
                f"numbers in [0, {self.classes}){self._number_hint(float(answers[first]))}"
            )
        answers = answers.astype(np.int64)
        return (
            torch.from_numpy(answers)
            if self._class_of is None
            else self._of_numbers(answers, wanted)
        )

    def _number_hint(self, answer: float) -> str:
        if answer == self.classes:
            return "; if the model numbers its classes from 1, declare class_offset = 1"
        if self.classes == 2 and answer != round(answer):
            return (
                "; if this is the one score of a model with two classes, declare its threshold: "
                "threshold = 0.5 for a sigmoid, 0 for a logit"
            )
        return ""

    def _of_name(self, name: Any, wanted: str) -> int:
        if isinstance(name, bytes):
            name = name.decode("utf-8", "replace")
        if not isinstance(name, str):
            raise TeacherError(f"{wanted}, got {type(name).__name__} for an image")
        if not self._number:
            raise TeacherError(f"{wanted}, got class names; give the file that lists them (labels)")
        if name.strip() not in self._number:
            raise TeacherError(f"{wanted}, got a class name that is not in the label file")
        return self._number[name.strip()]


def read_names(path: str | Path) -> tuple[str, ...]:
    """The class names of a label file, one a line, numbered from 0."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected text, one class name a line") from None
    names = tuple(line.strip() for line in lines)
    while names and not names[-1]:
        names = names[:-1]
    if len(names) < 2 or not all(names):
        raise ValueError(f"{path}: expected two or more class names, one a line, and no empty line")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}: expected each class name once, got {twice!r} again")
    return names


def _as_array(answers: Any, wanted: str) -> np.ndarray:
    try:
        array = np.asarray(answers)
    except (ValueError, TypeError, OverflowError):
        raise TeacherError(f"{wanted}, got rows of different lengths") from None
    if array.dtype.kind in "OUS" and array.ndim == 1 and isinstance(answers, list):
        return np.array(answers, dtype=object)  # as they came: numpy would make text of a number
    return array
