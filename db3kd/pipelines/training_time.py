"""Fits the training of a distillation into a time limit."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from db3kd.data.image_set import ImageSet
from db3kd.distillation.answer_batches import AnsweredBatches
from db3kd.distillation.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.distillation.train_settings import TrainSettings
from db3kd.distillation.training_callbacks import TrainingCallback, TrainingState
from db3kd.distillation.training_loop import train_batches
from db3kd.models.networks import build_model
from db3kd.pipelines.asking import ROUND_SHARE, Proxies
from db3kd.pipelines.distill_settings import DistillSettings, proxy_for
from db3kd.pipelines.student_network import Student
from db3kd.pipelines.teaching import CHOICE_SHARE
from db3kd.planning import BudgetPlan, ComparisonPlan
from db3kd.progress import duration
from db3kd.teachers import Teacher

_LOG = logging.getLogger(__name__)

LEAST_STEPS = 50
"""A time limit does not shorten training below this number of steps."""

_FORWARD_SHARE = 1 / 3
"""Share of a training step that a forward pass takes."""

_WARM_UP, _TIMED = 3, 10

_FEW_IMAGES, _SLOW = 8, 0.5
"""A step that takes over `_SLOW` seconds is timed only once, with a few images."""


class _Clock(TrainingCallback):
    """Records the time after each step, and stops slow training after the second step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_report(self, state: TrainingState) -> None:
        self.times.append(time.monotonic())
        if len(self.times) == 2 and self.seconds > _SLOW:
            state.request_stop()

    @property
    def seconds(self) -> float:
        """The mean seconds of the steps after the warm-up."""
        first = min(_WARM_UP, len(self.times) - 1) - 1
        return (self.times[-1] - self.times[first]) / (len(self.times) - 1 - first)


def seconds_per_step(
    make: Callable[[], nn.Module], answers: Answers, training: TrainSettings
) -> float:
    """Measures the time of a training step on this machine.

    Args:
        make: Makes the network.
        answers: Any answers; their images are read for the batches.
        training: How it is trained.
    """
    short = replace(training, steps=_WARM_UP + _TIMED)  # so few steps that each is reported

    def timed(images: int) -> float:
        clock = _Clock()
        batches = AnsweredBatches(answers, images, 0)
        train_batches(make, batches, F.cross_entropy, short, callbacks=[clock])
        return max(clock.seconds, 1e-7)

    few = min(_FEW_IMAGES, training.batch_size)
    estimate = timed(few) * training.batch_size / few
    return estimate if estimate > _SLOW else timed(training.batch_size)


def trained_steps(
    plan: BudgetPlan, settings: DistillSettings, student_step: float, proxy_step: float
) -> float:
    """Returns the seconds that all training of a run takes for each step of full training.

    Args:
        plan: The plan of the run, some of whose rounds need proxies.
        settings: The number of proxies, and the options to choose from.
        student_step: Seconds of a training step of the student.
        proxy_step: Seconds of a training step of a proxy.
    """
    proxies = settings.proxies if plan.uses_proxies else 0
    taught_step = student_step + proxies * proxy_step * _FORWARD_SHARE
    choosing = max(0, len(plan.rounds) - 1) * proxies * proxy_step / ROUND_SHARE
    rates = len(settings.learning_rates)
    choices = (rates if rates > 1 else 0) * student_step / CHOICE_SHARE
    if proxies:
        choices += (student_step + taught_step) / CHOICE_SHARE
    return choosing + choices + proxies * proxy_step + taught_step


def steps_within(
    limit: float,
    plan: BudgetPlan,
    settings: DistillSettings,
    make_student: Callable[[], nn.Module],
    proxies: Proxies,
    answers: Answers,
) -> int:
    """Returns the number of steps of full training with which all training fits into a limit.

    Args:
        limit: Seconds.
        plan: The plan of the run.
        settings: How networks are trained.
        make_student: Makes the student.
        proxies: How proxies are made.
        answers: Any answers, to time steps with.
    """
    student_step = seconds_per_step(make_student, answers, settings.training)
    proxy_step = (
        seconds_per_step(proxies.make, answers, settings.training) if proxies.count else 0.0
    )
    each = trained_steps(plan, settings, student_step, proxy_step)
    if limit < LEAST_STEPS * each:
        _LOG.warning(
            "time_limit: %g seconds are not enough; training for %d steps, the fewest that are "
            "useful, takes about %s",
            limit,
            LEAST_STEPS,
            duration(LEAST_STEPS * each),
        )
    return max(LEAST_STEPS, int(limit / each))


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a training step on this machine.

    Attributes:
        student: Of the student.
        proxy: Of a proxy.
    """

    student: float
    proxy: float

    def of_run(self, plan: BudgetPlan, settings: DistillSettings) -> float:
        """Estimates the seconds of all training of a run, at most its time limit.

        Networks that make pseudo samples or choose the scale of soft labels are not counted.

        Args:
            plan: The plan of the run.
            settings: How networks are trained.
        """
        answers = plan.queries - plan.held_out - plan.held_out_augmented
        steps = settings.steps_for(plan.training_images if plan.label_queries else answers)
        seconds = steps * trained_steps(plan, settings, self.student, self.proxy)
        return seconds if settings.time_limit is None else min(seconds, settings.time_limit)

    def of_comparison(self, plan: ComparisonPlan, settings: DistillSettings) -> float:
        """Estimates the seconds of all training of a comparison; see `of_run`.

        Args:
            plan: The plan of the comparison.
            settings: How networks are trained.
        """
        return plan.seeds * sum(self.of_run(each, settings) for each in plan.plans.values())


def time_steps(
    teacher: Teacher,
    images: ImageSet | None,
    student: str | nn.Module | Callable[[], nn.Module] | None,
    settings: DistillSettings,
) -> StepTimes:
    """Measures training steps without a query.

    Args:
        teacher: The teacher, for the shape of its images and its classes.
        images: The images; None without images.
        student: As for `distill`.
        settings: How networks are trained.
    """
    shape, classes = tuple(teacher.image_shape), teacher.classes
    made = Student.of(student, shape, classes)
    proxy = partial(build_model, settings.proxy or proxy_for(made.name, shape), shape, classes)
    some = (
        torch.zeros(_TIMED, *shape)
        if images is None
        else images.subset(range(min(len(images), _TIMED)))
    )
    order = torch.arange(len(some))
    known = no_answers(augmentable_images(some, order, 0, 0))
    known = known.add(order * NUMBERS + 1, torch.zeros_like(order))
    return StepTimes(
        seconds_per_step(made.make, known, settings.training),
        seconds_per_step(proxy, known, settings.training),
    )
