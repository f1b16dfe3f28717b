"""The decision stream of a generator function, which yields one class at a time."""

import inspect
from collections.abc import Callable, Generator, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.teachers.answer_arrays import as_answer_array, out_of_range
from db3kd.teachers.base import TeacherError, WrongCountError, failure
from db3kd.teachers.class_numbers import ClassNames
from db3kd.wording import InputNoun, counted

GeneratorFunction = Callable[[np.ndarray], Generator[Any, None, Any]]


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Returns whether a function, or the `__call__` of an object, is defined with `yield`."""
    called = type(function).__call__
    return inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(called)


_END = object()
"""Stands for the end of an iterator, which may yield None."""


class GeneratorStream:
    """The `DecisionStream` of a generator function.

    A call of the function that yields a wrong number of classes loses all of them, because only
    the end of the call shows that some of them belong to other images.

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
        self._classes = classes
        self._names = names
        self._name, self._noun = name, noun
        self._answers = self._all_answers(function, batches)
        self._decisions: list[int] = []
        self._before_call = 0  # number of decisions of the earlier calls of the function

    def next_part(self) -> Tensor:
        """See `DecisionStream.next_part`; each part is one decision."""
        self.maybe_paid = 1  # unless the function answers
        try:
            answer = next(self._answers, _END)
            decision = None if answer is _END else self._checked(answer)
        except WrongCountError as error:
            error.answered = self._all()[: self._before_call]
            raise
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

    def _all_answers(
        self, function: GeneratorFunction, batches: Iterable[np.ndarray]
    ) -> Generator[Any, None, None]:
        """Yields the function's answers to all batches.

        Raises:
            WrongCountError: If it yields another number of answers than it received images.
        """
        for batch in batches:
            self._before_call = len(self._decisions)
            answers = function(batch)
            try:
                for answered in range(len(batch)):
                    if (answer := next(answers, _END)) is _END:
                        raise self._wrong_count(len(batch), str(answered))
                    yield answer
                # The function may still do work after its last answer, such as closing a file.
                if next(answers, _END) is not _END:
                    raise self._wrong_count(len(batch), "more")
            finally:
                answers.close()

    def _wrong_count(self, images: int, got: str) -> WrongCountError:
        return WrongCountError(
            f"{self._expected} ({counted(images, 'class')} for "
            f"{counted(images, self._noun)}), got {got}; which class belongs to which {self._noun} "
            f"is unknown, so none of this call is kept. Yield each {self._noun}'s class once, in "
            "order",
            maybe_paid=images,
        )

    @property
    def _expected(self) -> str:
        return f"teacher {self._name}: expected one class per {self._noun} from the generator"

    def _checked(self, answer: Any) -> int:
        """Returns the class that was yielded."""
        row, expected = len(self._decisions), self._expected
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
