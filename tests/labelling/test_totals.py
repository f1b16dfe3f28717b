"""Counts and means over labels."""

import torch

from db3kd.labelling.runs.absent_classes import describe_absent_classes
from db3kd.labelling.runs.totals import Totals, distance_against_queries
from db3kd.labels.labels import Labels

INF = torch.inf


def labels(**changes) -> Labels:
    """Two samples of class 0, the second without a distance to class 2, and an undecided one."""
    values = {
        "index": torch.arange(3),
        "decision": torch.tensor([0, 0, -1]),
        "distances": torch.tensor([[0.0, 2, 4], [0, 3, INF], [INF, INF, INF]]),
        "queries": torch.tensor([[1, 10, 20], [1, 30, 0], [0, 0, 0]]),
        "status": ["ok", "partly reached", "budget"],
        "label": torch.tensor([0, 1, 2]),
    }
    return Labels(**values | changes)


def test_totals_add_up_over_shards():
    totals = Totals()

    totals.add(labels())
    totals.add(labels())

    assert (totals.samples, totals.queries, totals.queries_per_sample) == (6, 124, 124 / 6)
    assert (totals.pairs, totals.reached, totals.mean_distance) == (12, 6, 3.0)
    assert totals.search_queries == 2 * labels().search_queries == 120
    assert totals.statuses["ok"] == totals.statuses["budget"] == 2
    assert totals.disagreements == 2, "a sample without a decision disagrees with nothing"


def test_totals_separate_estimates_from_measured_distances():
    totals = Totals()

    totals.add(
        labels(searched=torch.tensor([[False, True, False], [False, True, False], [False] * 3]))
    )

    assert (totals.pairs, totals.reached, totals.estimated) == (6, 2, 1)
    assert totals.mean_distance == 2.5


def test_totals_of_a_run_that_reached_nothing_have_no_mean():
    totals = Totals()

    totals.add(labels(distances=torch.full((3, 3), INF)))

    assert totals.mean_distance is None


def test_all_points_of_a_curve_average_the_same_pairs():
    first = torch.tensor([[0.0, 6, INF], [0, 5, INF], [INF, INF, INF]])
    late = torch.full((3, 3), 1.0)

    queries, distances = distance_against_queries(labels(snapshots={5: first, 999: late}))

    spent = 60 / 4
    assert queries == [5, spent], "a snapshot that no pair paid for is left out"
    assert distances == [5.5, 2.5], "the pair that was reached late counts nowhere"


def test_one_absent_class_is_named_in_the_singular():
    text = describe_absent_classes(
        [1], 3, 70, undecided=0, class_names=("ale", "rum", "gin"), noun="row"
    )

    assert text.startswith("1 of 3 classes (rum): the teacher put no row in it, and a search ")
    assert "70 pairs with it cannot be reached. Adding rows of this class helps, but a lar" in text
