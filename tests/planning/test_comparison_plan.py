"""The plan of a comparison: a plan or a reason for each strategy, and the total."""

import pytest

from db3kd.planning import STRATEGIES, plan_budget, plan_comparison


def test_each_strategy_has_its_plan_and_the_total_counts_seeds_and_test_images():
    plan = plan_comparison(2_000, 10, 500, ("mbd", "auto", "decisions"), seeds=3, test_images=700)

    assert plan.strategies == ("mbd", "auto", "decisions") and not plan.refused
    for strategy, each in plan.plans.items():
        assert each == plan_budget(2_000, 10, 500, strategy)
    assert plan.queries == 3 * (2_000 + 2_000 + 500) + 700


def test_a_strategy_that_cannot_be_used_has_a_reason_and_costs_nothing():
    plan = plan_comparison(300, 10, 500, STRATEGIES, seeds=2)

    assert set(plan.refused) == {"sd", "bd", "mbd", "db3kd-paper"}
    assert "needs one decision for each of 500 images" in plan.refused["mbd"]
    assert plan.queries == 2 * 4 * 300


def test_without_images_most_strategies_are_refused():
    plan = plan_comparison(1_000, 10, None, ("auto", "augmented", "zero-shot"))

    assert set(plan.plans) == {"auto", "zero-shot"}
    assert "needs images" in plan.refused["augmented"]


@pytest.mark.parametrize(
    ("strategies", "words"),
    [
        ((), "strategies: expected some of auto, .*, got none"),
        (("auto", "best"), "strategies: expected some of auto, .*, got 'best'"),
        (("auto", "sd", "auto"), "strategies: expected each once, got auto, sd, auto"),
        (
            ("sd", "bd"),
            "none of them can be used. sd: strategy 'sd' needs .*; bd: strategy 'bd'",
        ),
    ],
)
def test_other_strategies_are_refused(strategies, words):
    with pytest.raises(ValueError, match=words):
        plan_comparison(300, 10, 500, strategies)
