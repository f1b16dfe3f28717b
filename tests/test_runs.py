import pytest
import torch

from db3kd.runs import (
    Totals,
    distance_against_queries,
    draw_samples,
    spread_over_classes,
)
from db3kd.store import Labels

INF = torch.inf


def labels(**changes) -> Labels:
    """Two samples of class 0, the second without a way to class 2, and one never asked about."""
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
    assert totals.statuses["ok"] == totals.statuses["budget"] == 2
    assert totals.disagreements == 2, "a sample without a decision disagrees with nothing"


def test_totals_of_a_run_that_reached_nothing_have_no_mean():
    totals = Totals()

    totals.add(labels(distances=torch.full((3, 3), INF)))

    assert totals.mean_distance is None


def test_every_point_of_a_curve_is_over_the_same_pairs():
    first = torch.tensor([[0.0, 6, INF], [0, 5, INF], [INF, INF, INF]])
    late = torch.full((3, 3), 1.0)

    queries, distances = distance_against_queries(labels(snapshots={5: first, 999: late}))

    spent = 60 / 4
    assert queries == [5, spent], "a snapshot that no pair paid for is left out"
    assert distances == [5.5, 2.5], "the pair that was reached late counts nowhere"


def test_samples_are_spread_over_the_classes():
    rows = spread_over_classes(torch.tensor([1, 1, 1, -1, 0, 2, 2]), 4)

    assert rows.tolist() == [4, 0, 1, 5]


def test_a_limit_draws_different_images_by_seed_in_ascending_order():
    first, second = (draw_samples(1000, 10, seed) for seed in (0, 1))

    assert first.tolist() == sorted(set(first.tolist())) and len(first) == 10
    assert first.tolist() != second.tolist()
    assert draw_samples(5, 10, 0).tolist() == draw_samples(5, None, 0).tolist() == [0, 1, 2, 3, 4]


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        draw_samples(5, 0, 0)
