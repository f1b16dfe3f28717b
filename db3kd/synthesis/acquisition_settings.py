"""Settings of the students that choose pseudo samples, and how much they train."""

import math
from dataclasses import dataclass
from itertools import pairwise

from db3kd.arguments.plain import (
    check_count_fields,
    check_fields,
    check_positive,
    suggests_arguments,
)
from db3kd.training.settings import TrainSettings

_LEAST_STEPS = 300
"""Training steps of a student in a round with few answers, unless `steps` is smaller."""


@suggests_arguments
@dataclass(frozen=True)
class AcquisitionSettings:
    """How students choose the images that the teacher decides.

    Example:
        >>> chooses = AcquisitionSettings("lenet5-half", rounds=8)
        >>> settings = db3kd.SynthesisSettings(samples=50_000, acquisition=chooses)

    Attributes:
        model: The architecture of the students, a name for `build_model`.
        rounds: Number of rounds, with equal numbers of samples. The first round takes starts in
            order.
        pool: Proposals per chosen image. Half of them are new starts, and half are masked mixes:
            one image shown in another through a soft shape.
        students: Number of students that choose.
        steps: Maximum number of training steps of each student in a round.
        epochs: Passes over the answers so far that a student makes in a round, within 300 and
            `steps` steps. So the time of a run grows with its number of samples.
        learning_rate: Initial learning rate of the students, which then train by Adam; None for SGD
            at 0.05 with a weight decay of 5e-4.
        device: As in `TrainSettings`.

    Raises:
        ValueError: If a number is not above 0, or `device` is invalid.
    """

    model: str = "lenet5-half"
    rounds: int = 5
    pool: int = 8
    students: int = 2
    steps: int = 1500
    epochs: int = 10
    learning_rate: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        check_count_fields(self, "rounds", "pool", "students", "steps", "epochs")
        if self.learning_rate is not None:
            check_fields(self, check_positive, "learning_rate")
        TrainSettings(device=self.device)  # raises if it is invalid

    def steps_for(self, answers: int) -> int:
        """Returns the training steps of a student that learns this number of answers."""
        wanted = math.ceil(self.epochs * answers / TrainSettings.batch_size)
        return min(self.steps, max(_LEAST_STEPS, wanted))

    def samples_before(self, round_number: int, samples: int) -> int:
        """Returns how many of all samples are collected before a round, from 0."""
        return samples * round_number // self.rounds

    def total_steps(self, samples: int, held_out: int) -> int:
        """Returns the training steps of all students of a run whose first round finds two classes.

        Args:
            samples: The number of samples.
            held_out: How many of them no student learns.
        """
        return self.students * sum(
            self.steps_for(self.samples_before(each, samples) - held_out)
            for each in self._choosing_rounds(samples, held_out)
        )

    def total_rankings(self, samples: int, held_out: int) -> int:
        """Returns how many images the students of a run rank, those of each student counted.

        The arguments are those of `total_steps`.
        """
        chosen = sum(
            self.samples_before(each + 1, samples) - self.samples_before(each, samples)
            for each in self._choosing_rounds(samples, held_out)
        )
        return self.students * self.pool * chosen

    def _choosing_rounds(self, samples: int, held_out: int) -> list[int]:
        """Returns the rounds whose images students choose: there are answers to learn, and more."""
        before = [self.samples_before(each, samples) for each in range(self.rounds + 1)]
        return [
            each for each, (known, last) in enumerate(pairwise(before)) if held_out < known < last
        ]
