"""The queries that a larger budget adds to a plan."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from db3kd.planning import plan_budget, plan_larger_budget
from db3kd.planning.budget_plan import most_answers
from db3kd.planning.larger_budget import with_further_queries


@given(
    budget=st.integers(1, 10**7),
    more=st.integers(1, 10**7),
    images=st.integers(2, 10**6),
    strategy=st.sampled_from(["auto", "augmented", "decisions"]),
)
def test_every_further_query_is_planned_and_the_earlier_ones_stay(budget, more, images, strategy):
    try:
        plan = plan_budget(budget, 10, images, strategy)
        larger = plan_larger_budget(plan, budget + more)
    except ValueError as error:
        assert str(error).startswith("budget: ")
        assume(False)
    training = images - plan.held_out
    most = training if strategy == "decisions" else most_answers(training)

    assert larger.budget == budget + more
    assert larger.held_out == plan.held_out
    assert larger.queries == min(budget + more, plan.held_out + most)
    assert larger.queries > plan.queries
    rounds = plan.rounds or (plan.label_queries,)
    assert larger.rounds[: len(rounds)] == rounds
    assert min(larger.rounds) >= 1 and not larger.label_queries
    assert larger.parts[0] == (plan.held_out_augmented, rounds)
    assert with_further_queries(plan, larger.further[0]) == larger
    assert sum(stage.queries for stage in larger.stages) == larger.queries


def test_only_auto_lets_proxies_choose():
    for strategy, count in (("auto", 4), ("augmented", 1)):
        plan = plan_budget(2_000, 10, 1_000, strategy)
        larger = plan_larger_budget(plan, 10_000)
        assert len(larger.further[0].rounds) == count
        whys = [stage.why for stage in larger.stages if stage.name.startswith("augmented")]
        assert ("where proxies are least sure" in whys) == (strategy == "auto")


@pytest.mark.parametrize(
    ("strategy", "images", "refused"),
    [
        ("bd", 100, "with strategy 'bd' cannot be increased: start another run in another folder"),
        ("sd", 100, "with strategy 'sd' cannot be increased"),
        ("zero-shot", None, "with pseudo samples cannot be increased"),
        ("auto", None, "with pseudo samples cannot be increased"),
        ("decisions", 100, "has no use for more than 100 queries with these images, got 600"),
    ],
)
def test_a_strategy_that_cannot_go_on_refuses_a_larger_budget(strategy, images, refused):
    plan = plan_budget(500, 10, images, strategy)
    with pytest.raises(ValueError, match=f"^budget: .*{refused}"):
        plan_larger_budget(plan, 600)
