"""What a run is said to ask before it begins."""

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
def test_no_more_is_asked_than_allowed_and_all_is_said(images, queries, measure):
    asked = teacher()

    estimate = estimate_run(asked, images, LabelSettings(measure, queries_per_pair=40), queries)

    assert 0 < asked.total == estimate.asked <= queries
    assert estimate.seconds_per_query > 0 and estimate.batch_size <= 32


def test_without_queries_the_bound_is_said_and_the_teacher_left_alone(images):
    asked = teacher()

    estimate = estimate_run(asked, images, LabelSettings("bd", queries_per_pair=40), 0)

    assert asked.total == 0
    assert estimate.max_queries == 120 * (1 + 3 * 40)
    assert estimate.expected_queries is estimate.seconds_per_query is None


def test_a_bad_image_is_found_before_anything_is_asked():
    asked, values = teacher(), torch.full((120, *SHAPE), 0.5)
    values[119] = torch.nan

    with pytest.raises(ValueError, match="got NaN at row 119"):
        estimate_run(asked, ImageSet.from_arrays(values), LabelSettings("bd"), 4)

    assert asked.total == 0


@pytest.mark.parametrize(
    ("budgets", "most"),
    [
        ({}, 120 * 3001),
        ({"queries_per_sample": 50}, 120 * 50),
        ({"targets": 2}, 120 * 2001),
        ({"queries": 100}, 100),
        ({"queries": 0}, 0),
    ],
)
def test_the_bound_is_that_of_the_budgets(images, budgets, most):
    asked = teacher()
    estimate = estimate_run(asked, images, LabelSettings("mbd", **budgets))

    assert estimate.max_queries == most
    assert estimate.asked <= most and (estimate.expected_queries or 0) <= most


def test_what_is_expected_is_near_what_a_run_asks(images):
    settings = LabelSettings("bd", starting_points=8)

    estimate = estimate_run(teacher(), images, settings, 2000)

    asked = int(label(teacher(), images, settings).queries.sum())
    assert estimate.measured_pairs > 10
    assert 0.7 < estimate.expected_queries / asked < 1.3


@pytest.mark.parametrize("targets", [1, 2])
def test_targets_alone_are_measured_and_expected(images, targets):
    settings = LabelSettings("bd", starting_points=8, targets=targets)

    estimate = estimate_run(teacher(), images, settings, 2000)

    asked = int(label(teacher(), images, settings).queries.sum())
    assert estimate.measured_pairs > 10
    assert 0.7 < estimate.expected_queries / asked < 1.3


def test_a_pair_that_cannot_be_measured_to_its_end_is_expected_to_spend_all_it_may(images):
    estimate = estimate_run(teacher(), images, LabelSettings("mbd", queries_per_pair=1000), 200)

    assert estimate.measured_pairs == 0 and estimate.expected_queries == estimate.max_queries


def test_a_teacher_of_one_class_is_asked_for_decisions_alone(images):
    estimate = estimate_run(ConstantTeacher(1, SHAPE, 4), images, LabelSettings("bd"), 50)

    assert (estimate.asked, estimate.measured_pairs) == (25, 0)


def test_what_was_estimated_before_is_estimated_again(images):
    settings = LabelSettings("bd")
    first, second = (estimate_run(teacher(), images, settings) for _ in range(2))

    assert (first.asked, first.expected_queries) == (second.asked, second.expected_queries)
