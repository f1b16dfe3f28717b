"""Measures the time of a training step on this machine."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from statistics import median

import torch.nn.functional as F
from torch import nn

from db3kd.answers.answers import Answers
from db3kd.answers.batches import AnsweredBatches
from db3kd.training.callbacks import TrainingCallback, TrainingState
from db3kd.training.loop import train_batches
from db3kd.training.settings import TrainSettings

_WARM_UP, _TIMED = 5, 30
"""The first steps allocate memory and choose algorithms, so they are not timed if others are."""

_LONG_ENOUGH = 1.0
"""Seconds after which no further steps are timed, if `_FEWEST` have been."""

_FEWEST = 3

_FEW_IMAGES, _SLOW = 8, 5.0
"""A step that may take over `_SLOW` seconds is timed with a few images only. Every step has costs
that do not depend on its images, so the time of few says little about that of a fast step."""


class _Clock(TrainingCallback):
    """Records the time after each step, and stops training that is slow or was timed enough."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_report(self, state: TrainingState) -> None:
        self.times.append(time.monotonic())
        taken = self.times[-1] - self.times[0]
        if taken > _SLOW or (taken > _LONG_ENOUGH and len(self.times) > _FEWEST):
            state.request_stop()

    @property
    def seconds(self) -> float:
        """Seconds of a step: the median after the warm-up, which a short pause does not change.

        If hardly any step is left after the warm-up, the fastest one counts.
        """
        steps = [after - before for before, after in pairwise(self.times)]
        settled = steps[_WARM_UP - 1 :]
        return median(settled) if len(settled) >= _FEWEST else min(steps)


def seconds_per_step(
    make: Callable[[], nn.Module], answers: Answers, training: TrainSettings
) -> float:
    """Measures the time of a training step on this machine, on the images of any answers."""
    short = replace(training, steps=_WARM_UP + _TIMED)  # so few steps that each is reported

    def timed(images: int) -> float:
        clock = _Clock()
        batches = AnsweredBatches(answers, images, 0)
        train_batches(make, batches, F.cross_entropy, short, progress=False, callbacks=[clock])
        return max(clock.seconds, 1e-7)

    few = min(_FEW_IMAGES, training.batch_size)
    seconds = timed(few)
    if seconds * training.batch_size / few <= _SLOW:
        return timed(training.batch_size)
    more = min(2 * few, training.batch_size)
    if more == few:
        return seconds
    each = max(0.0, timed(more) - seconds) / (more - few)
    return seconds + each * (training.batch_size - few)
