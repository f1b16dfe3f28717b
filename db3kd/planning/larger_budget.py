"""Plans the further queries of a run whose budget is increased."""

from dataclasses import replace

from db3kd.arguments.plain import check_count
from db3kd.errors import ArgumentError
from db3kd.planning.budget_plan import LEAST_CHOSEN, ROUNDS, most_answers
from db3kd.planning.held_out import held_out_augmented
from db3kd.planning.plan import BudgetPlan, FurtherQueries


def plan_larger_budget(plan: BudgetPlan, budget: int, *, proxies: bool = True) -> BudgetPlan:
    """Returns a plan with the further queries of a larger budget; those of `plan` stay as they are.

    The held-out images stay the same, because the augmented images of a run depend on which images
    are held out. `auto` divides the further queries into rounds, for all of which proxies choose;
    `augmented` and `decisions` make one random round of them. The decisions of a plan in which
    `auto` computes SD labels become its first round.

    Example:
        >>> plan = plan_budget(1_000, classes=10, images=1_000)
        >>> larger = plan_larger_budget(plan, 10_000)
        >>> larger.rounds, larger.queries
        ((950, 2160, 2160, 2160, 2160), 10000)

    Args:
        plan: The plan of the run.
        budget: The larger budget.
        proxies: Whether the run has proxies; without, `auto` makes one random round, too.

    Returns:
        The plan of the run with the larger budget.

    Raises:
        TypeError: If the budget is no integer.
        ValueError: If the strategy cannot add queries to a plan, or has no use for more.
    """
    budget = check_count(budget, "budget")
    if not plan.can_grow:
        what = "pseudo samples" if plan.pseudo_samples else f"strategy {plan.strategy!r}"
        raise ArgumentError(
            "budget",
            f"expected {plan.budget:,}, with which the run was started, got {budget:,}; the budget "
            f"of a run with {what} cannot be increased: start another run in another folder",
        )
    if plan.next_useful_budget is not None and budget < plan.next_useful_budget:
        raise ArgumentError(
            "budget",
            f"expected {plan.budget:,}, or at least {plan.next_useful_budget:,}, which also "
            f"queries augmented {plan.noun}s, got {budget:,}",
        )
    plan = _with_decisions_as_round(plan)
    training = plan.training_images
    answered = sum(plan.rounds)
    left = min(budget - plan.held_out, most_answers(training))
    augmented = 0
    if plan.strategy == "decisions":
        left = min(left, training)
    else:
        versions = held_out_augmented(plan.held_out, training, left)
        augmented = max(0, versions - plan.held_out_augmented)
    more = left - plan.held_out_augmented - answered
    augmented = min(augmented, max(0, more - 1))
    queries = more - augmented
    if queries < 1:
        raise ArgumentError(
            "budget",
            f"strategy {plan.strategy!r} has no use for more than {plan.queries:,} queries with "
            f"these {plan.noun}s, got {budget:,}",
        )
    chosen = plan.strategy == "auto" and proxies
    count = min(ROUNDS, max(1, queries // LEAST_CHOSEN)) if chosen else 1
    part = queries // count
    rounds = (queries - part * (count - 1), *[part] * (count - 1))
    return with_further_queries(plan, FurtherQueries(budget, augmented, rounds, chosen))


def with_further_queries(plan: BudgetPlan, further: FurtherQueries) -> BudgetPlan:
    """Returns a plan with the queries that a larger budget added.

    Args:
        plan: The plan before.
        further: What was added.
    """
    plan = _with_decisions_as_round(plan)
    return replace(
        plan,
        budget=further.budget,
        held_out_augmented=plan.held_out_augmented + further.held_out_augmented,
        rounds=(*plan.rounds, *further.rounds),
        further=(*plan.further, further),
    )


def _with_decisions_as_round(plan: BudgetPlan) -> BudgetPlan:
    """Returns a plan in which the decisions that SD labels are made of are a round."""
    if not plan.label_queries:
        return plan
    return replace(plan, rounds=(plan.label_queries,), label_queries=0)
