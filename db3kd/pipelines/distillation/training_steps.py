"""How many steps the networks of a distillation are trained for, within its time limit."""

from typing import Any

from db3kd.answers.answers import Answers
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.distill_settings import LEAST_DEFAULT_STEPS
from db3kd.pipelines.distillation.prepared import PreparedDistillation
from db3kd.pipelines.student_training.rules import IMAGES_PER_SAMPLE
from db3kd.pipelines.student_training.time_limit import steps_within

_TO_CHOOSE, _TO_TRAIN = "steps_to_choose_within_limit", "steps_within_limit"

_KEPT_SHARE = 0.5
"""The least share of the steps planned before proxies chose images that is trained afterwards, even
beyond the limit. A choice that took longer than estimated must not ruin the student."""


def training_steps(
    prepared: PreparedDistillation,
    answers: Answers,
    known: int,
    notes: DistillNotes,
    *,
    choosing: bool = False,
) -> int:
    """Returns the steps of full training.

    A time limit is converted into steps twice for each budget: before the first proxies choose
    images and, as the speed of a machine changes, again when all images are chosen. The time of
    the choice counts, unless it was made with another limit or other settings.

    Args:
        prepared: The checked arguments of the distillation.
        answers: Answers with which a step is timed.
        known: The number of answers, or of labels, to train on.
        notes: Keep the steps that a time limit led to.
        choosing: Whether proxies are still to choose images.
    """
    plan, settings = prepared.plan, prepared.student_settings
    steps, limit = prepared.full_steps(known), settings.time_limit
    if limit is None:
        return steps
    if choosing:
        notes.seconds_of_choosing(len(plan.further))  # notes those of earlier budgets
        spent, planned = None, 0
    else:
        spent, planned = seconds_of_choice(prepared, notes), _planned_steps(prepared, notes)
    limited = notes.once(
        _TO_CHOOSE if choosing else _TO_TRAIN,
        _depends_on(prepared),
        lambda: steps_within(
            limit,
            plan,
            settings,
            prepared.student.make,
            prepared.proxies,
            answers,
            spent,
            least=int(_KEPT_SHARE * min(planned, steps)),
        ),
    )
    return min(steps, limited)


def seconds_of_choice(prepared: PreparedDistillation, notes: DistillNotes) -> float:
    """Returns the seconds in which proxies chose images that count towards the time limit.

    Args:
        prepared: The checked arguments of the distillation.
        notes: The notes of its run, all images of which are chosen.
    """
    if not notes.holds(_TO_CHOOSE, _depends_on(prepared)):
        return 0.0
    return notes.seconds_of_choosing(len(prepared.plan.further))


def _planned_steps(prepared: PreparedDistillation, notes: DistillNotes) -> int:
    """Returns the steps that were planned before the choice; 0 if it had another limit."""
    holds = notes.holds(_TO_CHOOSE, _depends_on(prepared))
    return int(notes.get(_TO_CHOOSE)["value"]) if holds else 0


def _depends_on(prepared: PreparedDistillation) -> dict[str, Any]:
    """Returns what the steps within a time limit depend on, besides the machine."""
    plan = prepared.plan
    return {
        "student": prepared.student.identity,
        "proxy": prepared.proxies.name,
        "proxies_teach_from": IMAGES_PER_SAMPLE if plan.pseudo_samples else LEAST_DEFAULT_STEPS,
        "settings": prepared.student_settings,
        **({"queries": plan.queries} if plan.further else {}),
    }
