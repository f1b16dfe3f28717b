"""Settings of a distillation: how its networks are trained and measured."""

import math
from dataclasses import dataclass, field, replace
from types import NoneType

from db3kd.arguments.plain import (
    check_count_fields,
    check_fields,
    check_positive,
    check_share,
    check_type,
    suggests_arguments,
)
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.models.networks import check_model
from db3kd.training.settings import ADAM_DEFAULTS, SGD_DEFAULTS, TrainSettings

LEAST_DEFAULT_STEPS, MOST_DEFAULT_STEPS = 6_000, 12_000
"""Limits of the default number of training steps, which grows with the number of answers."""

LEARNING_RATES = (3e-3, 1e-3)
"""The learning rates to choose from, the usual one first."""

_SGD_LEARNING_RATES = (SGD_DEFAULTS["learning_rate"], 0.01)
"""Those of students of pseudo samples."""

_EPOCHS, _PSEUDO_SAMPLE_EPOCHS = 6, 15
"""Passes over the answers, which determine the number of steps between the limits. Students of many
pseudo samples gain from longer training (docs/zero-shot.md)."""

_SMALL_SIDE = 64


@suggests_arguments
@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """How proxies and the student are trained, and on how many images they are measured.

    Example:
        >>> settings = db3kd.DistillSettings(proxies=3, time_limit=600)

    Attributes:
        training: How every network is trained. `steps` None derives the number of steps from the
            number of answers; `epochs` must be None. `schedule` None is "cosine".
        learning_rates: The learning rates to choose from, by validation agreement after short
            training runs. A single one is used as it is, and strategies that measure distances use
            the first. Empty: the learning rate of `training`, or 3e-3 and 1e-3 if it is None.
            Students of pseudo samples train by SGD at 0.05 or 0.01 instead, unless a rate or
            another optimizer is set.
        proxy: Name of the proxies' architecture, for `build_model`; None for `proxy_for`.
        proxies: Number of proxies: networks that first learn the teacher's decisions, then choose
            the queries, and teach the student on images that are not queried. 0 for none. Without
            images they only teach.
        alpha: Weight of the teacher's decision against the proxies' probabilities for the same
            image, in [0, 1].
        time_limit: Approximate seconds that all training may take; None for no limit. All networks
            train proportionally shorter, and proxies may not teach the student then. The speed of
            this machine is measured before images are chosen and before the student is trained, so
            the result depends on the machine.
        patience: Stops the training of the student after this many reports (of about a hundred) in
            a row without a higher validation agreement, and keeps the best weights; None to train
            to the end.
        held_out: Number of held-out images, or of held-out pseudo samples without images, on which
            the agreement is measured; fewer than the images. Each costs a query within the budget.
            None for one in twenty, at most 1,000 (one in ten of fewer than 100 images).

    Raises:
        ValueError: If a value is out of range.
    """

    training: TrainSettings = field(default_factory=TrainSettings)
    learning_rates: tuple[float, ...] = ()
    proxy: str | None = None
    proxies: int = 2
    alpha: float = 0.5
    time_limit: float | None = None
    patience: int | None = None
    held_out: int | None = None

    def __post_init__(self) -> None:
        check_type(
            self.training, TrainSettings, "training", "TrainSettings", "use TrainSettings(...)"
        )
        if isinstance(self.learning_rates, int | float):
            raise ArgumentTypeError(
                "learning_rates",
                f"expected a tuple of numbers, got {self.learning_rates}; use "
                f"({self.learning_rates},)",
            )
        if self.training.epochs is not None:
            raise ArgumentError(
                "training.epochs",
                "expected None, because training is measured in steps, got "
                f"{self.training.epochs}; set training.steps",
            )
        check_type(self.learning_rates, (tuple, list), "learning_rates", "a tuple of numbers")
        check_type(self.proxy, (str, NoneType), "proxy", "the name of a network or None")
        scheduled = replace(self.training, schedule=self.training.schedule or "cosine")
        object.__setattr__(self, "training", scheduled)
        rates = tuple(check_positive(rate, "learning_rates") for rate in self.learning_rates)
        object.__setattr__(self, "learning_rates", rates)
        check_count_fields(self, "proxies", least=0)
        check_fields(self, check_share, "alpha")
        if self.time_limit is not None:
            check_fields(self, check_positive, "time_limit")
        if self.patience is not None:
            check_count_fields(self, "patience")
        if self.held_out is not None:
            check_count_fields(self, "held_out")

    def completed(self, *, pseudo_samples: bool) -> "DistillSettings":
        """Returns the settings with the optimizer and the learning rates of a student.

        Args:
            pseudo_samples: Whether the student learns from pseudo samples.
        """
        training, rate = self.training, self.training.learning_rate
        rates = self.learning_rates or (LEARNING_RATES if rate is None else (rate,))
        by_sgd = pseudo_samples and not self.learning_rates and training.accepts(SGD_DEFAULTS)
        if by_sgd:
            rates = _SGD_LEARNING_RATES
        completed = training.completed(SGD_DEFAULTS if by_sgd else ADAM_DEFAULTS)
        # That of `training` stays unset, because one of these is chosen.
        return replace(self, training=replace(completed, learning_rate=rate), learning_rates=rates)

    def steps_for(self, answers: int, *, pseudo_samples: bool = False) -> int:
        """Returns the number of steps of full training; see `default_steps`."""
        if self.training.steps is not None:
            return self.training.steps
        return self.default_steps(answers, pseudo_samples=pseudo_samples)

    def default_steps(self, answers: int, *, pseudo_samples: bool = False) -> int:
        """Returns the number of steps of full training if the settings state none.

        Args:
            answers: The number of answers to train on.
            pseudo_samples: Whether they are for pseudo samples.
        """
        epochs = _PSEUDO_SAMPLE_EPOCHS if pseudo_samples else _EPOCHS
        steps = epochs * math.ceil(answers / self.training.batch_size)
        return max(LEAST_DEFAULT_STEPS, min(steps, MOST_DEFAULT_STEPS))

    def trained_for(self, steps: int, learning_rate: float, seed: int) -> TrainSettings:
        """Returns the settings for one network; `seed` is added to that of `training`."""
        return replace(
            self.training,
            steps=steps,
            learning_rate=learning_rate,
            seed=self.training.seed + seed,
        )


def default_student(image_shape: tuple[int, ...]) -> str:
    """Returns the name of a small network for images, or rows of a table, of this shape."""
    if len(image_shape) == 1:
        return "mlp"
    return "lenet5-half" if max(image_shape[1:]) <= _SMALL_SIDE else "resnet18"


def with_fixed_steps(settings: DistillSettings, steps: int) -> DistillSettings:
    """Returns the settings with this number of steps, whatever the answers and the time limit."""
    return replace(settings, training=replace(settings.training, steps=steps), time_limit=None)


def of_default(steps: int, default: int) -> str:
    """Returns how long a training was, such as "5 % of the default of 6,000"."""
    if steps == default:
        return "the default"
    return f"{100 * steps / default:.3g} % of the default of {default:,}"


def proxy_for(student: str | None, image_shape: tuple[int, ...]) -> str:
    """Returns the name of the proxies' architecture.

    It is the largest of the student's family, because a network of the teacher's size learns its
    decisions better than a smaller one (docs/measurements.md).
    """
    name = default_student(image_shape) if student is None else student
    return name if ":" in name else name.partition("-")[0]


def checked_proxy(
    settings: DistillSettings, student: str | None, image_shape: tuple[int, ...], classes: int
) -> str:
    """Returns the name of the proxies' architecture, after checking that it fits.

    Raises:
        ValueError: If such a network cannot be made, or does not accept the images.
    """
    proxy = settings.proxy or proxy_for(student, image_shape)
    check_model(proxy, image_shape, classes, "proxy")
    return proxy
