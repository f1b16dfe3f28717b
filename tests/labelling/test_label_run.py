import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from db3kd.labelling.label_files import load_labels
from db3kd.labelling.label_run import open_run
from db3kd.labelling.labels import Labels
from db3kd.labelling.run_writer import write_run
from db3kd.labelling.sample_choice import draw_samples, spread_over_classes
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.source import Source
from db3kd.labelling.totals import Totals, distance_against_queries
from db3kd.storage.manifest import MANIFEST, read_manifest
from db3kd.storage.run_folder import queries_in_flight
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


def test_totals_tell_estimates_from_what_was_measured():
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
    """Says which of ten levels an image's mean has; goes out of service after `most` queries.

    answered: queries of all teachers of this class.
    """

    answered = 0

    def __init__(self, most: int) -> None:
        super().__init__(self._level, (1, 8, 8), 10, max_batch=64, fingerprint="pixels")
        self._left = most

    def _level(self, images: np.ndarray) -> np.ndarray:
        self._left -= len(images)
        if self._left < 0:
            raise RuntimeError("out of service")
        FailingTeacher.answered += len(images)
        return (images.mean((1, 2, 3)) * 20).astype(np.int64) % 10


def write_three_hundred(folder: Path, most: int, resume: bool = False, **changes: object) -> Totals:
    settings = LabelSettings("bd", queries_per_pair=2, query_batch_size=100)
    settings = dataclasses.replace(settings, **changes)
    teacher = FailingTeacher(most)
    return write_run(folder, teacher, Source("digits"), settings, limit=300, resume=resume)


def same_labels(one: Path, other: Path) -> bool:
    """The names of shards hold their checksums."""
    return sorted(file.name for file in one.glob("*.parquet")) == sorted(
        file.name for file in other.glob("*.parquet")
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    write_three_hundred(folder, 10_000)
    return folder


def test_a_run_that_paid_for_nothing_can_be_tried_again(tmp_path):
    with pytest.raises(TeacherError, match="out of service"):
        write_three_hundred(tmp_path / "run", 0)
    assert not (tmp_path / "run").exists()

    assert write_three_hundred(tmp_path / "run", 10_000).samples == 300


@pytest.mark.parametrize("answered", [0, 50, 64, 299, 400, 1000, 2650])
def test_a_run_whose_teacher_failed_is_resumed_without_asking_twice(tmp_path, whole, answered):
    FailingTeacher.answered = 0
    with pytest.raises(TeacherError, match="out of service"):
        write_three_hundred(tmp_path, answered)

    write_three_hundred(tmp_path, 10_000, resume=True)

    totals = read_manifest(tmp_path)["totals"]
    assert totals == read_manifest(whole)["totals"]
    assert totals["queries"] == FailingTeacher.answered
    assert same_labels(tmp_path, whole)
    assert queries_in_flight(read_manifest(tmp_path)) == 0


def test_a_run_of_a_few_targets_is_resumed_as_if_nothing_had_stopped_it(tmp_path):
    write_three_hundred(tmp_path / "whole", 10_000, targets=4)
    FailingTeacher.answered = 0
    with pytest.raises(TeacherError, match="out of service"):
        write_three_hundred(tmp_path / "run", 1000, targets=4)
    totals = write_three_hundred(tmp_path / "run", 10_000, resume=True, targets=4)

    assert same_labels(tmp_path / "run", tmp_path / "whole")
    assert totals.queries == FailingTeacher.answered == 300 + 300 * 4 * 2
    assert load_labels(tmp_path / "run").searched.sum(1).tolist() == [4] * 300


def test_more_targets_than_classes_leave_no_folder_behind(tmp_path):
    with pytest.raises(ValueError, match="targets: expected at most 9"):
        write_three_hundred(tmp_path / "run", 10_000, targets=10)
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_as_often_as_needed(tmp_path, whole):
    for _ in range(3):
        with pytest.raises(TeacherError):
            write_three_hundred(tmp_path, 800, resume=True)
    write_three_hundred(tmp_path, 10_000, resume=True)

    assert same_labels(tmp_path, whole)
    assert len(read_manifest(tmp_path)["resumed"]) == 3


def test_a_finished_run_is_left_as_it_is(tmp_path):
    totals = write_three_hundred(tmp_path, 10_000)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    assert write_three_hundred(tmp_path, 0, resume=True) == totals
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_shard_that_was_damaged_is_made_again(tmp_path, whole):
    write_three_hundred(tmp_path, 10_000)
    shard = min(tmp_path.glob("*.parquet"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"{shard.name}: damaged.*remove it and resume"):
        write_three_hundred(tmp_path, 0, resume=True)
    shard.unlink()

    spent = int(load_labels(whole).queries[:256].sum()) - 256
    write_three_hundred(tmp_path, spent, resume=True)

    assert shard.read_bytes() == content
    assert read_manifest(tmp_path)["totals"] == read_manifest(whole)["totals"]


def test_another_run_is_not_resumed_and_each_difference_is_named(tmp_path):
    with pytest.raises(TeacherError):
        write_three_hundred(tmp_path, 1000)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    with pytest.raises(ValueError, match="holds another run") as raised:
        write_three_hundred(tmp_path, 0, resume=True, seed=1, queries_per_pair=3, targets=4)

    assert "seed: was 0, is 1" in str(raised.value)
    assert "settings.labelling.queries_per_pair: was 2, is 3" in str(raised.value)
    assert "settings.labelling.targets: was null, is 4" in str(raised.value)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_images_may_lie_elsewhere_but_must_be_the_same(tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (30, 8, 8), np.uint8)
    np.savez(tmp_path / "here.npz", images=images)
    np.savez(tmp_path / "there.npz", images=images)
    np.savez(tmp_path / "other.npz", images=images[::-1])

    def write(file: str, answered: int) -> Totals:
        source = Source(str(tmp_path / file))
        settings = LabelSettings("bd", queries_per_pair=5)
        teacher = FailingTeacher(answered)
        return write_run(tmp_path / "run", teacher, source, settings, resume=True)

    with pytest.raises(TeacherError, match="out of service"):
        write("here.npz", 100)
    with pytest.raises(ValueError, match=r"30 of its 30 images, .* changed .*: put them back"):
        write("other.npz", 1000)
    assert write("there.npz", 1000).samples == 30


def test_a_run_is_not_continued_unless_that_is_asked_for(tmp_path):
    with pytest.raises(TeacherError):
        write_three_hundred(tmp_path, 1000)
    with pytest.raises(FileExistsError, match="holds a run already; continue it with --resume"):
        write_three_hundred(tmp_path, 1000)


@pytest.mark.parametrize("room", [400, 470, 700])  # while deciding, and while measuring
def test_a_full_disk_costs_no_answer_that_was_kept(tmp_path, whole, monkeypatch, room):
    def write(descriptor: int, content: bytes, write=os.write) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, content[:room])
        room -= written
        return written

    FailingTeacher.answered = 0
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match=r"No space left on device: .*\.journal"):
        write_three_hundred(tmp_path, 10_000)
    room = 10_000_000
    write_three_hundred(tmp_path, 10_000, resume=True)

    assert same_labels(tmp_path, whole)
    manifest = read_manifest(tmp_path)
    paid_twice = FailingTeacher.answered - manifest["totals"]["queries"]
    assert paid_twice == queries_in_flight(manifest) <= 64


def test_a_used_folder_is_refused_before_the_images_are_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        write_run(tmp_path, FailingTeacher(0), Source("no such data"), LabelSettings())


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        draw_samples(5, 0, 0)


def test_no_data_set_is_fetched_because_a_manifest_names_it(tmp_path, monkeypatch):
    write_three_hundred(tmp_path / "run", 10_000)
    monkeypatch.setattr(
        "db3kd.labelling.source.load_data", lambda *_, **__: pytest.fail("it was looked for")
    )
    for data in ("hub:somebody/images", "cifar10", "/dev/zero", "/somebody/images.npz"):
        content = read_manifest(tmp_path / "run")
        content["settings"]["source"]["data"] = data
        (tmp_path / "run" / MANIFEST).write_text(json.dumps(content))
        with pytest.raises(ValueError, match="--data"):
            open_run(tmp_path / "run")
