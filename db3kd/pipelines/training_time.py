"""Fits the training of a distillation into a time limit."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from db3kd.argument_types import check_type
from db3kd.data.arguments import ImagesLike, TeacherLike
from db3kd.distillation.answer_batches import AnsweredBatches
from db3kd.distillation.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.distillation.train_settings import TrainSettings
from db3kd.distillation.training_callbacks import TrainingCallback, TrainingState
from db3kd.distillation.training_loop import train_batches
from db3kd.models.networks import build_model
from db3kd.pipelines.asking import ROUND_SHARE, Proxies
from db3kd.pipelines.distill_settings import LEAST_DEFAULT_STEPS, DistillSettings, checked_proxy
from db3kd.pipelines.inputs import check_images, convert_inputs
from db3kd.pipelines.student_network import Student, StudentLike
from db3kd.pipelines.teaching import (
    CHOICE_SHARE,
    LEAST_STEPS_OF_A_CHOICE,
    can_choose,
    learns_from_new_mixtures,
    proxies_usually_help,
)
from db3kd.planning import BudgetPlan, ComparisonPlan
from db3kd.planning.budget_plan import held_out_pseudo_samples
from db3kd.progress import duration

_LOG = logging.getLogger(__name__)

LEAST_STEPS = 50
"""A time limit does not shorten training below this number of steps."""

_ANSWER_SHARE = 1 / 6
"""Share of a proxy's training step that its answers to a batch of a student take. The rest of the
step reads and mixes images, goes backward and updates weights. It is 0.1 for LeNet-5 on two CPU
cores, and at most a third."""

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
    seconds = timed(few)
    if seconds * training.batch_size / few <= _SLOW:
        return timed(training.batch_size)
    more = min(2 * few, training.batch_size)
    if more == few:
        return seconds
    each = max(0.0, timed(more) - seconds) / (more - few)
    return seconds + each * (training.batch_size - few)


def trained_steps(
    plan: BudgetPlan,
    settings: DistillSettings,
    student_step: float,
    proxy_step: float,
    steps: int,
    asked: bool = False,
    new_mixtures: bool = True,
) -> float:
    """Returns the seconds that all training of a run takes for each step of full training.

    If proxies are trained, they are taken to teach the student, although it may turn out that they
    do not.

    Args:
        plan: The plan of the run, some of whose rounds need proxies.
        settings: The number of proxies, and the options to choose from.
        student_step: Seconds of a training step of the student.
        proxy_step: Seconds of a training step of a proxy.
        steps: The number of steps of full training; with few, nothing is chosen.
        asked: Whether all images are chosen, so that no proxy chooses any more.
        new_mixtures: From `learns_from_new_mixtures`.
    """
    if plan.label_queries:
        return student_step
    proxies = settings.proxies if plan.uses_proxies else 0
    rounds = 0 if asked else max(0, len(plan.rounds) - 1)
    choosing = rounds * proxies * proxy_step / ROUND_SHARE
    held_out = plan.held_out + plan.held_out_augmented
    if plan.pseudo_samples:
        held_out = held_out_pseudo_samples(plan.pseudo_samples)
    chooses = can_choose(steps, held_out)
    usual = not plan.pseudo_samples and proxies_usually_help(
        sum(plan.rounds), plan.training_images, steps, new_mixtures
    )
    if not chooses and not usual:
        proxies = 0
    taught_step = student_step + proxies * proxy_step * _ANSWER_SHARE
    choices = 0.0
    if chooses:
        rates = len(settings.learning_rates)
        choices = (rates if rates > 1 else 0) * student_step
        if proxies:
            choices += student_step + taught_step
    return choosing + choices / CHOICE_SHARE + proxies * proxy_step + taught_step


def steps_within(
    limit: float,
    plan: BudgetPlan,
    settings: DistillSettings,
    make_student: Callable[[], nn.Module],
    proxies: Proxies,
    answers: Answers,
    spent: float | None = None,
) -> int:
    """Returns the number of steps of full training with which all training fits into a limit.

    Args:
        limit: Seconds.
        plan: The plan of the run.
        settings: How networks are trained.
        make_student: Makes the student.
        proxies: How proxies are made.
        answers: Any answers, to time steps with.
        spent: Seconds that proxies took to choose images, if they have chosen all of them.
    """
    left = limit - (spent or 0.0)
    student_step = seconds_per_step(make_student, answers, settings.training)
    proxy_step = (
        seconds_per_step(proxies.make, answers, settings.training) if proxies.count else 0.0
    )

    new_mixtures = learns_from_new_mixtures(make_student, answers.images.image_shape)

    def seconds_each(steps: int) -> float:
        asked = spent is not None
        return trained_steps(plan, settings, student_step, proxy_step, steps, asked, new_mixtures)

    longest = _longest(left, seconds_each)
    each = seconds_each(longest)
    if left < LEAST_STEPS * each:
        _LOG.warning(
            "time_limit: %g seconds are not enough; training for %d steps, the fewest that are "
            "useful, takes about %s",
            limit,
            LEAST_STEPS,
            duration(LEAST_STEPS * each),
        )
    return max(LEAST_STEPS, longest)


def _longest(limit: float, seconds_each: Callable[[int], float]) -> int:
    """Returns the largest number of steps of full training whose total time is within a limit.

    Args:
        limit: Seconds.
        seconds_each: Returns the time of each step, with all other training, from their number. It
            changes at the numbers from which on options are compared or proxies teach.
    """
    upper = math.inf
    for lower in (LEAST_DEFAULT_STEPS, LEAST_STEPS_OF_A_CHOICE):
        steps = min(limit / seconds_each(lower), upper)
        if steps >= lower:
            return int(steps)
        upper = lower - 1
    return int(min(limit / seconds_each(0), upper))


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a training step on this machine.

    Attributes:
        student: Of the student.
        proxy: Of a proxy.
        new_mixtures: From `learns_from_new_mixtures`, for the student.
    """

    student: float
    proxy: float
    new_mixtures: bool = True

    def of_run(self, plan: BudgetPlan, settings: DistillSettings) -> float:
        """Estimates the seconds of all training of a run, at most its time limit.

        Networks that make pseudo samples or choose the scale of soft labels are not counted.

        Args:
            plan: The plan of the run.
            settings: How networks are trained.
        """
        steps, _ = self.steps_of_run(plan, settings)
        seconds = steps * self._seconds_each(steps, plan, settings)
        return seconds if settings.time_limit is None else min(seconds, settings.time_limit)

    def steps_of_run(self, plan: BudgetPlan, settings: DistillSettings) -> tuple[int, int]:
        """Estimates the steps of the student of a run, with and without its time limit.

        Args:
            plan: The plan of the run.
            settings: How networks are trained.
        """
        full = _full_steps(plan, settings)
        if settings.time_limit is None:
            return full, full
        longest = _longest(
            settings.time_limit,
            lambda steps: self._seconds_each(steps, plan, settings),
        )
        return min(full, max(LEAST_STEPS, longest)), full

    def of_comparison(self, plan: ComparisonPlan, settings: DistillSettings) -> float:
        """Estimates the seconds of all training of a comparison; see `of_run`.

        Args:
            plan: The plan of the comparison.
            settings: How networks are trained.
        """
        return plan.seeds * sum(self.of_run(each, settings) for each in plan.plans.values())

    def _seconds_each(self, steps: int, plan: BudgetPlan, settings: DistillSettings) -> float:
        return trained_steps(
            plan,
            settings,
            self.student,
            self.proxy,
            steps,
            new_mixtures=self.new_mixtures,
        )


def _full_steps(plan: BudgetPlan, settings: DistillSettings) -> int:
    answers = plan.queries - plan.held_out - plan.held_out_augmented
    return settings.steps_for(plan.training_images if plan.label_queries else answers)


def time_steps(
    teacher: TeacherLike,
    images: ImagesLike | None,
    student: StudentLike | None,
    settings: DistillSettings,
) -> StepTimes:
    """Measures training steps without a query, after the checks that a run makes first.

    Args:
        teacher: The teacher, for the shape of its images and its classes.
        images: The images; None without images.
        student: As for `distill`.
        settings: How networks are trained.

    Raises:
        TypeError: As `distill`.
        ValueError: As `distill`.
    """
    check_type(settings, DistillSettings, "settings", "DistillSettings")
    asked, image_set = convert_inputs(teacher, images)
    if image_set is not None:
        image_set = check_images(image_set, asked)
    shape, classes = tuple(asked.image_shape), asked.classes
    made = Student.of(student, shape, classes, settings.training)
    proxy_name = checked_proxy(settings, made.name, shape, classes)
    proxy = partial(build_model, proxy_name, shape, classes)
    some = (
        torch.zeros(_TIMED, *shape)
        if image_set is None
        else image_set.subset(range(min(len(image_set), _TIMED)))
    )
    order = torch.arange(len(some))
    known = no_answers(augmentable_images(some, order, 0, 0))
    known = known.add(order * NUMBERS + 1, torch.zeros_like(order))
    return StepTimes(
        seconds_per_step(made.make, known, settings.training),
        seconds_per_step(proxy, known, settings.training),
        learns_from_new_mixtures(made.make, shape),
    )
