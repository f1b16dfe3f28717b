"""Divides a query budget among the stages of a strategy."""

from dataclasses import replace

from db3kd.arguments.plain import check_choice, check_count
from db3kd.boundary.sign_opt_settings import MAX_CLASSES
from db3kd.errors import ArgumentError
from db3kd.planning.held_out import (
    LEAST_ANSWERS_PER_CLASS,
    check_held_out,
    held_out_augmented,
    held_out_images,
)
from db3kd.planning.plan import FEW_FURTHER, LABEL_MEASURES, STRATEGIES, BudgetPlan, Strategy
from db3kd.wording import InputNoun, counted

ROUNDS = 4
"""Number of rounds. The first one is random, proxies choose the images of the others."""

_LEAST_QUERIES = 20
_LEAST_PSEUDO_SAMPLES_PER_CLASS = 20
_MOST_ANSWERS = 2_000_000
_MOST_PER_IMAGE = 2**16
"""Training would not see more answers, and more mixtures of one image teach nothing new."""

MOST_PER_PAIR = 20_000
"""Queries for one distance, as many as in the paper."""

_QUERIES_PER_TARGET = 20
_LEAST_TARGETS = 3
"""If the budget gives a class fewer queries, only the nearest classes are searched, but at least
this many. With fewer, soft labels are no better than those of SD (docs/measurements.md)."""

_SD_IMAGES = range(_LEAST_QUERIES, 20_001)
"""Numbers of images for which `auto` computes the distances between all images."""

LEAST_CHOSEN = 200
"""With fewer augmented images there is one random round, since proxies would learn too little."""


def plan_budget(
    budget: int,
    classes: int,
    images: int | None,
    strategy: Strategy = "auto",
    *,
    held_out: int | None = None,
    noun: InputNoun = "image",
    proxies: bool = True,
) -> BudgetPlan:
    """Divides a budget among the stages of a strategy.

    The plan depends only on these numbers, so it can be shown before the first query. Queries
    beyond what training can use are not spent.

    Example:
        >>> plan = plan_budget(20_000, classes=10, images=1_000)
        >>> [(stage.name, stage.queries) for stage in plan.stages]

    Args:
        budget: Maximum number of queries.
        classes: Number of classes of the teacher.
        images: Number of images; None if there are none.
        strategy: One of `STRATEGIES`.
        held_out: Number of held-out images, fewer than the images; they cost a query each within
            the budget. None for one in twenty, at most 1,000.
        noun: What errors and the plan call an image: "image", or "row" for tables.
        proxies: Whether the run has proxies; without, `auto` makes one random round.

    Raises:
        ValueError: If the strategy is unknown or does not fit, if there are too few images, or if
            the budget is too small for any useful student. The message names the smallest one.
    """
    budget = check_count(budget, "budget")
    classes = check_count(classes, "classes", least=2)
    check_choice(strategy, "strategy", STRATEGIES)
    if strategy == "zero-shot" or images is None:
        return _plan_pseudo_samples(strategy, budget, classes, held_out, noun)
    images = check_count(images, "images")
    if images < 2:
        raise ArgumentError(
            "images", "expected at least 2, one to train on and one to hold out, got 1"
        )
    chosen = check_held_out(held_out, images, noun)
    least = max(_LEAST_QUERIES, LEAST_ANSWERS_PER_CLASS * classes)
    least = min(images - (chosen or 0), least)
    circumstances = f"with {counted(images, noun)} of {classes:,} classes"
    _check_useful(budget, least, circumstances, chosen)
    held_out = held_out_images(images, budget, chosen)
    plan = BudgetPlan(
        strategy, budget, images, held_out, classes=classes, noun=noun, proxies=proxies
    )
    if strategy in LABEL_MEASURES:
        return _plan_distances(plan, images, classes)
    return _plan_rounds(plan)


def _plan_pseudo_samples(
    strategy: Strategy, budget: int, classes: int, held_out: int | None, noun: InputNoun
) -> BudgetPlan:
    """Plans a run that makes its images."""
    if strategy not in ("auto", "zero-shot"):
        raise ArgumentError(
            "images",
            f'strategy {strategy!r} needs {noun}s, got none; pass {noun}s, or use "zero-shot"',
        )
    held_out = check_held_out(held_out, None)
    least = _LEAST_PSEUDO_SAMPLES_PER_CLASS * classes
    _check_useful(budget, least, "without images", held_out)
    return BudgetPlan(
        strategy,
        budget,
        None,
        pseudo_samples=min(budget, _MOST_ANSWERS),
        pseudo_held_out=held_out,
        classes=classes,
        noun=noun,
    )


def _plan_distances(plan: BudgetPlan, images: int, classes: int) -> BudgetPlan:
    """Adds the queries of a strategy that measures distances to a plan with held-out images."""
    strategy, budget, noun = plan.strategy, plan.budget, plan.noun
    held_out, training = plan.held_out, plan.training_images
    if LABEL_MEASURES[strategy] == "mbd" and classes > MAX_CLASSES:
        raise ArgumentError(
            "strategy",
            f"{strategy!r} needs a teacher with at most {MAX_CLASSES:,} "
            f"classes, got {classes:,}; use another strategy",
        )
    if training < 2:
        others = "one" if held_out == 1 else f"{held_out:,}"
        raise ArgumentError(
            "images",
            f"strategy {strategy!r} needs at least {2 + held_out:,}, two to measure a distance "
            f"between and {others} to hold out, got {images:,}",
        )
    left = budget - held_out
    if left < training:
        raise ArgumentError(
            "budget",
            f"strategy {strategy!r} needs one decision for each of "
            f"{counted(images, noun)}, got {counted(budget, 'query')}; use fewer {noun}s or "
            "another strategy",
        )
    most = training * (1 + MOST_PER_PAIR * (classes - 1))
    queries = training if strategy == "sd" else min(left, most)
    targets = None
    if strategy in ("bd", "mbd"):
        count = max(_LEAST_TARGETS, (queries // training - 1) // _QUERIES_PER_TARGET)
        targets = count if count < classes - 1 else None
    return replace(plan, label_queries=queries, targets=targets)


def _plan_rounds(plan: BudgetPlan) -> BudgetPlan:
    """Adds the rounds of a strategy that queries decisions to a plan with held-out images."""
    strategy, held_out, training = plan.strategy, plan.held_out, plan.training_images
    left = min(plan.budget - held_out, most_answers(training))
    few = training <= left < (1 + FEW_FURTHER) * training
    if strategy == "auto" and few and training in _SD_IMAGES:
        return replace(plan, label_queries=training)
    if strategy == "decisions":
        return replace(plan, rounds=(min(training, left),))
    augmented = held_out_augmented(held_out, training, left)
    rounds: tuple[int, ...] = (left - augmented,)
    if strategy == "auto" and plan.proxies:
        rounds = _choice_rounds(training, left - augmented)
    return replace(plan, held_out_augmented=augmented, rounds=rounds)


def most_answers(training: int) -> int:
    """Returns the largest number of answers that training can use.

    Args:
        training: Number of images that may be trained on.
    """
    return max(training, min(_MOST_ANSWERS, training * _MOST_PER_IMAGE))


def _choice_rounds(training: int, queries: int) -> tuple[int, ...]:
    """Divides the queries into rounds; proxies trained on earlier answers choose the later ones."""
    if queries < training:
        # The first half is random. Proxies choose the rest of the images.
        if queries < 2 * LEAST_CHOSEN:
            return (queries,)
        later = queries // (2 * (ROUNDS - 1))
        return (queries - later * (ROUNDS - 1), *[later] * (ROUNDS - 1))
    spare = queries - training
    if spare < LEAST_CHOSEN * ROUNDS:
        return (queries,)
    part = spare // ROUNDS
    return (training + spare - part * (ROUNDS - 1), *[part] * (ROUNDS - 1))


def _check_useful(budget: int, least: int, circumstances: str, held_out: int | None) -> None:
    """Checks that the queries suffice for training, besides those of chosen held-out images."""
    if held_out is not None:
        least += held_out
        circumstances += f" and with {counted(held_out, 'query')} for held-out ones"
    if budget < least:
        raise ArgumentError(
            "budget",
            f"expected at least {counted(least, 'query')}, got {budget:,}; "
            f"{circumstances}, fewer queries train no useful student",
        )
