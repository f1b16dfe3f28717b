"""Label runs on disk: what is written is read back, and a shard is there whole or not at all."""

import dataclasses
import gc
import json
import math
import os
import stat
import sys
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from db3kd import store
from db3kd.store import Labels, RunFolder, iterate_shards, load_labels, manifest, read_manifest

pytest.importorskip("pyarrow")


def some_labels(n: int = 4, classes: int = 3, *, first: int = 0, optional: bool = True) -> Labels:
    generator = torch.Generator().manual_seed(first)
    distances = torch.rand(n, classes, generator=generator)
    distances[:, -1] = torch.inf
    return Labels(
        index=torch.arange(first, first + n),
        decision=torch.arange(n) % classes,
        distances=distances,
        queries=torch.randint(0, 5000, (n, classes), generator=generator),
        status=[store.STATUSES[row % len(store.STATUSES)] for row in range(n)],
        label=torch.arange(n) % classes - 1,
        snapshots={1000: distances * 2, 500: distances * 3} if optional else {},
        soft_labels=distances.nan_to_num(posinf=0).softmax(1) if optional else None,
    )


def same(one: Labels, other: Labels) -> bool:
    tensors = ("index", "decision", "distances", "queries", "label")
    return (
        all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)
        and one.status == other.status
        and one.snapshots.keys() == other.snapshots.keys()
        and all(torch.equal(one.snapshots[n], other.snapshots[n]) for n in one.snapshots)
        and (one.soft_labels is None) == (other.soft_labels is None)
        and (one.soft_labels is None or torch.equal(one.soft_labels, other.soft_labels))
    )


@pytest.fixture
def a_manifest() -> dict:
    return manifest(
        {"normalisation": "margin"}, seed=7, teacher_fingerprint="t", data_fingerprint="d"
    )


@pytest.fixture
def run(tmp_path: Path, a_manifest: dict) -> RunFolder:
    return RunFolder.create(tmp_path / "deep" / "run", a_manifest)


@given(n=st.integers(0, 5), classes=st.integers(2, 4), optional=st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_shard_is_read_back_as_it_was_written(tmp_path_factory, n, classes, optional):
    run = RunFolder.create(tmp_path_factory.mktemp("run"), {})
    labels = some_labels(n, classes, optional=optional)
    run.write_shard(0, labels)
    assert same(load_labels(run.path), labels)


def test_shards_are_read_in_the_order_of_the_run_not_of_their_writing(run):
    late, early = some_labels(2, first=10), some_labels(3, first=0)
    run.write_shard(10, late)
    run.write_shard(0, early)
    assert same(load_labels(run.path), Labels.concat([early, late]))
    assert [len(shard) for shard in iterate_shards(run.path)] == [3, 2]


def test_labels_without_a_class_of_the_data_set_read_as_minus_one(run):
    run.write_shard(0, dataclasses.replace(some_labels(3), label=None))
    assert load_labels(run.path).label.tolist() == [-1, -1, -1]


def test_pandas_reads_a_run(run):
    pandas = pytest.importorskip("pandas")
    labels = some_labels()
    run.write_shard(0, labels)
    frame = pandas.read_parquet(sorted(run.path.glob("*.parquet"))[0])
    assert list(frame.columns) == [
        *("index", "decision", "label", "status", "queries", "distances"),
        *("distances_at_500", "distances_at_1000", "soft_label"),
    ]
    assert frame["status"].tolist() == labels.status
    assert frame["distances"][0].tolist() == labels.distances[0].tolist()


def test_datasets_reads_a_run(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    parts = [some_labels(3), some_labels(2, first=3)]
    for part in parts:
        run.write_shard(int(part.index[0]), part)
    rows = datasets.load_dataset(
        "parquet",
        data_files=str(run.path / "*.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    labels = Labels.concat(parts)
    assert rows["index"][:] == labels.index.tolist()
    assert rows.features["distances"].length == 3
    assert torch.equal(rows.with_format("torch")["distances"][:], labels.distances)


def test_a_written_shard_is_not_kept_in_memory(run):
    labels = some_labels()
    kept = weakref.ref(labels.distances)
    run.write_shard(0, labels)
    del labels
    gc.collect()
    assert kept() is None


def test_a_shard_is_on_disk_before_its_name_is(run, monkeypatch):
    steps: list[str] = []

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def replace(source: Path, target: Path, rename=os.replace) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    run.write_shard(0, some_labels())
    assert steps == ["file", "rename", "folder"]


def test_a_shard_that_fails_leaves_nothing_behind(run, monkeypatch):
    run.write_shard(0, some_labels())

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        run.write_shard(4, some_labels(first=4))
    assert sorted(file.name for file in run.path.iterdir()) == [
        "labels-0000000000.parquet",
        "manifest.json",
    ]


def test_what_a_killed_writer_left_is_not_read(run):
    labels = some_labels()
    run.write_shard(0, labels)
    (run.path / ".labels-0000000004.parquet.1.tmp").write_bytes(b"PAR1 half a shard")
    assert same(load_labels(run.path), labels)


def test_a_shard_is_never_overwritten(run):
    run.write_shard(0, some_labels())
    with pytest.raises(FileExistsError, match="has a shard at 0"):
        run.write_shard(0, some_labels())


def test_all_shards_of_a_run_hold_the_same_things(run):
    run.write_shard(0, some_labels())
    with pytest.raises(ValueError, match=r"labels: expected 3 classes.*got 4 classes"):
        run.write_shard(4, some_labels(classes=4))


def test_a_folder_with_something_in_it_is_refused(tmp_path, a_manifest):
    (tmp_path / "precious").write_text("data")
    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        RunFolder.create(tmp_path, a_manifest)
    with pytest.raises(FileExistsError, match="got a file"):
        RunFolder.create(tmp_path / "precious", a_manifest)
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


def test_a_run_that_fails_before_its_first_shard_leaves_nothing(tmp_path, a_manifest):
    with pytest.raises(KeyboardInterrupt), RunFolder.create(tmp_path / "new", a_manifest):
        raise KeyboardInterrupt
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyboardInterrupt), RunFolder.create(tmp_path / "empty", a_manifest):
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.rglob("*")] == ["empty"], "a folder found is kept"


def test_a_run_that_fails_after_its_first_shard_keeps_it(run):
    with pytest.raises(KeyboardInterrupt), run:
        run.write_shard(0, some_labels(4))
        raise KeyboardInterrupt
    assert len(load_labels(run.path)) == 4
    assert read_manifest(run.path)["state"] == "running"


def test_what_others_put_beside_a_failed_run_is_kept(run):
    with pytest.raises(KeyboardInterrupt), run:
        (run.path / "notes.txt").write_text("mine")
        raise KeyboardInterrupt
    assert [file.name for file in run.path.iterdir()] == ["notes.txt"]


def test_the_manifest_tells_a_running_run_from_a_finished_one(run):
    assert read_manifest(run.path)["state"] == "running"
    run.finish({"samples": 4, "queries": 1234, "mean_distance": math.inf})
    content = read_manifest(run.path)
    assert content["state"] == "finished"
    assert content["totals"] == {"samples": 4, "queries": 1234, "mean_distance": "inf"}
    assert (content["seed"], content["teacher"], content["data"]) == (7, "t", "d")


def test_the_manifest_names_versions(a_manifest):
    versions = a_manifest["versions"]
    assert set(versions) == {"db3kd", "torch", "numpy", "python"}
    assert versions["torch"].startswith(torch.__version__.split("+")[0])


def test_the_manifest_names_no_path_of_the_machine(tmp_path):
    @dataclasses.dataclass
    class Settings:
        teacher: Path
        data: str
        noise: str
        radii: tuple[float, ...]

    content = manifest(
        Settings(
            tmp_path / "teacher.safetensors", str(tmp_path / "idx"), "gaussian", (0.5, math.inf)
        ),
        seed=0,
        teacher_fingerprint="t",
        data_fingerprint="d",
    )
    assert content["settings"] == {
        "teacher": "teacher.safetensors",
        "data": "idx",
        "noise": "gaussian",
        "radii": [0.5, "inf"],
    }
    assert str(tmp_path) not in json.dumps(content)


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a label run"):
        load_labels(tmp_path)


def test_a_run_without_a_shard_says_so(run):
    with pytest.raises(FileNotFoundError, match="at least one shard"):
        load_labels(run.path)


def test_a_damaged_shard_is_named(run):
    shard = run.write_shard(0, some_labels())
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"labels-0000000000\.parquet: not a shard"):
        load_labels(run.path)


def test_a_shard_without_a_column_is_named(run):
    parquet = pytest.importorskip("pyarrow.parquet")
    shard = run.write_shard(0, some_labels())
    parquet.write_table(parquet.read_table(shard).drop_columns(["queries"]), shard)
    with pytest.raises(ValueError, match="queries"):
        load_labels(run.path)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "another"}'])
def test_a_manifest_of_another_kind_is_refused(run, content):
    (run.path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.json: expected"):
        read_manifest(run.path)


def test_without_pyarrow_a_run_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install"):
        run.write_shard(0, some_labels())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("distances", torch.ones(4), r"distances: expected \[4, C\]"),
        ("distances", torch.ones(4, 3).double(), "torch.float32, got"),
        ("decision", torch.ones(3).long(), r"decision: expected \[4\]"),
        ("queries", torch.ones(4, 2).long(), r"queries: expected \[4, 3\]"),
        ("snapshots", {500: torch.ones(4, 2)}, r"snapshots\[500\]"),
        ("soft_labels", torch.ones(4, 2), "soft_labels: expected"),
        ("status", ["ok"] * 3, "status: expected 4"),
        ("status", ["fine"] * 4, "fine"),
    ],
)
def test_labels_of_the_wrong_shape_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(some_labels(), **{name: value})


def test_only_parts_that_hold_the_same_things_are_joined():
    with pytest.raises(ValueError, match="without soft labels"):
        Labels.concat([some_labels(), some_labels(optional=False)])
    with pytest.raises(ValueError, match="at least one"):
        Labels.concat([])
