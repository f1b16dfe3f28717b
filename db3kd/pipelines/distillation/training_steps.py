"""How many steps the networks of a distillation are trained for, within its time limit."""

from db3kd.answers.answers import Answers
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.distill_settings import LEAST_DEFAULT_STEPS
from db3kd.pipelines.distillation.prepared import PreparedDistillation
from db3kd.pipelines.student_training.rules import IMAGES_PER_SAMPLE
from db3kd.pipelines.student_training.time_limit import steps_within


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
    images and, as the speed of a machine changes, again when all images are chosen.

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
    spent = notes.seconds_of_choosing(len(plan.further))
    limited = notes.once(
        "steps_to_choose_within_limit" if choosing else "steps_within_limit",
        {
            "student": prepared.student.identity,
            "proxy": prepared.proxies.name,
            "proxies_teach_from": (
                IMAGES_PER_SAMPLE if plan.pseudo_samples else LEAST_DEFAULT_STEPS
            ),
            "settings": settings,
            **({"queries": plan.queries} if plan.further else {}),
        },
        lambda: steps_within(
            limit,
            plan,
            settings,
            prepared.student.make,
            prepared.proxies,
            answers,
            None if choosing else spent,
        ),
    )
    return min(steps, limited)
