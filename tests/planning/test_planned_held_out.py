"""The number of held-out images: chosen or planned, and what it measures."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db3kd.planning import STRATEGIES, plan_budget, plan_comparison
from db3kd.planning.held_out import precision
from db3kd.report import wilson_interval


@given(
    budget=st.integers(1, 10**7),
    images=st.integers(2, 10**5),
    held_out=st.integers(1, 10**5),
    strategy=st.sampled_from(STRATEGIES),
)
def test_a_chosen_number_is_held_out_within_the_budget_or_refused(
    budget, images, held_out, strategy
):
    try:
        plan = plan_budget(budget, 10, images, strategy, held_out=held_out)
    except ValueError as error:
        assert str(error).startswith(("budget: ", "held_out: ", "images: "))
        return
    assert plan.measured_on == held_out and plan.queries <= budget
    assert 0 < held_out < plan.queries
    if not plan.pseudo_samples:
        assert plan.held_out == held_out < images


@pytest.mark.parametrize(
    ("images", "budget", "held_out", "words"),
    [
        (50, 100, 50, "held_out: expected fewer than the 50 images, .*, got 50"),
        (50, 100, 0, "held_out: expected an integer of at least 1, got 0"),
        (5_000, 119, 100, "budget: expected at least 120 queries, got 119; .* 100 queries for"),
        (None, 249, 50, "budget: expected at least 250 queries, got 249; without images"),
        (None, 10**7, 10**6 + 1, "held_out: expected at most 1,000,000"),
    ],
)
def test_a_number_that_leaves_too_little_is_refused(images, budget, held_out, words):
    with pytest.raises(ValueError, match=words):
        plan_budget(budget, 10, images, held_out=held_out)
    if words.startswith("held_out") and images:
        with pytest.raises(ValueError, match=words):
            plan_comparison(budget, 10, images, held_out=held_out)


def test_without_a_number_the_plan_is_as_before():
    assert plan_budget(3_000, 10, 1_000) == plan_budget(3_000, 10, 1_000, held_out=50)
    assert plan_budget(1_000, 10, None).measured_on == 50


@pytest.mark.parametrize("images", [2, 10, 50, 100, 1_000, 12_346])
def test_the_precision_is_that_of_the_widest_interval(images):
    widths = [high - low for low, high in (wilson_interval(k, images) for k in range(images + 1))]
    assert math.isclose(2 * precision(images), max(widths), rel_tol=1e-9)


@pytest.mark.parametrize(
    ("images", "classes", "held_out", "warned"),
    [
        (5, 10, None, ["only 5 images for 10 classes", "only 1 held-out image,"]),
        (5, 5, 3, ["only 3 held-out images,"]),
        (1_000, 1_001, None, ["only 1,000 images for 1,001 classes"]),
        (200, 10, None, []),
        (199, 10, 9, ["only 9 held-out images,"]),
        (None, 10, None, []),
        (None, 10, 2, ["only 2 held-out images,"]),
    ],
)
def test_too_few_images_are_warned_of_before_the_first_query(images, classes, held_out, warned):
    plan = plan_budget(10_000, classes, images, held_out=held_out)
    assert len(plan.warnings) == len(warned)
    for text, words in zip(plan.warnings, warned, strict=True):
        assert words in text
    both = plan_comparison(
        10_000, classes, images, ["auto", "zero-shot"], held_out=held_out
    ).warnings
    assert set(plan.warnings) <= set(both) and len(set(both)) == len(both)


@pytest.mark.parametrize(
    ("budget", "images", "strategy", "answers"),
    [
        (20, 400, "auto", 19),
        (21, 400, "auto", None),
        (500, 15, "decisions", 13),
        (15, 15, "sd", 13),
        (500, 15, "augmented", None),
    ],
)
def test_too_few_answers_to_train_on_are_warned_of(budget, images, strategy, answers):
    plan = plan_budget(budget, 10, images, strategy)
    trained = [each for each in plan.warnings if "to train" in each or "trains" in each]
    assert len(trained) == (answers is not None)
    if answers is not None:
        words = f"strategy {strategy} trains the student on only {answers} answers for 10 classes"
        assert words in trained[0]


def test_warnings_about_tables_speak_of_rows_and_of_no_pseudo_samples():
    few, measured = plan_budget(40, 10, 5, noun="row").warnings
    assert "only 5 rows for 10 classes" in few and "pseudo samples" not in few
    assert "only 1 held-out row," in measured and "image" not in few + measured


def test_one_query_is_named_in_the_singular():
    plan = plan_budget(225, 10, 200, held_out=199)
    names = {stage.name: stage.queries for stage in plan.stages}
    assert names == {
        "held-out images": 199,
        "held-out augmented image": 1,
        "decision": 1,
        "augmented images": 24,
    }
    assert plan_budget(40, 10, 5).stages[0].name == "held-out image"
    of_rows = plan_budget(22, 10, 20, "augmented", noun="row")
    assert of_rows.stages[-1].name == "augmented rows"
    (stage,) = plan_budget(1_000, 10, None, held_out=1).stages
    assert "1 of them measures" in stage.why


@pytest.mark.parametrize(
    ("budget", "images", "strategy", "reason"),
    [
        (1_500, 1_000, "decisions", "this strategy has no use for more with these rows"),
        (1_500, 1_000, "augmented", None),
        (1_010, 1_000, "auto", "or more also queries augmented rows"),
        (3_000_000, None, "auto", "training uses no more pseudo samples"),
    ],
)
def test_a_plan_says_why_it_does_not_spend_its_budget(budget, images, strategy, reason):
    found = plan_budget(budget, 10, images, strategy, noun="row").why_unused
    assert found is None if reason is None else reason in found
