"""Measures training steps, and fits the training of a distillation into a time limit."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from db3kd.answers.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.data.image_set import ImageSet
from db3kd.models.networks import build_model
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.prepared_run import PreparedRun
from db3kd.pipelines.query_rounds.rounds import Proxies
from db3kd.pipelines.student_training.distance_students import chooses_scale
from db3kd.pipelines.student_training.rules import (
    has_batch_normalisation,
    learns_from_new_mixtures,
)
from db3kd.pipelines.student_training.step_timing import seconds_per_step
from db3kd.pipelines.student_training.time_estimate import (
    LEAST_STEPS,
    StepTimes,
    steps_of_acquisition,
)
from db3kd.planning import BudgetPlan
from db3kd.progress import duration
from db3kd.scale.search import scale_training
from db3kd.surrogates import SurrogateSettings
from db3kd.synthesis import AcquisitionSettings, SynthesisSettings
from db3kd.teachers import Teacher
from db3kd.training.settings import TrainSettings

_LOG = logging.getLogger(__name__)

_TIMED_IMAGES = 30
"""Number of images that batches of timed steps are drawn from."""


def steps_within(
    limit: float,
    plan: BudgetPlan,
    settings: DistillSettings,
    make_student: Callable[[], nn.Module],
    proxies: Proxies,
    answers: Answers,
    spent: float | None = None,
    least: int = 0,
) -> int:
    """Returns the number of steps of full training with which all training fits into a limit.

    Args:
        limit: In seconds.
        plan: The plan of the run.
        settings: How networks are trained.
        make_student: Makes a student.
        proxies: How proxies are made.
        answers: Any answers, with which steps are timed.
        spent: The seconds in which proxies chose images; None if they are still to choose some.
        least: The least number of steps, even beyond the limit; at least `LEAST_STEPS`.
    """
    left, images_chosen = limit - (spent or 0.0), spent is not None
    times = _step_times(make_student, proxies, answers, settings.training)
    longest = times.most_steps(left, plan, settings, images_chosen=images_chosen)
    least = max(LEAST_STEPS, least)
    if longest < least:
        each = times.seconds_per_full_step(plan, settings, least, images_chosen=images_chosen)
        ranking = 0.0 if images_chosen else times.seconds_of_ranking(plan, settings)
        chosen = f", of which choosing images took {duration(spent)}" if spent else ""
        _LOG.warning(
            "time_limit: %g seconds are not enough%s; training for %s steps, the fewest that are "
            "useful, takes about %s",
            limit,
            chosen,
            f"{least:,}",
            duration(ranking + least * each),
        )
    return max(least, longest)


def time_prepared_steps(prepared: PreparedRun, plans: Iterable[BudgetPlan]) -> StepTimes:
    """Measures training steps of a run, without a query.

    Networks that none of its plans needs are not timed.
    """
    plans = list(plans)
    settings = prepared.settings.completed(pseudo_samples=prepared.images is None)
    training = settings.training
    make_student = prepared.student.make
    shape = tuple(prepared.teacher.image_shape)
    some = (
        torch.zeros(_TIMED_IMAGES, *shape, dtype=torch.float32)
        if prepared.images is None
        else prepared.images.subset(range(min(len(prepared.images), _TIMED_IMAGES)))
    )
    known = _answered(some)
    make_choosing = partial(build_model, AcquisitionSettings.model, shape, prepared.teacher.classes)
    scaling = scale_training(training, len(some))
    return replace(
        _step_times(make_student, prepared.proxies, known, training),
        acquisition=seconds_per_step(make_choosing, known, TrainSettings(device=training.device))
        if any(plan.pseudo_samples for plan in plans)
        else 0.0,
        scale=seconds_per_step(make_student, known, scaling)
        if any(map(chooses_scale, plans))
        else 0.0,
    )


def _step_times(
    make_student: Callable[[], nn.Module],
    proxies: Proxies,
    answers: Answers,
    training: TrainSettings,
) -> StepTimes:
    """Measures a step of the student, and of a proxy if there are any, on the images of answers."""
    student = seconds_per_step(make_student, answers, training)
    if not proxies.count:
        return StepTimes(student=student, proxy=0.0, new_mixtures=False)
    return StepTimes(
        student=student,
        proxy=seconds_per_step(proxies.make, answers, training),
        new_mixtures=learns_from_new_mixtures(
            make_student, proxies.make, answers.images.image_shape
        ),
        batch_normalisation=has_batch_normalisation(make_student),
    )


def seconds_of_surrogate(teacher: Teacher, settings: SurrogateSettings) -> float:
    """Estimates the seconds that the networks of a surrogate train on this machine."""
    model = settings.model_for(tuple(teacher.image_shape))
    return settings.steps * _seconds_per_step_of(model, teacher, settings.training)


def seconds_of_choosing(teacher: Teacher, settings: SynthesisSettings) -> float:
    """Estimates the seconds of the students that choose pseudo samples; 0 if none do."""
    acquisition = settings.acquisition
    samples = min(settings.samples, settings.max_queries or settings.samples)
    if acquisition is None or not (
        steps := steps_of_acquisition(acquisition, samples, settings.held_out)
    ):
        return 0.0
    training = TrainSettings(device=acquisition.device)
    return steps * _seconds_per_step_of(acquisition.model, teacher, training)


def _seconds_per_step_of(model: str, teacher: Teacher, training: TrainSettings) -> float:
    """Measures a training step of a network of db3kd's on images of the teacher's shape."""
    shape = tuple(teacher.image_shape)
    make = partial(build_model, model, shape, teacher.classes)
    return seconds_per_step(
        make, _answered(torch.zeros(_TIMED_IMAGES, *shape, dtype=torch.float32)), training
    )


def _answered(images: ImageSet | Tensor) -> Answers:
    """Returns answers to time steps with, one for each image."""
    order = torch.arange(len(images))
    known = no_answers(augmentable_images(images, order, 0, 0))
    return known.add(order * NUMBERS + 1, torch.zeros_like(order))
