"""Runs on disk: resumed, refused, damaged, and read back with their images."""

import dataclasses
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from image_cases import write_png
from label_runs import write_run

import db3kd
from db3kd.data.source import Source
from db3kd.labelling.runs.label_run import open_run
from db3kd.labelling.runs.totals import Totals
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.label_files import load_labels
from db3kd.storage import shards
from db3kd.storage.manifest import MANIFEST, queries_in_flight, read_manifest, write_manifest
from db3kd.teachers import FunctionTeacher, TeacherError


class FailingTeacher(FunctionTeacher):
    """Ten classes by an image's mean; fails after `max_queries` queries.

    Attributes:
        answered: The queries of all teachers of this class.
    """

    answered = 0

    def __init__(self, max_queries: int) -> None:
        super().__init__(self._answer, (1, 8, 8), 10, max_batch=64, fingerprint="pixels")
        self._left = max_queries

    def _answer(self, images: np.ndarray) -> np.ndarray:
        self._left -= len(images)
        if self._left < 0:
            raise RuntimeError("out of service")
        FailingTeacher.answered += len(images)
        return (images.mean((1, 2, 3)) * 20).astype(np.int64) % 10


def write_300(folder: Path, max_queries: int, resume: bool = False, **changes: object) -> Totals:
    settings = LabelSettings("bd", queries_per_pair=2, query_batch_size=100)
    settings = dataclasses.replace(settings, **changes)
    teacher = FailingTeacher(max_queries)
    return write_run(folder, teacher, Source("digits"), settings, limit=300, resume=resume)


def same_labels(one: Path, other: Path) -> bool:
    """Compares the names of shards, which hold their checksums."""
    return sorted(file.name for file in one.glob("*.parquet")) == sorted(
        file.name for file in other.glob("*.parquet")
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    write_300(folder, 10_000)
    return folder


def test_a_run_without_any_answer_can_be_started_again(tmp_path):
    with pytest.raises(TeacherError, match="out of service"):
        write_300(tmp_path / "run", 0)
    assert not (tmp_path / "run").exists()

    assert write_300(tmp_path / "run", 10_000).samples == 300


@pytest.mark.parametrize("answered", [0, 50, 64, 299, 400, 1000, 2650])
def test_a_run_whose_teacher_failed_is_resumed_without_asking_twice(tmp_path, whole, answered):
    FailingTeacher.answered = 0
    with pytest.raises(TeacherError, match="out of service") as raised:
        write_300(tmp_path, answered)
    lost = raised.value.maybe_paid if FailingTeacher.answered else 0  # else no run is kept

    write_300(tmp_path, 10_000, resume=True)

    totals = read_manifest(tmp_path)["totals"]
    assert totals == read_manifest(whole)["totals"]
    assert totals["queries"] == FailingTeacher.answered
    assert same_labels(tmp_path, whole)
    assert queries_in_flight(read_manifest(tmp_path)) == lost


def test_a_run_with_few_targets_resumes_as_if_uninterrupted(tmp_path):
    write_300(tmp_path / "whole", 10_000, targets=4)
    FailingTeacher.answered = 0
    with pytest.raises(TeacherError, match="out of service"):
        write_300(tmp_path / "run", 1000, targets=4)
    totals = write_300(tmp_path / "run", 10_000, resume=True, targets=4)

    assert same_labels(tmp_path / "run", tmp_path / "whole")
    assert totals.queries == FailingTeacher.answered == 300 + 300 * 4 * 2
    assert load_labels(tmp_path / "run").searched.sum(1).tolist() == [4] * 300


def test_more_targets_than_classes_leave_no_folder(tmp_path):
    with pytest.raises(ValueError, match="targets: expected at most 9"):
        write_300(tmp_path / "run", 10_000, targets=10)
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_as_often_as_needed(tmp_path, whole):
    for _ in range(3):
        with pytest.raises(TeacherError):
            write_300(tmp_path, 800, resume=True)
    write_300(tmp_path, 10_000, resume=True)

    assert same_labels(tmp_path, whole)
    assert len(read_manifest(tmp_path)["resumed"]) == 3


def test_a_finished_run_is_left_as_it_is(tmp_path):
    totals = write_300(tmp_path, 10_000)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    assert write_300(tmp_path, 0, resume=True) == totals
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_damaged_shard_is_labelled_again(tmp_path, whole):
    write_300(tmp_path, 10_000)
    shard = min(tmp_path.glob("*.parquet"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"{shard.name}: is damaged.*remove it, and resume"):
        write_300(tmp_path, 0, resume=True)
    shard.unlink()

    spent = int(load_labels(whole).queries[:256].sum()) - 256
    write_300(tmp_path, spent, resume=True)

    assert shard.read_bytes() == content
    assert read_manifest(tmp_path)["totals"] == read_manifest(whole)["totals"]


def test_another_run_is_not_resumed_and_each_difference_is_named(tmp_path):
    with pytest.raises(TeacherError):
        write_300(tmp_path, 1000)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    with pytest.raises(ValueError, match="holds a different run") as raised:
        write_300(tmp_path, 0, resume=True, seed=1, queries_per_pair=3, targets=4)

    assert "seed: was 0, is 1" in str(raised.value)
    assert "settings.labelling.queries_per_pair: was 2, is 3" in str(raised.value)
    assert "settings.labelling.targets: was null, is 4" in str(raised.value)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_images_may_move_but_must_be_the_same(tmp_path):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (30, 8, 8), np.uint8)
    np.savez(tmp_path / "here.npz", images=images)
    np.savez(tmp_path / "there.npz", images=images)
    np.savez(tmp_path / "other.npz", images=images[::-1])

    def write(file: str, answered: int) -> Totals:
        source = Source(str(tmp_path / file))
        settings = LabelSettings("bd", queries_per_pair=5)
        teacher = FailingTeacher(answered)
        run = tmp_path / "run"
        return write_run(run, teacher, source, settings, resume=run.exists())

    with pytest.raises(TeacherError, match="out of service"):
        write("here.npz", 100)
    with pytest.raises(ValueError, match=r"data: was .*; the images or .*: restore them"):
        write("other.npz", 1000)
    assert write("there.npz", 1000).samples == 30


def test_a_run_is_described_in_one_line(whole):
    run = open_run(whole)
    queries = int(run.labels.queries.sum())
    assert repr(run) == (
        f"LabelRun(300 samples of {run.images.name}, 10 classes, {queries:,} queries, finished)"
    )


def test_a_run_knows_its_source_its_measure_and_its_teacher(whole):
    run = open_run(whole)
    assert run.source == Source("digits") and run.measure == "bd" and run.finished
    assert run.teacher == run.manifest["settings"]["teacher"]


def test_a_run_knows_the_height_and_width_of_its_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        write_png(tmp_path / "photos" / f"{number}.png", np.full((6, 12), number, np.uint8))
    source, settings = Source("photos", size=(4, 10)), LabelSettings("sd")
    teacher = FunctionTeacher(
        lambda images: (images[:, 0, 0, 0] > 0.005).astype(int), (1, 4, 10), 2
    )

    first = write_run("run", teacher, source, settings)
    again = write_run("run", teacher, source, settings, resume=True)

    assert first.samples == again.samples == 4
    run = open_run("run")
    assert run.source == source and run.images.image_shape == (1, 4, 10)
    content = read_manifest("run")
    for damaged in ([4, "10"], [4, 10, 3], "4,10", []):
        content["settings"]["source"]["size"] = damaged
        write_manifest(Path("run") / MANIFEST, content)
        with pytest.raises(ValueError, match=r"entry settings\.source: expected the arguments"):
            open_run("run")


@pytest.mark.parametrize(
    ("entry", "stored"), [("labelling", {"measure": "cosine"}), ("labelling", 3), ("teacher", 3)]
)
def test_a_damaged_setting_is_named(tmp_path, whole, entry, stored):
    content = read_manifest(whole)
    content["settings"][entry] = stored
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"entry settings\.{entry}.*: expected .*, got"):
        open_run(tmp_path)


def test_a_run_is_resumed_only_on_request(tmp_path):
    with pytest.raises(TeacherError):
        write_300(tmp_path, 1000)
    with pytest.raises(FileExistsError, match="already holds a run; continue it with resume=True"):
        write_300(tmp_path, 1000)


@pytest.mark.parametrize("room", [400, 470, 700])  # while deciding, and while measuring
def test_a_full_disk_loses_no_stored_answer(tmp_path, whole, monkeypatch, room):
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
        write_300(tmp_path, 10_000)
    room = 10_000_000
    write_300(tmp_path, 10_000, resume=True)

    assert same_labels(tmp_path, whole)
    manifest = read_manifest(tmp_path)
    paid_twice = FailingTeacher.answered - manifest["totals"]["queries"]
    assert paid_twice == queries_in_flight(manifest) <= 64


def test_a_folder_in_use_is_refused_before_images_are_loaded(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        write_run(tmp_path, FailingTeacher(0), Source("no such data"), LabelSettings())


def test_a_manifest_alone_never_loads_images(tmp_path, monkeypatch):
    write_300(tmp_path / "run", 10_000)
    monkeypatch.setattr(
        "db3kd.data.source.load_data", lambda *_, **__: pytest.fail("images were loaded")
    )
    for data in ("hub:somebody/images", "cifar10", "/dev/zero", "/somebody/images.npz"):
        content = read_manifest(tmp_path / "run")
        content["settings"]["source"]["data"] = data
        (tmp_path / "run" / MANIFEST).write_text(json.dumps(content))
        with pytest.raises(ValueError, match="data="):
            open_run(tmp_path / "run")


def test_a_run_of_another_version_with_the_same_format_is_continued(tmp_path):
    with pytest.raises(TeacherError, match="out of service"):
        write_300(tmp_path, max_queries=2_000)
    manifest = read_manifest(tmp_path)
    assert manifest["versions"]["db3kd"] == db3kd.__version__
    manifest["versions"]["db3kd"] = "0.1.0"
    write_manifest(tmp_path / MANIFEST, manifest)
    write_300(tmp_path, max_queries=9_999, resume=True)


def test_a_finished_run_is_read_twice_to_be_verified_and_added_up(tmp_path, monkeypatch):
    write_300(tmp_path, max_queries=9_999)
    read, reader = [], shards.checked_bytes
    monkeypatch.setattr(shards, "checked_bytes", lambda file: read.append(file) or reader(file))
    write_300(tmp_path, max_queries=0, resume=True)
    assert len(read) == 2 * len(list(tmp_path.glob("*.parquet")))
