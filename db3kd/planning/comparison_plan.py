"""Plans the queries of a comparison of strategies, before the first query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from db3kd.arguments.plain import check_count, check_type
from db3kd.errors import ArgumentError
from db3kd.planning.budget_plan import plan_budget
from db3kd.planning.held_out import check_held_out, few_held_out_warning
from db3kd.planning.plan import STRATEGIES, BudgetPlan, Strategy
from db3kd.wording import InputNoun, did_you_mean

COMPARED: tuple[Strategy, ...] = ("auto", "augmented", "decisions", "mbd")
"""The strategies that are compared by default."""


@dataclass(frozen=True)
class ComparisonPlan:
    """The plans of several strategies at the same budget, made by `plan_comparison`.

    Attributes:
        strategies: All strategies, in the order of the table.
        plans: The plan of each strategy that can be used.
        refused: Why each of the others cannot be used, without the name of an argument.
        seeds: Number of students per strategy. Each student has its own queries.
        test_images: Number of images that the teacher classifies once, to measure all students on.
    """

    strategies: tuple[Strategy, ...]
    plans: Mapping[Strategy, BudgetPlan]
    refused: Mapping[Strategy, str]
    seeds: int
    test_images: int

    @property
    def queries(self) -> int:
        """Maximum number of queries of all students, including those about the test images."""
        return self.seeds * sum(plan.queries for plan in self.plans.values()) + self.test_images

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth changing before the first query: too few images, or held-out images.

        Few held-out images are no reason for a warning if test images measure the agreement.
        """
        tested = self.test_images > 0
        found = (
            each
            for plan in self.plans.values()
            for each in plan.warnings
            if not (tested and each == few_held_out_warning(plan.measured_on, plan.noun))
        )
        return tuple(dict.fromkeys(found))


def plan_comparison(
    budget: int,
    classes: int,
    images: int | None,
    strategies: Sequence[Strategy] = COMPARED,
    *,
    seeds: int = 3,
    test_images: int = 0,
    held_out: int | None = None,
    noun: InputNoun = "image",
    proxies: bool = True,
) -> ComparisonPlan:
    """Plans each strategy at the same budget.

    Example:
        >>> plan = plan_comparison(500, classes=10, images=1_000)
        >>> plan.refused["mbd"]
        "strategy 'mbd' needs one decision for each of 1,000 images, got 500 queries; …"

    Args:
        budget: Maximum number of queries of each student.
        classes: Number of classes of the teacher.
        images: Number of images; None if there are none.
        strategies: Some of `STRATEGIES`.
        seeds: Number of students of each strategy.
        test_images: Number of test images; 0 for none.
        held_out: Number of held-out images of each student, as for `plan_budget`.
        noun: What errors and plans call an image: "image", or "row" for tables.
        proxies: Whether the runs have proxies, as for `plan_budget`.

    Raises:
        ValueError: If a strategy is unknown or named twice, or if none can be used.
    """
    seeds = check_count(seeds, "seeds")
    _check_strategies(strategies)
    held_out = check_held_out(held_out, images, noun)
    plans, refused = {}, {}
    for strategy in strategies:
        try:
            plans[strategy] = plan_budget(
                budget, classes, images, strategy, held_out=held_out, noun=noun, proxies=proxies
            )
        except ArgumentError as error:
            refused[strategy] = error.problem
    if not plans:
        reasons = "; ".join(f"{strategy}: {reason}" for strategy, reason in refused.items())
        raise ArgumentError("strategies", f"none of them can be used. {reasons}")
    return ComparisonPlan(tuple(strategies), plans, refused, seeds, test_images)


def _check_strategies(strategies: Sequence[Strategy]) -> None:
    """Checks the strategies of a comparison.

    Raises:
        TypeError: If they are no list.
        ValueError: If one is unknown or listed twice, or if there are none.
    """
    check_type(strategies, (list, tuple), "strategies", "a list of strategies")
    unknown = [each for each in strategies if each not in STRATEGIES]
    if unknown or not strategies:
        got = f"{unknown[0]!r}{did_you_mean(unknown[0], STRATEGIES)}" if unknown else "none"
        raise ArgumentError("strategies", f"expected some of {', '.join(STRATEGIES)}, got {got}")
    if len(set(strategies)) < len(strategies):
        raise ArgumentError("strategies", f"expected each once, got {', '.join(strategies)}")
