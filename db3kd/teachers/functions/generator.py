"""The decision stream of a generator function, which yields one class at a time."""

import inspect
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.errors import InputError
from db3kd.teachers.answer_arrays import as_answer_array, out_of_range
from db3kd.teachers.base import TeacherError, failure
from db3kd.teachers.class_numbers import ClassNames
from db3kd.wording import InputNoun, counted

GeneratorFunction = Callable[[np.ndarray], Generator[Any, None, Any]]


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Returns whether a function, or the `__call__` of an object, is defined with `yield`."""
    called = type(function).__call__
    return inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(called)


class GeneratorStream:
    """The `DecisionStream` of a generator function.

    Args:
        function: Takes an array of images and yields a class number or name for each of them.
        batches: Arrays of images, one for each call of the function.
        classes: Number of classes.
        names: Converts class names.
        name: The teacher's name, for errors.
        noun: What errors call an image.
    """

    window = 1

    def __init__(
        self,
        function: GeneratorFunction,
        batches: list[np.ndarray],
        classes: int,
        names: ClassNames,
        name: str,
        noun: InputNoun = "image",
    ) -> None:
        self.maybe_paid = 0
        self._count = sum(map(len, batches))
        self._classes = classes
        self._names = names
        self._name, self._noun = name, noun
        self._answers = _answers(function, batches)
        self._decisions: list[int] = []

    def next_part(self) -> Tensor:
        """See `DecisionStream.next_part`; each part is one decision."""
        self.maybe_paid = 1  # unless the function answers
        try:
            decision = self._checked(next(self._answers, None))
        except TeacherError as error:
            error.answered, error.maybe_paid = self._all(), 1
            raise
        except (Exception, GeneratorExit) as error:
            # Python reports a StopIteration in a generator as a RuntimeError.
            hidden = error.__cause__ if isinstance(error, RuntimeError) else None
            shown = hidden if isinstance(hidden, StopIteration) else error
            teacher_error = failure(self._name, 1, shown, self._noun)
            teacher_error.answered, teacher_error.maybe_paid = self._all(), 1
            raise teacher_error from error
        self.maybe_paid = 0
        if decision is None:
            return torch.empty(0, dtype=torch.int64)
        self._decisions.append(decision)
        return torch.tensor([decision])

    def stop(self) -> Tensor:
        """See `DecisionStream.stop`."""
        self._answers.close()
        return self._all()

    def _all(self) -> Tensor:
        return torch.tensor(self._decisions, dtype=torch.int64)

    def _checked(self, answer: Any) -> int | None:
        """Returns the class that was yielded, or None after the last image."""
        row = len(self._decisions)
        if answer is None and row == self._count:
            return None
        expected = f"teacher {self._name}: expected one class per {self._noun} from the generator"
        if isinstance(answer, str | bytes):
            return self._names.number(answer, row, expected)
        try:
            value = as_answer_array(answer, expected)
            is_integer = value.ndim == 0 and value.dtype.kind in "iu"
        except TeacherError:
            is_integer = False
        if not is_integer and (not isinstance(answer, int) or isinstance(answer, bool)):
            raise TeacherError(
                f"{expected}, got {type(answer).__name__} for {self._noun} {row}; yield each "
                f"{self._noun}'s class once, in order"
            )
        if not 0 <= int(value) < self._classes:
            raise out_of_range(int(value), self._classes, f"teacher {self._name}")
        return int(value)


def _answers(function: GeneratorFunction, batches: list[np.ndarray]) -> Generator[Any, None, None]:
    """Yields the function's answers to all batches, None for each missing one."""
    for batch in batches:
        answers = function(batch)
        try:
            for _ in range(len(batch)):
                yield next(answers, None)
            # The function may still do work after its last answer, such as closing a file.
            for _ in answers:
                raise InputError(f"expected {counted(len(batch), 'answer')}, got more")
        finally:
            answers.close()
