"""Whether a label run trains a surrogate: decided from numbers alone, within the budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db3kd.planning.surrogate_plan import (
    LEAST_QUERIES,
    MOST_QUERIES,
    SurrogatePlan,
    plan_surrogate_training,
)


@given(
    budget=st.integers(0, 10**9),
    images=st.integers(1, 10**6),
    pairs_per_image=st.integers(1, 100),
)
def test_a_surrogate_leaves_each_pair_enough_queries(budget, images, pairs_per_image):
    pairs = images * pairs_per_image

    plan = plan_surrogate_training(budget, images, pairs)

    assert plan.why and not plan.why.endswith(".")
    if plan.samples == 0:
        assert plan.queries == 0
        return
    assert plan.samples <= images
    assert plan.versions >= 1
    assert LEAST_QUERIES * 0.98 < plan.queries <= MOST_QUERIES
    left = budget - images - plan.queries
    assert left >= 10 * pairs
    assert left >= (budget - images) / 4


@pytest.mark.parametrize(
    ("budget", "images", "pairs", "queries", "why"),
    [
        (1_000_000, 1_000, 9_000, 20_000, "109 queries and a surrogate than with 111 alone"),
        (11_000, 1_000, 900, 0, "needs 2,000 queries, too many of 10,000 for 900 pairs"),
        (181_000, 1_000, 9_000, 18_000, "18 queries and a surrogate than with 20 alone"),
        (31_000, 1_000, 1_000, 5_000, "25 queries and a surrogate than with 30 alone"),
        (10_100, 100, 100, 5_000, "50 queries and a surrogate than with 100 alone"),
        (13_000, 1_000, 1_000, 2_000, "10 queries and a surrogate than with 12 alone"),
        (3_030, 30, 30, 2_000, "33 queries and a surrogate than with 100 alone"),
        (2_100, 30, 30, 0, "too many of 2,070 for 30 pairs"),
        (1_000_000, 20, 180, 0, "with 5,555 queries, a pair gets as near without"),
        (100_000, 9, 81, 0, "fewer than 10 samples"),
        (5, 1_000, 9_000, 0, "too many of 0 for 9,000 pairs"),
    ],
)
def test_the_numbers_of_the_run_decide(budget, images, pairs, queries, why):
    plan = plan_surrogate_training(budget, images, pairs)

    assert plan.queries == pytest.approx(queries, rel=0.02)
    assert why in plan.why


def test_images_have_more_versions_only_if_there_are_too_few():
    few, many = (plan_surrogate_training(10**6, images, 9_000) for images in (100, 10_000))

    assert (few.samples, few.versions) == (100, 100)
    assert many == SurrogatePlan(2_222, 4, 11_112, many.why)


@given(max_points=st.integers(0, 30_000), images=st.integers(10, 5_000))
def test_points_are_about_half_of_the_queries_and_at_most_what_a_run_can_keep(max_points, images):
    plan = plan_surrogate_training(1_000 * images, images, images, max_points)

    assert plan.points <= max_points and plan.versions >= 1
    asked = plan_surrogate_training(1_000 * images, images, images, 0).queries
    assert plan.queries == pytest.approx(asked, rel=0.15)
    if max_points >= MOST_QUERIES:
        assert plan.points >= plan.queries // 2


@pytest.mark.parametrize("name", ["budget", "images", "pairs"])
def test_an_impossible_number_is_refused(name):
    numbers = {"budget": 100, "images": 10, "pairs": 90, name: -1}

    with pytest.raises(ValueError, match=f"^{name}: expected an integer of at least"):
        plan_surrogate_training(**numbers)
