"""`TrainSettings`: how long, how fast and on what device a network is trained."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from db3kd.arguments.plain import (
    check_choice,
    check_count_fields,
    check_fields,
    check_flag,
    check_not_negative,
    check_number,
    check_positive,
    check_seed,
    check_type,
    suggests_arguments,
)
from db3kd.errors import ArgumentError

_PRECISIONS = ("no", "fp16", "bf16")
_SCHEDULES = ("constant", "cosine")
_OPTIMIZERS = ("adam", "adamw", "sgd")
_USUAL_RATE = 1e-3
_USUAL_EPOCHS = 20

ADAM_DEFAULTS: Mapping[str, Any] = {
    "optimizer": "adam",
    "learning_rate": _USUAL_RATE,
    "schedule": "constant",
    "weight_decay": 0.0,
}
"""Settings of all networks but students of pseudo samples."""

SGD_DEFAULTS: Mapping[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "schedule": "cosine",
    "weight_decay": 5e-4,
}
"""Settings of students of pseudo samples, which then agree with the teacher on more real images
(docs/zero-shot.md)."""


@suggests_arguments
@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a network is trained.

    Example:
        >>> db3kd.TrainSettings(steps=2000, seed=1)
        >>> db3kd.TrainSettings(steps=12000, schedule="cosine", learning_rate=3e-3, ema=0.999)

    Attributes:
        epochs: Passes over the rows. None is 20 if `steps` is None, too.
        steps: The exact number of batches, instead of `epochs`. Students that are compared should
            train for the same number of steps.
        batch_size: Maximum number of rows in a step, over all processes. The batches of an epoch
            differ in size by at most one row. With 2, one batch of an odd number of rows has 3,
            because batch normalisation fails on a single row.
        learning_rate: Initial learning rate. None leaves it to the function that trains: `distill`
            and `compare` choose it, and most others take 1e-3. See `optimizer`.
        schedule: "constant", or "cosine", which lowers the learning rate to 0 over the steps. None
            leaves it to the function that trains: "cosine" for `distill` and `compare`, and
            "constant" for all others.
        seed: Seed of the initial weights, the order of the rows and dropout.
        device: "auto", "cpu", "cuda" or "cuda:<n>". Use "auto" under `accelerate launch`.
        precision: "no" (the dtype of the weights), "fp16" (CUDA only) or "bf16".
        shuffle: Whether to shuffle the rows in each epoch.
        optimizer: "adam", "adamw", or "sgd" (Nesterov momentum of 0.9). None leaves it to the
            function that trains, if no learning rate is set: students of pseudo samples train by
            SGD at 0.05 with a weight decay of 5e-4, all others by Adam.
        weight_decay: Added to the gradient as an L2 penalty by "adam" and "sgd", and decoupled from
            it by "adamw" (Loshchilov and Hutter 2019). Applies to all weights. None is 0, unless
            the function that trains chooses the optimizer.
        ema: Decay of an exponential moving average of the weights, in (0, 1); the trained network
            then has the averaged weights. None keeps the weights of the last step.
        gradient_clip: Maximum L2 norm of the gradient of all weights; None for no limit.

    Raises:
        ValueError: If a value is out of range.
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 128
    learning_rate: float | None = None
    schedule: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "no"
    shuffle: bool = True
    optimizer: str | None = None
    weight_decay: float | None = None
    ema: float | None = None
    gradient_clip: float | None = None

    def __post_init__(self) -> None:
        check_count_fields(self, "batch_size")
        if self.epochs is not None:
            check_count_fields(self, "epochs")
        if self.steps is not None:
            check_count_fields(self, "steps")
            if self.epochs is not None:
                raise ArgumentError(
                    "steps", f"expected epochs or steps, got {self.epochs} and {self.steps}"
                )
        if self.learning_rate is not None:
            check_fields(self, check_positive, "learning_rate")
        check_fields(self, check_seed, "seed")
        check_flag(self.shuffle, "shuffle")
        check_type(self.device, str, "device", 'text such as "auto"')
        check_choice(self.precision, "precision", _PRECISIONS)
        if self.schedule is not None:
            check_choice(self.schedule, "schedule", _SCHEDULES)
        if self.optimizer is not None:
            check_choice(self.optimizer, "optimizer", _OPTIMIZERS)
        if self.weight_decay is not None:
            check_fields(self, check_not_negative, "weight_decay")
        if self.ema is not None:
            check_fields(self, check_number, "ema", expected="None or a number")
            if not 0 < self.ema < 1:
                raise ArgumentError(
                    "ema", f"expected None or a number between 0 and 1, got {self.ema}"
                )
        if self.gradient_clip is not None:
            check_fields(self, check_positive, "gradient_clip")
        if self.device != "auto" and not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ArgumentError(
                "device", f'expected "auto", "cpu", "cuda" or "cuda:<n>", got {self.device!r}'
            )
        if self.device != "auto":
            check_precision(self.precision, self.device)

    @property
    def rate(self) -> float:
        """The initial learning rate; the usual one if none is set."""
        return _USUAL_RATE if self.learning_rate is None else self.learning_rate

    def accepts(self, defaults: Mapping[str, Any]) -> bool:
        """Returns whether neither a learning rate nor another optimizer than this one is set."""
        return self.learning_rate is None and self.optimizer in (None, defaults["optimizer"])

    def completed(self, defaults: Mapping[str, Any] = ADAM_DEFAULTS) -> "TrainSettings":
        """Returns the settings with a value for all that they leave to the function that trains.

        Example:
            >>> db3kd.TrainSettings(steps=2000).completed().schedule
            'constant'

        Args:
            defaults: The optimizer, learning rate, schedule and weight decay of the function, which
                apply unless another optimizer or a learning rate is set. Then those that are not
                set are the usual ones: Adam, 1e-3, constant, 0.
        """
        chosen = defaults if self.accepts(defaults) else ADAM_DEFAULTS
        unset = {name: each for name, each in chosen.items() if getattr(self, name) is None}
        return replace(self, **unset)

    def batches(self, rows: int) -> int:
        """Returns the number of batches in an epoch over `rows` rows."""
        batches = math.ceil(rows / self.batch_size)
        return batches if self.batch_size == 1 else max(1, min(batches, rows // 2))

    def total_steps(self, rows: int) -> int:
        """Returns the number of steps of a training on `rows` rows."""
        if self.steps is not None:
            return self.steps
        return (self.epochs or _USUAL_EPOCHS) * self.batches(rows)


def check_precision(precision: str, device: str) -> None:
    """Checks that a device trains in this precision.

    Args:
        precision: That of `TrainSettings`.
        device: The device of the training, such as "cpu" or "cuda:0".

    Raises:
        ValueError: If the precision is fp16, and it is no CUDA device.
    """
    if precision == "fp16" and not device.startswith("cuda"):
        raise ArgumentError(
            "precision",
            f"fp16 needs a CUDA device, and the device of this training is {device}; use "
            '"bf16" or "no"',
        )
