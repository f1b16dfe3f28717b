"""What a model says of a batch of images, in whatever form, as one class an image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError


class AnswerReader:
    """Reads class numbers, class names or scores; of scores, only where the largest is.

    Nothing but a class leaves `read`, so a search cannot use more than decisions.

    classes  number of classes C
    names    the C class names in the order of their numbers, where the model answers names
    """

    def __init__(self, classes: int, names: Sequence[str] | None = None) -> None:
        if names is not None and len(names) != classes:
            raise ValueError(f"labels: expected {classes} class names, got {len(names)}")
        self.classes = classes
        self.names = None if names is None else tuple(names)
        self._number = {name: number for number, name in enumerate(names or ())}

    def read(self, answers: Any, count: int, who: str) -> Tensor:
        """The classes of `count` images, int64 [count]; errors begin with `who`.

        answers: an array or nested lists: class numbers or names [count] or [count, 1], or scores
        [count, C], of which the first of the largest counts.

        Raises TeacherError for anything else: another shape, NaN, a class outside [0, C), an
        unknown name.
        """
        wanted = f"{who}: expected {count} classes, or scores [{count}, {self.classes}]"
        array = _as_array(answers, wanted)
        if array.shape == (count, self.classes) and array.dtype.kind in "iuf":
            if np.isnan(array).any():
                raise TeacherError(f"{wanted}, got NaN among the scores")
            return torch.from_numpy(array.argmax(1).astype(np.int64))
        if array.shape not in ((count,), (count, 1)):
            raise TeacherError(f"{wanted}, got an answer of shape {list(array.shape)}")
        return self._numbers(array.reshape(count), wanted)

    def _numbers(self, answers: np.ndarray, wanted: str) -> Tensor:
        if answers.dtype.kind in "OSU":
            return torch.tensor([self._of_name(name, wanted) for name in answers.tolist()])
        if answers.dtype.kind not in "iuf":
            raise TeacherError(f"{wanted}, got {answers.dtype}")
        wrong = ~((answers >= 0) & (answers < self.classes) & (answers == np.floor(answers)))
        if wrong.any():
            first = int(wrong.argmax())
            raise TeacherError(
                f"{wanted}, got class {answers[first]} for image {first}; classes are whole "
                f"numbers in [0, {self.classes})"
            )
        return torch.from_numpy(answers.astype(np.int64))

    def _of_name(self, name: Any, wanted: str) -> int:
        if isinstance(name, bytes):
            name = name.decode("utf-8", "replace")
        if not isinstance(name, str):
            raise TeacherError(f"{wanted}, got {type(name).__name__} for an image")
        if not self._number:
            raise TeacherError(f"{wanted}, got class names; give the file that lists them (labels)")
        if name not in self._number:
            raise TeacherError(f"{wanted}, got a class name that is not in the label file")
        return self._number[name]


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
