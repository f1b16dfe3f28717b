from pathlib import Path

import numpy as np
import pytest
import torch

from db3kd.labels import LabelSettings
from db3kd.manifest import read_manifest
from db3kd.runs import (
    Source,
    Totals,
    distance_against_queries,
    draw_samples,
    spread_over_classes,
    write_run,
)
from db3kd.store import Labels, load_labels
from db3kd.teachers import FunctionTeacher, TeacherError

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


class FailingTeacher(FunctionTeacher):
    """Says which of ten levels an image's mean has; goes out of service after `most` queries."""

    def __init__(self, most: int) -> None:
        super().__init__(self._level, (1, 8, 8), 10, max_batch=64, fingerprint="levels")
        self._left = most

    def _level(self, images: np.ndarray) -> np.ndarray:
        self._left -= len(images)
        if self._left < 0:
            raise RuntimeError("out of service")
        return (images.mean((1, 2, 3)) * 20).astype(np.int64) % 10


def write_three_hundred(folder: Path, most: int) -> Totals:
    settings = LabelSettings("bd", queries_per_pair=2)
    return write_run(folder, FailingTeacher(most), Source("digits"), settings, limit=300)


@pytest.mark.parametrize("answered", [0, 299, 400])
def test_a_run_that_committed_nothing_can_be_tried_again(tmp_path, answered):
    with pytest.raises(TeacherError, match="out of service"):
        write_three_hundred(tmp_path / "run", answered)
    assert not (tmp_path / "run").exists()

    assert write_three_hundred(tmp_path / "run", 10_000).samples == 300


def test_a_run_that_fails_late_keeps_the_shards_it_paid_for(tmp_path):
    whole = write_three_hundred(tmp_path / "whole", 10_000)

    with pytest.raises(TeacherError):
        write_three_hundred(tmp_path / "run", whole.queries - 1)

    assert 0 < len(load_labels(tmp_path / "run")) < 300
    assert read_manifest(tmp_path / "run")["state"] == "running"


def test_a_used_folder_is_refused_before_the_images_are_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        write_run(tmp_path, FailingTeacher(0), Source("no such data"), LabelSettings())


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        draw_samples(5, 0, 0)
