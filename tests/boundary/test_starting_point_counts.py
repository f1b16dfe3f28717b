"""The number of starting points of a pair if the user gives none."""

import dataclasses

import pytest
import torch
from label_runs import write_run
from teachers_analytic import CountingTeacher, NearestCentroidTeacher

from db3kd.boundary import Pairs, StartingPoints
from db3kd.data.image_source import TensorImages
from db3kd.data.source import Source
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings

SHAPE = (1, 6, 6)
LIMITS = torch.tensor([0, 3, 15, 25, 35, 70, 1000])


def teacher() -> NearestCentroidTeacher:
    centroids = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(9))
    return NearestCentroidTeacher(centroids, SHAPE)


def images(count: int = 60) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("measure", "surrogate", "counts"),
    [
        ("mbd", False, [1, 1, 4, 7, 10, 10, 10]),
        ("mbd", True, [10] * 7),
        ("bd", False, [1, 1, 4, 7, 10, 20, 20]),
        ("sd", False, [1] * 7),
    ],
)
def test_the_number_depends_on_the_budget_of_the_pair(measure, surrogate, counts):
    settings = LabelSettings(measure)
    assert settings.starting_points_per_pair(LIMITS, surrogate).tolist() == counts
    assert settings.max_starting_points == max(counts)


@pytest.mark.parametrize("surrogate", [False, True])
def test_a_given_number_applies_to_every_pair(surrogate):
    counts = LabelSettings(starting_points=33).starting_points_per_pair(LIMITS, surrogate)
    assert counts.tolist() == [33] * 7


def test_each_pair_gets_its_own_number_of_nearest_images():
    candidate_pool, number = images(400), torch.arange(5)
    decided = teacher().decide(candidate_pool)
    target = (decided[:5] + 1) % 4
    pairs = Pairs(candidate_pool[:5].flatten(1), number, number, target)
    starting_points = StartingPoints(TensorImages(candidate_pool), decided, 6)
    counts = torch.tensor([1, 6, 3, 0, 9])
    rays, every = starting_points.rays(pairs, counts), starting_points.rays(pairs)
    assert every.pair_of.bincount(minlength=5).tolist() == [6] * 5
    assert rays.pair_of.bincount(minlength=5).tolist() == [1, 6, 3, 0, 6]
    for pair in range(5):
        mine, whole = rays.pair_of == pair, every.pair_of == pair
        assert torch.equal(rays.lengths[mine], every.lengths[whole][: int(mine.sum())])


def test_labels_equal_those_with_the_number_given_explicitly():
    automatic = LabelSettings(queries_per_pair=25)
    found = label(teacher(), images(), automatic)
    given = label(teacher(), images(), dataclasses.replace(automatic, starting_points=7))
    assert torch.equal(found.distances, given.distances)


def test_a_run_budget_that_does_not_divide_evenly_affects_no_other_sample():
    """Budgets are divided before the run, so the starting points of a sample are fixed too."""
    settings = LabelSettings(queries_per_pair=100, queries=60 * 50 + 7)
    alone = label(teacher(), images(), settings, index=torch.tensor([40]))
    whole = label(teacher(), images(), settings)
    assert torch.equal(alone.distances[0], whole.distances[40])


@pytest.mark.parametrize("order", ["nearest", "random"])
def test_no_budget_is_exceeded_if_the_number_is_automatic(order):
    counting = CountingTeacher(teacher())
    settings = LabelSettings("bd", order=order, queries_per_sample=20)
    found = label(counting, images(), settings)
    assert counting.total == int(found.queries.sum()) <= 60 * 20


def test_a_run_is_not_resumed_with_another_number(tmp_path):
    centroids = Source("digits").load().read(range(10))
    asked = NearestCentroidTeacher(centroids, (1, 8, 8))
    settings = LabelSettings("bd", queries_per_pair=12)
    write_run(tmp_path / "run", asked, Source("digits"), settings, limit=12)
    other = dataclasses.replace(settings, starting_points=3)
    with pytest.raises(ValueError, match=r"starting_points: was null, is 3"):
        write_run(tmp_path / "run", asked, Source("digits"), other, limit=12, resume=True)
