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
    except ValueError:
        assume(False)
    training = images - plan.held_out
    most = training if strategy == "decisions" else most_answers(training)
    if plan.queries == plan.held_out + most:
        with pytest.raises(ValueError, match=r"^budget: .* has no use for more than"):
            plan_larger_budget(plan, budget + more)
        return
    if budget + more < (plan.next_useful_budget or 0):
        with pytest.raises(ValueError, match=r"^budget: expected .* or at least"):
            plan_larger_budget(plan, budget + more)
        return
    larger = plan_larger_budget(plan, budget + more)

    assert larger.budget == budget + more
    assert larger.held_out == plan.held_out
    assert larger.queries == min(budget + more, plan.held_out + most)
    assert larger.queries > plan.queries
    rounds = plan.rounds or (plan.label_queries,)
    assert larger.rounds[: len(rounds)] == rounds
    assert min(larger.rounds) >= 1 and not larger.label_queries
    assert larger.parts[0].rounds == rounds
    assert larger.parts[0].held_out_augmented == plan.held_out_augmented
    assert with_further_queries(plan, larger.further[0]) == larger
    assert sum(stage.queries for stage in larger.stages) == larger.queries


def test_a_larger_budget_buys_the_validation_answers_that_the_first_could_not():
    plan = plan_budget(4_000, 10, 1_000)
    assert plan.held_out_augmented == 0
    larger = plan_larger_budget(plan, 5_000)
    assert larger.parts[1].held_out_augmented == 160  # 4 % of those beyond 950 training images
    assert plan_larger_budget(plan, 4_500).held_out_augmented == 0


@pytest.mark.parametrize(
    ("strategy", "proxies", "chosen"),
    [
        ("auto", True, [False, True, True, True, True]),
        ("auto", False, [False, False]),
        ("augmented", True, [False, False]),
    ],
)
def test_only_proxies_of_auto_choose(strategy, proxies, chosen):
    plan = plan_budget(1_000 if strategy == "auto" else 2_000, 10, 1_000, strategy)
    larger = plan_larger_budget(plan, 10_000, proxies=proxies)
    assert larger.chosen_rounds == chosen
    assert larger.rounds_to_choose == sum(chosen)
    whys = [stage.why for stage in larger.stages if stage.name.startswith("augmented")]
    assert whys.count("where proxies are least sure") == sum(chosen)
    assert ("chosen by proxies in 4 of 5 rounds" in larger.text) == (sum(chosen) == 4)


def test_the_time_of_choosing_is_that_of_the_last_budget():
    plan = plan_budget(5_000, 10, 1_000)
    assert plan.rounds_to_choose == 3
    assert plan_larger_budget(plan, 5_300).rounds_to_choose == 1


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
