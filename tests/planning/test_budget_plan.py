"""The division of a budget: every query is planned, and never one more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db3kd.planning import STRATEGIES, plan_budget, plan_comparison
from db3kd.planning.budget_plan import _MOST_ANSWERS, _MOST_PER_IMAGE, MOST_PER_PAIR
from db3kd.planning.held_out import LEAST_VALIDATION
from db3kd.planning.plan import LABEL_MEASURES


@given(
    budget=st.integers(1, 10**13),
    classes=st.integers(2, 1000),
    images=st.integers(2, 10**6),
    strategy=st.sampled_from(STRATEGIES),
)
def test_a_plan_never_exceeds_its_budget_and_leaves_nothing_that_it_could_spend(
    budget, classes, images, strategy
):
    try:
        plan = plan_budget(budget, classes, images, strategy)
    except ValueError as error:
        assert str(error).startswith(("budget: ", "images: "))
        return
    assert plan.queries <= budget
    assert all(stage.queries > 0 for stage in plan.stages)
    if strategy in ("bd", "mbd", "db3kd-paper"):
        most = plan.training_images * (1 + MOST_PER_PAIR * (classes - 1))
        assert plan.queries == min(budget, plan.held_out + most)
    elif strategy == "zero-shot":
        assert plan.queries == min(budget, _MOST_ANSWERS)
    elif strategy == "auto" and plan.measure:
        assert plan.queries == images and budget < 1.1 * images
    elif strategy in ("auto", "augmented"):
        training = plan.training_images
        most = max(training, min(_MOST_ANSWERS, training * _MOST_PER_IMAGE))
        asked = sum(plan.rounds) + plan.held_out_augmented
        assert asked == min(budget - plan.held_out, most)
        validation = plan.held_out + plan.held_out_augmented
        assert plan.held_out_augmented == 0 or validation >= LEAST_VALIDATION
    else:
        assert plan.queries == min(budget, images)
    if strategy != "zero-shot":
        assert 1 <= plan.held_out < images
        assert plan.held_out <= 1000
        assert min(plan.rounds, default=1) >= 1


def test_the_smallest_useful_budget_is_named_and_accepted():
    with pytest.raises(ValueError, match="at least 20 queries, got 19; with 1,000 images of 10"):
        plan_budget(19, 10, 1000)
    assert plan_budget(20, 10, 1000).queries == 20
    with pytest.raises(ValueError, match="at least 200 queries, got 199; without images"):
        plan_budget(199, 10, None)


def test_augmented_held_out_images_are_queried_once_they_suffice_to_compare_options():
    # 4 % of the queries beyond one per image, and 50 held-out images, are 200 validation answers.
    few, enough = (plan_budget(budget, 10, 1_000, "augmented") for budget in (4_700, 4_800))
    assert few.held_out_augmented == 0 and few.rounds == (4_650,)
    assert enough.held_out_augmented == 152 and enough.rounds == (4_598,)
    assert plan_budget(2_000, 10, 1_000, "augmented", held_out=300).held_out_augmented == 40


def test_a_budget_that_no_training_could_use_is_not_spent():
    for strategy in STRATEGIES:
        plan = plan_budget(10**12, 10, 50, strategy)
        assert plan.queries < 10**8 and plan.budget == 10**12
    assert plan_budget(10**9, 10, 2).queries <= 2**16 + 2000
    assert plan_budget(10**9, 10, 10**8).queries == 10**8, "every image may be asked about"


def test_fewer_images_than_classes_can_be_planned():
    plan = plan_budget(10, 1000, 10)
    assert (plan.held_out, plan.rounds) == (1, (9,))


@pytest.mark.parametrize(
    ("budget", "measure"), [(999, None), (1_000, "sd"), (1_094, "sd"), (1_095, None)]
)
def test_a_query_an_image_and_little_more_gives_soft_labels_from_sd(budget, measure):
    plan = plan_budget(budget, 10, 1_000)
    assert plan.measure == measure
    assert plan.uses_proxies == (measure is None)
    if measure:
        assert plan.label_queries == plan.training_images == 950 and plan.queries == 1_000
    assert plan_budget(1_000, 10, 1_000, "decisions").measure is None


@pytest.mark.parametrize("images", [37, 99, 100, 400, 1_003, 20_000])
def test_the_next_useful_budget_is_the_smallest_that_auto_spends_otherwise(images):
    further = plan_budget(images, 3, images).next_useful_budget
    assert further is not None
    for budget in (images, further - 1):
        plan = plan_budget(budget, 3, images)
        assert plan.measure == "sd" and plan.queries == images
    other = plan_budget(further, 3, images)
    assert other.measure is None and other.queries > images
    assert other.next_useful_budget is None
    assert plan_budget(images, 3, images, "sd").next_useful_budget is None


def test_the_text_of_auto_says_what_it_chose():
    assert plan_budget(20_000, 10, 1_000).text == (
        "decisions for the images and for augmented images, chosen by proxies in 3 of 4 rounds"
    )
    assert plan_budget(1_500, 10, 1_000).text == (
        "decisions for the images and for random augmented images"
    )
    assert plan_budget(1_000, 10, 5_000).text == (
        "decisions for a part of the images, chosen by proxies in 3 of 4 rounds"
    )
    assert plan_budget(100, 10, 5_000).text == "decisions for a part of the images, drawn at random"
    assert plan_budget(1_000, 10, 1_000).text == "soft labels from the distances to other images"
    assert plan_budget(1_000, 10, None).text == "decisions for pseudo samples; needs no images"
    assert plan_budget(1_000, 10, 1_000, "decisions").text == (
        "one decision for each image, and no more queries"
    )


def test_strategies_that_a_budget_makes_equal_have_equal_texts():
    texts = {plan_budget(400, 10, 1_438, name).text for name in ("decisions", "augmented")}
    assert texts == {"decisions for a part of the images, drawn at random"}
    assert plan_budget(2_000, 10, 1_438, "augmented").text == (
        "decisions for the images and for random augmented images"
    )


@pytest.mark.parametrize(("budget", "images"), [(1_000, 5_000), (20_000, 1_000)])
def test_without_proxies_auto_is_planned_as_augmented(budget, images):
    auto = plan_budget(budget, 10, images, proxies=False)
    augmented = plan_budget(budget, 10, images, "augmented")
    assert (auto.stages, auto.text) == (augmented.stages, augmented.text)
    plans = plan_comparison(budget, 10, images, ["auto"], proxies=False).plans
    assert plans["auto"] == auto


def test_images_that_the_budget_does_not_cover_are_chosen_after_a_random_half():
    plan = plan_budget(10_000, 10, 100_000)
    assert plan.held_out == 500
    assert len(plan.rounds) == 4
    assert plan.rounds[0] == pytest.approx(9_500 / 2, abs=3)
    assert not any("augmented" in stage.name for stage in plan.stages)


def test_all_images_are_decided_before_augmented_ones_are_asked():
    plan = plan_budget(256_000, 10, 1_000)
    names = [stage.name for stage in plan.stages]
    assert names[:3] == ["held-out images", "held-out augmented images", "decisions, round 1 of 4"]
    assert plan.stages[2].queries == 950
    assert [name for name in names if "decisions" in name] == ["decisions, round 1 of 4"]


@pytest.mark.parametrize("strategy", LABEL_MEASURES)
def test_distances_need_two_images_to_train_on(strategy):
    with pytest.raises(ValueError, match=r"images: strategy .* needs at least 3"):
        plan_budget(500, 10, 2, strategy)
    assert plan_budget(500, 10, 3, strategy).training_images == 2


@pytest.mark.parametrize("strategy", LABEL_MEASURES)
def test_distances_need_a_decision_for_every_image(strategy):
    with pytest.raises(ValueError, match="needs one decision for each of 1,000 images"):
        plan_budget(500, 10, 1_000, strategy)


@pytest.mark.parametrize(
    ("strategy", "most"), [("bd", None), ("mbd", 65_536), ("db3kd-paper", 65_536)]
)
def test_mbd_strategies_refuse_too_many_classes(strategy, most):
    plan_budget(400_000, most or 70_000, 1_000, strategy)
    if most is not None:
        with pytest.raises(
            ValueError, match=f"^strategy: .*{strategy}.* 65,536 classes, got 65,537"
        ):
            plan_budget(400_000, most + 1, 1_000, strategy)


def test_strategies_that_need_images_say_so():
    with pytest.raises(ValueError, match="images: strategy 'bd' needs images"):
        plan_budget(10_000, 10, None, "bd")
    with pytest.raises(ValueError, match="strategy: expected one of auto"):
        plan_budget(10_000, 10, 10, "best")
    with pytest.raises(ValueError, match="images: expected at least 2"):
        plan_budget(10_000, 10, 1)


def test_a_plan_without_images_says_how_many_pseudo_samples_are_held_out():
    (stage,) = plan_budget(800, 10, None).stages
    assert stage.queries == 800
    assert stage.why == ("take the place of images; 40 of them measure the student's agreement")


def test_a_plan_prints_its_stages_in_order():
    total, *stages = str(plan_budget(2000, 10, 400)).splitlines()
    assert total == "auto: at most 2,000 of 2,000 queries"
    counts = [int(line.split()[0].replace(",", "")) for line in stages]
    assert counts == [20, 380, 400, 400, 400, 400]
    assert stages[0].endswith("held-out images                 measure the student's agreement")


def test_a_plan_knows_how_many_images_are_left_when_proxies_choose():
    plan = plan_budget(3000, 10, 60_000)
    first, *later = plan.rounds
    left = plan.training_images - first
    assert later and plan.choices == [
        (queries, left - sum(later[:number])) for number, queries in enumerate(later)
    ]
    assert plan_budget(2000, 10, 400).choices == [(400, 0)] * 3
