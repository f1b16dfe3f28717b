"""Estimates how long the training of a whole run takes, from the times of its steps."""

import math
from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from functools import partial

from db3kd.answers.image_choice import proposals_to_rank
from db3kd.pipelines.distill_settings import LEAST_DEFAULT_STEPS, DistillSettings, with_fixed_steps
from db3kd.pipelines.query_rounds.pseudo_sample_answers import acquisition_settings
from db3kd.pipelines.query_rounds.rounds import ROUND_DIVISOR
from db3kd.pipelines.student_training.distance_students import chooses_scale
from db3kd.pipelines.student_training.rules import (
    CHOICE_DIVISOR,
    LEAST_STEPS_OF_A_CHOICE,
    can_choose,
    least_steps_for_proxies,
    proxies_usually_help,
    reason_against_proxies,
    trains_proxies,
)
from db3kd.planning import BudgetPlan, ComparisonPlan
from db3kd.scale.search import scale_steps
from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.training.settings import TrainSettings

LEAST_STEPS = 50
"""A time limit does not shorten training below this number of steps."""

_ANSWER_SHARE = 1 / 6
"""Share of a proxy's training step that its answers to the new images of a student's batch take.
The rest of the step reads and mixes images, runs the backward pass and updates weights. It is 0.18
for LeNet-5 on one CPU core."""

_PROXY_RANKING_SHARE = 0.35
"""Share of a proxy's training step that it takes to rank as many augmented images, which are read
first. It is 0.35 for LeNet-5 on one CPU core."""

_RANKING_SHARE = 0.5
"""Share of a training step that a student which chooses pseudo samples takes to rank as many
images. A large part of that time makes the images. It is 0.55 for LeNet-5-half on one CPU core."""


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Seconds of a training step on this machine, and estimates of whole runs from them.

    Attributes:
        student: Of the student.
        proxy: Of a proxy.
        new_mixtures: From `learns_from_new_mixtures`, for the student.
        batch_normalisation: From `has_batch_normalisation`, for the student; False without proxies.
        acquisition: Of a student that chooses pseudo samples; 0 if it was not measured.
        scale: Of a student that chooses the scale of soft labels; 0 if it was not measured.
    """

    student: float
    proxy: float
    new_mixtures: bool = True
    batch_normalisation: bool = False
    acquisition: float = 0.0
    scale: float = 0.0

    def seconds_per_full_step(
        self,
        plan: BudgetPlan,
        settings: DistillSettings,
        steps: int,
        *,
        images_chosen: bool = False,
    ) -> float:
        """Returns the seconds, per step of the student, of all training that a limit applies to.

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
        rounds = 0 if images_chosen else plan.rounds_to_choose
        choosing = rounds * proxies * self.proxy / ROUND_DIVISOR
        pseudo_samples = bool(plan.pseudo_samples)
        held_out = plan.held_out + plan.held_out_augmented
        chooses = can_choose(steps, plan.measured_on if pseudo_samples else held_out)
        if pseudo_samples:
            reason = reason_against_proxies(
                plan.training_samples,
                steps,
                settings.training.batch_size,
                batch_normalisation=self.batch_normalisation,
            )
            trained = reason is None
        else:
            preferred = proxies_usually_help(
                sum(plan.rounds), plan.training_images, steps, self.new_mixtures
            )
            trained = trains_proxies(preferred=preferred, compared=chooses)
        if not trained:
            proxies = 0
        taught_step = self.student + proxies * self.proxy * _ANSWER_SHARE
        choices = 0.0
        if chooses:
            chosen = settings.completed(pseudo_samples=pseudo_samples)
            rates = len(chosen.learning_rates)
            choices = (rates if rates > 1 else 0) * self.student
            if proxies and not pseudo_samples:
                choices += self.student + taught_step
        return choosing + choices / CHOICE_DIVISOR + proxies * self.proxy + taught_step

    def most_steps(
        self,
        limit: float,
        plan: BudgetPlan,
        settings: DistillSettings,
        *,
        images_chosen: bool = False,
    ) -> int:
        """Returns the largest number of steps of full training whose seconds are within `limit`.

        The time in which proxies rank images does not depend on the number of steps. That of a step
        changes at the numbers of steps from which on options are compared or proxies teach. The
        other arguments are those of `seconds_per_full_step`.
        """
        seconds = partial(self.seconds_per_full_step, plan, settings, images_chosen=images_chosen)
        if not images_chosen:
            limit -= self.seconds_of_ranking(plan, settings)
        return _longest(limit, seconds, _thresholds(plan, settings))

    def seconds_of_ranking(self, plan: BudgetPlan, settings: DistillSettings) -> float:
        """Estimates the seconds in which proxies rank the images that they choose from.

        Args:
            plan: The plan of the run.
            settings: The number of proxies and the size of a training step.
        """
        ranked = settings.proxies * sum(proposals_to_rank(*each) for each in plan.choices)
        return _PROXY_RANKING_SHARE * self.proxy * ranked / settings.training.batch_size

    def of_run(
        self, plan: BudgetPlan, settings: DistillSettings, spent: float | None = None
    ) -> float:
        """Estimates the seconds of all training of a run that is left.

        Args:
            plan: The plan of the run.
            settings: How networks are trained. Their time limit holds for the proxies and the
                student.
            spent: The seconds of the time limit in which proxies chose images; None if they are
                still to choose some.
        """
        images_chosen = spent is not None
        steps, _ = self.steps_of_run(plan, settings, spent)
        each = self.seconds_per_full_step(plan, settings, steps, images_chosen=images_chosen)
        ranking = 0.0 if images_chosen else self.seconds_of_ranking(plan, settings)
        seconds = ranking + steps * each
        if settings.time_limit is not None:
            left = settings.time_limit - (spent or 0.0)
            seconds = min(seconds, max(left, ranking + LEAST_STEPS * each))
        return seconds + self._outside_limit(plan, settings, steps)

    def steps_of_run(
        self, plan: BudgetPlan, settings: DistillSettings, spent: float | None = None
    ) -> tuple[int, int]:
        """Estimates the steps of the student of a run, with and without its time limit.

        Args:
            plan: The plan of the run.
            settings: How networks are trained.
            spent: As for `of_run`.
        """
        full = _full_steps(plan, settings)
        if settings.time_limit is None:
            return full, full
        left, images_chosen = settings.time_limit - (spent or 0.0), spent is not None
        longest = self.most_steps(left, plan, settings, images_chosen=images_chosen)
        return min(full, max(LEAST_STEPS, longest)), full

    def of_comparison(self, plan: ComparisonPlan, settings: DistillSettings, budget: int) -> float:
        """Estimates the seconds of all training of a comparison; see `of_run`.

        Args:
            plan: The plan of the comparison.
            settings: How networks are trained.
            budget: Maximum number of queries of each student.
        """
        equal = with_fixed_steps(settings, self.steps_of_comparison(plan, settings, budget))
        return plan.seeds * sum(self.of_run(each, equal) for each in plan.plans.values())

    def steps_of_comparison(
        self, plan: ComparisonPlan, settings: DistillSettings, budget: int
    ) -> int:
        """Returns the steps of every student of a comparison, which fit into its time limit.

        Args:
            plan: The plan of the comparison.
            settings: How networks are trained.
            budget: Maximum number of queries of each student.
        """
        steps = settings.steps_for(budget)
        if settings.time_limit is None:
            return steps
        equal = with_fixed_steps(settings, steps)
        plans = plan.plans.values()

        def seconds(steps: int) -> float:
            return sum(self.seconds_per_full_step(each, equal, steps) for each in plans)

        ranking = sum(self.seconds_of_ranking(each, equal) for each in plans)
        limit = settings.time_limit / plan.seeds - ranking
        thresholds = set().union(*(_thresholds(each, equal) for each in plans))
        return min(steps, max(LEAST_STEPS, _longest(limit, seconds, thresholds)))

    def _outside_limit(self, plan: BudgetPlan, settings: DistillSettings, steps: int) -> float:
        """Estimates the seconds of the networks that the time limit does not cover.

        They choose pseudo samples, or the scale of soft labels.

        Args:
            plan: The plan of the run.
            settings: How networks are trained.
            steps: The steps of the student.
        """
        if plan.pseudo_samples:
            acquisition = acquisition_settings(settings.training)
            counts = plan.pseudo_samples, plan.measured_on
            return self.acquisition * steps_of_acquisition(acquisition, *counts)
        if chooses_scale(plan):
            rows = plan.training_images
            return self.scale * scale_steps(replace(settings.training, steps=steps), rows)
        return 0.0


def steps_of_acquisition(acquisition: AcquisitionSettings, samples: int, held_out: int) -> float:
    """Returns how many training steps take as long as all work of students that choose images.

    Args:
        acquisition: How students choose images.
        samples: The number of samples.
        held_out: How many of them no student learns.
    """
    ranked = acquisition.total_rankings(samples, held_out) / TrainSettings.batch_size
    return acquisition.total_steps(samples, held_out) + _RANKING_SHARE * ranked


def _longest(limit: float, seconds: Callable[[int], float], thresholds: Set[int]) -> int:
    """Returns the largest number of steps that take no longer than a limit.

    Args:
        limit: In seconds.
        seconds: Returns the seconds per step of a training of so many steps.
        thresholds: The numbers of steps at which the seconds per step change.
    """
    upper = math.inf
    for lower in sorted(thresholds, reverse=True):
        steps = min(limit / seconds(lower), upper)
        if steps >= lower:
            return int(steps)
        upper = lower - 1
    return int(min(limit / seconds(0), upper))


def _thresholds(plan: BudgetPlan, settings: DistillSettings) -> set[int]:
    """Returns from how many steps on options are compared, and proxies teach."""
    if plan.pseudo_samples:
        least = least_steps_for_proxies(plan.training_samples, settings.training.batch_size)
        return {least, LEAST_STEPS_OF_A_CHOICE}
    return {LEAST_DEFAULT_STEPS, LEAST_STEPS_OF_A_CHOICE}


def _full_steps(plan: BudgetPlan, settings: DistillSettings) -> int:
    if plan.pseudo_samples:
        trained_on = plan.training_samples
    elif plan.label_queries:
        trained_on = plan.training_images
    else:
        trained_on = plan.queries - plan.held_out - plan.held_out_augmented
    return settings.steps_for(trained_on, pseudo_samples=bool(plan.pseudo_samples))
