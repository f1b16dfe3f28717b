"""Reads the answers of files and services, whatever their form, as one class per image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.images import check_threshold
from db3kd.errors import ArgumentError
from db3kd.teachers.answer_arrays import as_answer_array
from db3kd.teachers.base import TeacherError
from db3kd.teachers.class_numbers import NEXT_BEST, ClassNames, Numbering
from db3kd.wording import counted


class AnswerReader:
    """Converts class numbers, class names or scores to decisions.

    Only the position of the largest score is used, and only decisions leave `read`, so a search
    cannot use more than decisions.

    Example:
        >>> AnswerReader(3, names=["ant", "bee", "cat"]).read(["cat", "ant"], 2, "teacher x")
        tensor([2, 0])

    Args:
        classes: Number of classes C.
        names: Class names in the order of the class numbers, if they are known.
        numbering: The model's class numbers, if they are not 0 to C - 1.
        threshold: For a model that returns one score per image: class 1 begins here.
        quote: Whether errors may repeat an unknown class name. A server that received a secret may
            send it back.

    Raises:
        ValueError: If the arguments contradict each other.
    """

    def __init__(
        self,
        classes: int,
        names: Sequence[str] | None = None,
        numbering: Numbering | None = None,
        threshold: float | None = None,
        *,
        quote: bool = True,
    ) -> None:
        if names is not None and len(names) != classes:
            raise ArgumentError("labels", f"expected {classes} class names, got {len(names)}")
        if threshold is not None:
            threshold = check_threshold(threshold, classes)
            if numbering is not None:
                raise ArgumentError(
                    "threshold",
                    "cannot be combined with class_offset or class_numbers; pass only one",
                )
        self.classes = classes
        self.names = None if names is None else tuple(names)
        self._names = ClassNames(names, "the label file (labels)", quote=quote)
        self._numbering = numbering
        self._threshold = threshold
        self._class_table = None if numbering is None else numbering.class_table(classes)

    def identity(self) -> dict[str, Any]:
        """Returns what else the decisions depend on, beside the names; usually nothing."""
        known = {"numbering": self._numbering, "threshold": self._threshold}
        return {name: repr(value) for name, value in known.items() if value is not None}

    def read(self, answers: Any, count: int, who: str) -> Tensor:
        """Returns the class of each image.

        Args:
            answers: An array or nested lists: class numbers or names, [count] or [count, 1]; or
                scores [count, C], of which the first largest wins.
            count: Number of images.
            who: How errors begin.

        Returns:
            [count] int64.

        Raises:
            TeacherError: If they are anything else: another shape, NaN, a class outside [0, C), an
                unknown name.
        """
        if self._threshold is not None:
            return self._read_single_scores(answers, count, who, self._threshold)
        width = self.classes if self._class_table is None else len(self._class_table)
        expected = f"{who}: expected {counted(count, 'class')}, or scores [{count}, {width}]"
        array = as_answer_array(answers, expected)
        if self._has_scores(array, count, width):
            if np.isnan(array).any():
                raise TeacherError(f"{expected}, got NaN among the scores")
            return self._read_scores(array, expected)
        if array.shape not in ((count,), (count, 1)):
            raise TeacherError(f"{expected}, got an answer of shape {list(array.shape)}")
        return self._read_classes(array.reshape(count), expected)

    def _has_scores(self, array: np.ndarray, count: int, width: int) -> bool:
        if array.ndim != 2 or len(array) != count or array.dtype.kind not in "iuf":
            return False
        if self._class_table is None:
            return array.shape[1] == width
        return array.shape[1] >= width and array.shape[1] > 1

    def _read_single_scores(self, answers: Any, count: int, who: str, threshold: float) -> Tensor:
        expected = (
            f"{who}: expected one score per image, [{count}] or [{count}, 1], for its threshold"
        )
        array = as_answer_array(answers, expected)
        if array.shape not in ((count,), (count, 1)) or array.dtype.kind not in "iuf":
            raise TeacherError(f"{expected}, got {array.dtype} of shape {list(array.shape)}")
        if np.isnan(array).any():
            raise TeacherError(f"{expected}, got NaN among the scores")
        return torch.from_numpy((array.reshape(count) >= threshold).astype(np.int64))

    def _read_scores(self, scores: np.ndarray, expected: str) -> Tensor:
        if self._class_table is None:
            return torch.from_numpy(scores.argmax(1).astype(np.int64))
        if self._numbering is not None and self._numbering.background == NEXT_BEST:
            columns = np.flatnonzero(self._class_table >= 0)
            return torch.from_numpy(self._class_table[columns[scores[:, columns].argmax(1)]])
        return _look_up(self._class_table, scores.argmax(1), expected)

    def _read_classes(self, answers: np.ndarray, expected: str) -> Tensor:
        if answers.dtype.kind in "OSU":
            if all(type(answer) is int for answer in answers):  # one is beyond 64 bits
                sizes = [abs(answer) for answer in answers]
                first = sizes.index(max(sizes))
                raise self._no_class(answers[first], first, expected)
            names = enumerate(answers.tolist())
            return torch.tensor([self._names.number(name, row, expected) for row, name in names])
        if answers.dtype.kind not in "iuf":
            raise TeacherError(f"{expected}, got {answers.dtype}")
        invalid = ~((answers >= 0) & np.isfinite(answers) & (answers == np.floor(answers)))
        if self._class_table is None:
            invalid |= answers >= self.classes
        if invalid.any():
            first = int(invalid.argmax())
            raise self._no_class(answers[first], first, expected)
        if self._class_table is None:
            return torch.from_numpy(answers.astype(np.int64))
        return _look_up(self._class_table, answers, expected)

    def _no_class(self, answer: Any, image: int, expected: str) -> TeacherError:
        return TeacherError(
            f"{expected}, got class {answer} for image {image}; classes are whole numbers in "
            f"[0, {self.classes}){self._hint(answer)}"
        )

    def _hint(self, answer: float) -> str:
        if answer == self.classes:
            return (
                "; if the model numbers its classes from 1, declare class_offset = 1 in a "
                "description file"
            )
        if self.classes == 2 and answer != round(answer):
            return (
                "; if this is the one score of a model with two classes, declare its threshold: "
                "threshold = 0.5 for a sigmoid, 0 for a logit"
            )
        return ""


def _look_up(class_table: np.ndarray, numbers: np.ndarray, expected: str) -> Tensor:
    """Returns the classes of the model's own numbers: whole and not negative, of any dtype."""
    inside = numbers < len(class_table)  # others may be beyond int64
    classes = np.where(inside, class_table[np.where(inside, numbers, 0).astype(np.int64)], -1)
    if (classes < 0).any():
        first = int((classes < 0).argmax())
        raise TeacherError(
            f"{expected}, got the model's class {numbers[first]} for image {first}, which is not "
            "one of the declared classes; correct class_offset or class_numbers, or, if it is the "
            f"background of a model that returns scores, set background = {NEXT_BEST!r}"
        )
    return torch.from_numpy(classes)
