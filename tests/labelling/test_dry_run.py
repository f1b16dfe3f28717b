"""Estimates of a run before it starts."""

import pytest
import torch
from teachers_analytic import ConstantTeacher, CountingTeacher, NearestCentroidTeacher

from db3kd.data.image_set import ImageSet
from db3kd.labelling.dry_run import estimate_run
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings

SHAPE = (1, 6, 6)


def teacher() -> CountingTeacher:
    centroids = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(9))
    return CountingTeacher(NearestCentroidTeacher(centroids, SHAPE, max_batch=32))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    return ImageSet.from_arrays(torch.rand(120, *SHAPE, generator=draw).numpy())


@pytest.mark.parametrize("queries", [1, 2, 3, 50, 400])
@pytest.mark.parametrize("measure", ["sd", "bd", "mbd"])
def test_an_estimate_keeps_its_budget_and_reports_what_it_spent(images, queries, measure):
    asked = teacher()

    estimate = estimate_run(asked, images, LabelSettings(measure, queries_per_pair=40), queries)

    assert 0 < asked.total == estimate.asked <= queries
    assert estimate.seconds_per_query > 0 and estimate.batch_size <= 32


def test_without_queries_only_the_bound_is_estimated(images):
    asked = teacher()

    estimate = estimate_run(asked, images, LabelSettings("bd", queries_per_pair=40), 0)

    assert asked.total == 0
    assert estimate.max_queries == 120 * (1 + 3 * 40)
    assert estimate.expected_queries is estimate.seconds_per_query is None


def test_an_invalid_image_is_found_before_any_query():
    asked, values = teacher(), torch.full((120, *SHAPE), 0.5)
    values[119] = torch.nan

    with pytest.raises(ValueError, match="got NaN at row 119"):
        estimate_run(asked, ImageSet.from_arrays(values), LabelSettings("bd"), 4)

    assert asked.total == 0


@pytest.mark.parametrize(
    ("budgets", "max_queries"),
    [
        ({}, 120 * 3001),
        ({"queries_per_sample": 50}, 120 * 50),
        ({"targets": 2}, 120 * 2001),
        ({"queries": 100}, 100),
        ({"queries": 0}, 0),
    ],
)
def test_the_bound_follows_from_the_budgets(images, budgets, max_queries):
    asked = teacher()
    estimate = estimate_run(asked, images, LabelSettings("mbd", **budgets))

    assert estimate.max_queries == max_queries
    assert estimate.asked <= max_queries and (estimate.expected_queries or 0) <= max_queries


@pytest.mark.parametrize(("budget", "more"), [(None, 32), (4000, 0)])
def test_consistency_checks_are_within_a_budget_and_on_top_without_one(images, budget, more):
    settings = LabelSettings("bd", queries=budget, queries_per_pair=40)

    bound = estimate_run(teacher(), images, settings, 0).max_queries
    with_checks = estimate_run(teacher(), images, settings, 0, consistency_checks=32).max_queries

    assert with_checks == bound + more


def test_the_expected_queries_are_close_to_those_of_a_run(images):
    settings = LabelSettings("bd", starting_points=8)

    estimate = estimate_run(teacher(), images, settings, 2000)

    asked = int(label(teacher(), images, settings).queries.sum())
    assert estimate.measured_pairs > 10
    assert 0.7 < estimate.expected_queries / asked < 1.3


@pytest.mark.parametrize("targets", [1, 2])
def test_only_targets_are_measured_and_expected(images, targets):
    settings = LabelSettings("bd", starting_points=8, targets=targets)

    estimate = estimate_run(teacher(), images, settings, 2000)

    asked = int(label(teacher(), images, settings).queries.sum())
    assert estimate.measured_pairs > 10
    assert 0.7 < estimate.expected_queries / asked < 1.3


def test_an_unfinished_pair_is_expected_to_spend_its_whole_budget(images):
    estimate = estimate_run(teacher(), images, LabelSettings("mbd", queries_per_pair=1000), 200)

    assert estimate.measured_pairs == 0 and estimate.expected_queries == estimate.max_queries


def test_a_teacher_of_one_class_is_asked_for_decisions_only(images):
    estimate = estimate_run(ConstantTeacher(1, SHAPE, 4), images, LabelSettings("bd"), 50)

    assert (estimate.asked, estimate.measured_pairs) == (25, 0)


def test_estimates_are_reproducible(images):
    settings = LabelSettings("bd")
    first, second = (estimate_run(teacher(), images, settings) for _ in range(2))

    assert (first.asked, first.expected_queries) == (second.asked, second.expected_queries)
