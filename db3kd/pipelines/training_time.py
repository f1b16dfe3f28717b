"""Fits the training of a distillation into a time limit."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from db3kd.argument_types import check_type
from db3kd.data.arguments import ImagesLike, TeacherLike
from db3kd.data.image_set import ImageSet
from db3kd.distillation.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.distillation.train_settings import TrainSettings
from db3kd.pipelines.asking import ROUND_SHARE, Proxies
from db3kd.pipelines.distill_settings import LEAST_DEFAULT_STEPS, DistillSettings
from db3kd.pipelines.inputs import check_images, convert_inputs
from db3kd.pipelines.prepared_run import PreparedRun, make_networks
from db3kd.pipelines.step_timing import seconds_per_step
from db3kd.pipelines.student_network import StudentLike
from db3kd.pipelines.teaching_rules import (
    CHOICE_SHARE,
    LEAST_STEPS_OF_A_CHOICE,
    can_choose,
    learns_from_new_mixtures,
    proxies_usually_help,
    trains_proxies,
)
from db3kd.planning import BudgetPlan, ComparisonPlan
from db3kd.planning.budget_plan import held_out_pseudo_samples
from db3kd.progress import duration

_LOG = logging.getLogger(__name__)

LEAST_STEPS = 50
"""A time limit does not shorten training below this number of steps."""

_ANSWER_SHARE = 1 / 6
"""Share of a proxy's training step that its answers to the new images of a student's batch take.
The rest of the step reads and mixes images, goes backward and updates weights. It is 0.18 for
LeNet-5 on one CPU core."""

_TIMED_IMAGES = 30
"""Number of images that `time_steps` draws its batches from."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a training step on this machine, and estimates of whole runs from them.

    Attributes:
        student: Of the student.
        proxy: Of a proxy.
        new_mixtures: From `learns_from_new_mixtures`, for the student.
    """

    student: float
    proxy: float
    new_mixtures: bool = True

    def seconds_per_full_step(
        self,
        plan: BudgetPlan,
        settings: DistillSettings,
        steps: int,
        *,
        images_chosen: bool = False,
    ) -> float:
        """Returns the seconds that all training of a run takes for each step of full training.

        If proxies are trained, they are taken to teach the student, although it may turn out that
        they do not.

        Args:
            plan: The plan of the run, some of whose rounds need proxies.
            settings: The number of proxies, and the options to choose from.
            steps: The number of steps of full training; with few, nothing is chosen.
            images_chosen: Whether all images are chosen, so that no proxy chooses any more.
        """
        if plan.label_queries:
            return self.student
        proxies = settings.proxies if plan.uses_proxies else 0
        rounds = 0 if images_chosen else max(0, len(plan.rounds) - 1)
        choosing = rounds * proxies * self.proxy / ROUND_SHARE
        held_out = plan.held_out + plan.held_out_augmented
        if plan.pseudo_samples:
            held_out = held_out_pseudo_samples(plan.pseudo_samples)
        chooses = can_choose(steps, held_out)
        prefer_proxies = not plan.pseudo_samples and proxies_usually_help(
            sum(plan.rounds), plan.training_images, steps, self.new_mixtures
        )
        if not trains_proxies(preferred=prefer_proxies, compared=chooses):
            proxies = 0
        taught_step = self.student + proxies * self.proxy * _ANSWER_SHARE
        choices = 0.0
        if chooses:
            rates = len(settings.learning_rates)
            choices = (rates if rates > 1 else 0) * self.student
            if proxies:
                choices += self.student + taught_step
        return choosing + choices / CHOICE_SHARE + proxies * self.proxy + taught_step

    def most_steps(
        self,
        limit: float,
        plan: BudgetPlan,
        settings: DistillSettings,
        *,
        images_chosen: bool = False,
    ) -> int:
        """Returns the largest number of steps of full training whose total time is within a limit.

        The time of a step changes at the numbers of steps from which on options are compared or
        proxies teach.

        Args:
            limit: Seconds.
            plan: See `seconds_per_full_step`.
            settings: See `seconds_per_full_step`.
            images_chosen: See `seconds_per_full_step`.
        """
        seconds = partial(self.seconds_per_full_step, plan, settings, images_chosen=images_chosen)
        upper = math.inf
        for lower in (LEAST_DEFAULT_STEPS, LEAST_STEPS_OF_A_CHOICE):
            steps = min(limit / seconds(lower), upper)
            if steps >= lower:
                return int(steps)
            upper = lower - 1
        return int(min(limit / seconds(0), upper))

    def of_run(self, plan: BudgetPlan, settings: DistillSettings) -> float:
        """Estimates the seconds of all training of a run, at most its time limit.

        Networks that make pseudo samples or choose the scale of soft labels are not counted.

        Args:
            plan: The plan of the run.
            settings: How networks are trained.
        """
        steps, _ = self.steps_of_run(plan, settings)
        seconds = steps * self.seconds_per_full_step(plan, settings, steps)
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
        return min(
            full, max(LEAST_STEPS, self.most_steps(settings.time_limit, plan, settings))
        ), full

    def of_comparison(self, plan: ComparisonPlan, settings: DistillSettings) -> float:
        """Estimates the seconds of all training of a comparison; see `of_run`.

        Args:
            plan: The plan of the comparison.
            settings: How networks are trained.
        """
        return plan.seeds * sum(self.of_run(each, settings) for each in plan.plans.values())


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
    left, images_chosen = limit - (spent or 0.0), spent is not None
    times = StepTimes(
        seconds_per_step(make_student, answers, settings.training),
        seconds_per_step(proxies.make, answers, settings.training) if proxies.count else 0.0,
        bool(proxies.count)
        and learns_from_new_mixtures(make_student, proxies.make, answers.images.image_shape),
    )
    longest = times.most_steps(left, plan, settings, images_chosen=images_chosen)
    each = times.seconds_per_full_step(plan, settings, longest, images_chosen=images_chosen)
    if left < LEAST_STEPS * each:
        _LOG.warning(
            "time_limit: %g seconds are not enough; training for %d steps, the fewest that are "
            "useful, takes about %s",
            limit,
            LEAST_STEPS,
            duration(LEAST_STEPS * each),
        )
    return max(LEAST_STEPS, longest)


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
    made, proxies = make_networks(student, asked, settings, settings.training.batch_size)
    return _time_steps(
        made.make, proxies.make, tuple(asked.image_shape), image_set, settings.training
    )


def time_prepared_steps(prepared: PreparedRun) -> StepTimes:
    """Measures training steps of a run whose arguments are checked, as `time_steps` does.

    Args:
        prepared: The run.
    """
    return _time_steps(
        prepared.student.make,
        prepared.proxies.make,
        tuple(prepared.teacher.image_shape),
        prepared.images,
        prepared.settings.training,
    )


def _time_steps(
    make_student: Callable[[], nn.Module],
    make_proxy: Callable[[], nn.Module],
    image_shape: tuple[int, ...],
    images: ImageSet | None,
    training: TrainSettings,
) -> StepTimes:
    some = (
        torch.zeros(_TIMED_IMAGES, *image_shape)
        if images is None
        else images.subset(range(min(len(images), _TIMED_IMAGES)))
    )
    order = torch.arange(len(some))
    known = no_answers(augmentable_images(some, order, 0, 0))
    known = known.add(order * NUMBERS + 1, torch.zeros_like(order))
    return StepTimes(
        seconds_per_step(make_student, known, training),
        seconds_per_step(make_proxy, known, training),
        learns_from_new_mixtures(make_student, make_proxy, image_shape),
    )


def _full_steps(plan: BudgetPlan, settings: DistillSettings) -> int:
    answers = plan.queries - plan.held_out - plan.held_out_augmented
    return settings.steps_for(plan.training_images if plan.label_queries else answers)
