"""The answers of a function that yields one class an image, each kept before the next is asked."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError, failure


class GeneratorStream:
    """A `db3kd.teachers.base.DecisionStream` of a generator function.

    function  an array of images -> their classes, one after the other
    arrays    of images, one for each call of the function
    classes   number of classes
    name      what errors call the teacher
    """

    window = 1

    def __init__(
        self,
        function: Callable[[np.ndarray], Iterator[Any]],
        arrays: list[np.ndarray],
        classes: int,
        name: str,
    ) -> None:
        self.maybe_paid = 0
        self._count = sum(map(len, arrays))
        self._classes = classes
        self._name = name
        self._answers = _answers(function, arrays)
        self._decisions: list[int] = []

    def next_part(self) -> Tensor:
        """As `DecisionStream.next_part`; a part is one decision."""
        self.maybe_paid = 1  # an interrupt may come while the function works
        try:
            decision = self._checked(next(self._answers, None))
        except TeacherError as error:
            self.maybe_paid = 0
            error.answered = self._all()
            raise
        except (Exception, GeneratorExit) as error:
            self.maybe_paid = 0
            ended = isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration)
            shown = error.__cause__ if ended else error
            raised = failure(self._name, 1, shown)
            raised.answered = self._all()
            raise raised from error
        self.maybe_paid = 0
        if decision is None:
            return torch.empty(0, dtype=torch.int64)
        self._decisions.append(decision)
        return torch.tensor([decision])

    def stop(self) -> Tensor:
        """As `DecisionStream.stop`."""
        self._answers.close()
        return self._all()

    def _all(self) -> Tensor:
        return torch.tensor(self._decisions, dtype=torch.int64)

    def _checked(self, answer: Any) -> int | None:
        """The class that an answer is; None behind the last."""
        if answer is None and len(self._decisions) == self._count:
            return None
        who = f"teacher {self._name}"
        try:
            value = np.asarray(answer)
            whole = value.ndim == 0 and value.dtype.kind in "iu"
        except ValueError:
            whole = False
        if not whole:
            raise TeacherError(
                f"{who}: expected one class number an image from the generator, got "
                f"{type(answer).__name__} for image {len(self._decisions)}; yield each image's "
                "class once, in order"
            )
        if not 0 <= int(value) < self._classes:
            raise TeacherError(
                f"{who} answered class {int(value)}, expected [0, {self._classes}); number the "
                "classes from 0 or correct `classes`"
            )
        return int(value)


def _answers(
    function: Callable[[np.ndarray], Iterator[Any]], arrays: list[np.ndarray]
) -> Iterator[Any]:
    """What the function yields for each array in turn, None in place of what it does not."""
    for array in arrays:
        answers = function(array)
        try:
            for _ in range(len(array)):
                yield next(answers, None)
            # What the function does after its last answer belongs to it, such as closing a file.
            for _ in answers:
                raise ValueError(f"expected {len(array)} answers, got more")
        finally:
            answers.close()
