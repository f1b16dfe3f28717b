"""A service whose model may be replaced while its fingerprint stays the same."""

from collections.abc import Callable

import numpy as np
import pytest

import db3kd
from db3kd.teachers import TeacherError

SHAPE, CLASSES, BATCH = (1, 6, 6), 3, 8


class Service:
    """A service with one fingerprint, whose model may be replaced and whose answers are counted.

    Attributes:
        model: The number of the model that answers.
        answers: The number of answers so far.
        limit: The service is down after this many answers.
        asked: The bytes of each image, in the order of the queries.
    """

    def __init__(self, model: int = 0) -> None:
        self.model, self.answers, self.limit = model, 0, 10**9
        self.asked: list[bytes] = []

    def teacher(self) -> db3kd.FunctionTeacher:
        return db3kd.FunctionTeacher(
            self.classes, SHAPE, CLASSES, max_batch=BATCH, fingerprint="served"
        )

    def stop_at(self, answers: int, run: Callable[[], object]) -> int:
        """Runs until so many queries are answered, and returns the number that are answered."""
        self.limit = answers
        with pytest.raises(TeacherError, match="the service is down"):
            run()
        self.limit = 10**9
        return self.answers

    def classes(self, array: np.ndarray) -> np.ndarray:
        if self.answers + len(array) > self.limit:
            raise OSError("the service is down")
        self.answers += len(array)
        self.asked += [image.tobytes() for image in array]
        random = np.random.default_rng(5)
        first, other = random.normal(size=(2, array[0].size, CLASSES)).astype(np.float32)
        used = first + 0.7 * self.model * other
        return (array.reshape(len(array), -1) @ (used - used.mean(0))).argmax(1)
