"""What every extraction method is given, and how every student is trained."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.timed_teacher import WrappedCalls
from db3kd.data.image_set import ImageSet
from db3kd.models import build_model
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.teachers import Teacher
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier


class LimitedTeacher(WrappedCalls):
    """Counts the images of every call, and refuses those that exceed a budget.

    Args:
        teacher: The teacher that answers.
        budget: The most images that it answers.

    Attributes:
        asked: The number of images so far.
    """

    def __init__(self, teacher: Teacher, budget: int) -> None:
        super().__init__(teacher)
        self._budget = budget
        self.asked = 0

    def around(self, ask: Any, images: Tensor) -> Any:
        """Answers and counts a call.

        Raises:
            RuntimeError: If the call exceeds the budget.
        """
        if self.asked + len(images) > self._budget:
            raise RuntimeError(
                f"images: expected at most {self._budget - self.asked:,} more of a budget of "
                f"{self._budget:,}, got {len(images):,}"
            )
        self.asked += len(images)
        return ask(images)


@dataclass(frozen=True)
class Task:
    """What a method is given.

    Attributes:
        teacher: The teacher, which counts.
        pool: The images at hand; None if there are none. Only ART's adaptive strategy sees their
            labels.
        budget: The most queries.
        student: The student's architecture.
        steps: Steps of every full training.
        seed: Seeds everything random.
        folder: Where a method may keep its run.
    """

    teacher: LimitedTeacher
    pool: ImageSet | None
    budget: int
    student: str
    steps: int
    seed: int
    folder: Path

    @property
    def images(self) -> ImageSet:
        """The pool of a method that needs one."""
        if self.pool is None:
            raise ValueError("pool: expected images, got None; use a method without images")
        return self.pool

    @property
    def training(self) -> TrainSettings:
        """How students are trained: as `db3kd.distill` does, at the first rate it chooses from.

        Without images, it takes another optimizer.
        """
        given = TrainSettings(steps=self.steps, seed=self.seed, device="cpu")
        settings = DistillSettings(training=given).completed(pseudo_samples=self.pool is None)
        return settings.trained_for(self.steps, settings.learning_rates[0], 0)

    def generator(self) -> torch.Generator:
        """Random numbers of this task, from the start."""
        return torch.Generator().manual_seed(self.seed)

    def new_student(self) -> nn.Module:
        """A student with fresh weights, from torch's global random state."""
        return build_model(self.student, tuple(self.teacher.image_shape), self.teacher.classes)

    def train(self, images: Tensor, decisions: Tensor, steps: int | None = None) -> nn.Module:
        """Trains a fresh student on answers by cross-entropy.

        Args:
            images: [n, *image_shape] float32 in [0, 1].
            decisions: [n] int64, the teacher's classes.
            steps: Steps, if not those of a full training.
        """
        settings = replace(self.training, steps=self.steps if steps is None else steps)
        return train_classifier(
            self.new_student, images, decisions, settings=settings, progress=False
        )


@dataclass(frozen=True)
class Extracted:
    """What a method made.

    Attributes:
        student: The trained network, in eval mode.
        facts: What else is kept about it.
    """

    student: nn.Module
    facts: dict[str, Any]
