"""Labels on disk: what is written is read back, by db3kd and by others."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_cases import some_labels

from db3kd.labels.label_files import iterate_shards, load_labels
from db3kd.labels.labels import FORMAT_KEY, LABELS, Labels, to_table
from db3kd.storage.run_folder import RunFolder

pytest.importorskip("pyarrow")


def same(one: Labels, other: Labels) -> bool:
    tensors = ("index", "decision", "distances", "queries", "label")
    return (
        all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)
        and one.status == other.status
        and one.snapshots.keys() == other.snapshots.keys()
        and all(torch.equal(one.snapshots[n], other.snapshots[n]) for n in one.snapshots)
        and all(
            (getattr(one, name) is None) == (getattr(other, name) is None)
            and (
                getattr(one, name) is None or torch.equal(getattr(one, name), getattr(other, name))
            )
            for name in ("soft_labels", "searched")
        )
        and one.soft_label_temperature == other.soft_label_temperature
    )


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "run", LABELS, {}) as run:
        yield run


@given(n=st.integers(0, 5), classes=st.integers(2, 4), optional=st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_shard_is_read_back_as_it_was_written(tmp_path_factory, n, classes, optional):
    labels = some_labels(n, classes, optional=optional)
    with RunFolder.create(tmp_path_factory.mktemp("run"), LABELS, {}) as run:
        run.write_shard(0, to_table(labels))
    assert same(load_labels(run.path), labels)


def test_shards_are_read_one_by_one_with_their_positions(run):
    parts = [some_labels(3), some_labels(2, first=3)]
    for part in parts:
        run.write_shard(int(part.index[0]), to_table(part))
    assert same(load_labels(run.path), Labels.concat(parts))
    assert [(place, len(part)) for place, part in iterate_shards(run.path)] == [(0, 3), (3, 2)]


def test_labels_of_a_data_set_without_classes_are_read_back_without_them(run):
    run.write_shard(0, to_table(dataclasses.replace(some_labels(3), label=None)))
    assert load_labels(run.path).label is None


@pytest.mark.parametrize("optional", [True, False])
def test_saved_labels_are_read_back_as_they_were(tmp_path, optional):
    labels = some_labels(optional=optional)
    (tmp_path / "labels.parquet").write_bytes(b"an older file")

    labels.save(tmp_path / "labels.parquet")

    assert same(load_labels(tmp_path / "labels.parquet"), labels)
    assert [file.name for file in tmp_path.iterdir()] == ["labels.parquet"]


def test_saved_labels_keep_repeated_samples_and_missing_classes(tmp_path):
    labels = Labels.concat([dataclasses.replace(some_labels(3), label=None)] * 2)

    labels.save(tmp_path / "labels.parquet")

    loaded = load_labels(tmp_path / "labels.parquet")
    assert loaded.label is None and loaded.index.tolist() == [0, 1, 2, 0, 1, 2]


def test_labels_are_not_saved_over_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"path: .* got the folder"):
        some_labels().save(tmp_path)


def test_a_file_that_holds_no_labels_is_refused(tmp_path, run):
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "labels.parquet"
    file.write_bytes(b"text")
    with pytest.raises(ValueError, match="expected a Parquet file of labels"):
        load_labels(file)
    parquet.write_table(to_table(some_labels()), file)
    with pytest.raises(ValueError, match="expected format 'db3kd labels 6', got 'none'"):
        load_labels(file)
    labels = some_labels()
    labels.decision[0] = 99
    with pytest.raises(ValueError, match=r"column decision, row 0"):
        labels.save(file)
    table = to_table(labels).replace_schema_metadata({FORMAT_KEY: LABELS.format.encode()})
    parquet.write_table(table, file)
    with pytest.raises(ValueError, match=r"does not hold valid labels: column decision, row 0"):
        load_labels(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decision": torch.tensor([0, 3, 0, 0])}, "column decision, row 1: .*, got 3"),
        ({"decision": torch.tensor([0, 0, -2, 0])}, "column decision, row 2"),
        ({"label": torch.tensor([0, 0, 0, 3])}, "column label, row 3"),
        ({"queries": torch.full((4, 3), 2**31)}, "column queries, row 0"),
        ({"snapshots": {-1: torch.zeros(4, 3)}}, "snapshots: expected an integer of at least 0"),
        ({"soft_labels": torch.ones(4, 3)}, "column soft_labels, row 0: expected a sum of 1"),
        ({"index": list(range(4))}, "index: expected a tensor, got list"),
        ({"searched": [True]}, "searched: expected a tensor, got list"),
        ({"snapshots": {5: [0.0]}}, r"snapshots\[5\]: expected a tensor, got list"),
        ({"index": torch.tensor(3)}, r"index: expected \[n\] torch.int64, got \[\]"),
    ],
)
def test_values_that_no_file_can_hold_are_refused(changes, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        dataclasses.replace(some_labels(), **changes)


def test_labels_may_lack_soft_labels_of_some_samples(tmp_path):
    labels = some_labels()
    labels.soft_labels[1] = 0
    labels.save(tmp_path / "labels.parquet")
    assert same(load_labels(tmp_path / "labels.parquet"), labels)


def test_labels_keep_no_gradient(tmp_path):
    labels = some_labels()
    soft_labels = labels.soft_labels.clone().requires_grad_() * 1
    snapshots = {500: labels.distances.clone().requires_grad_()}
    made = dataclasses.replace(labels, soft_labels=soft_labels, snapshots=snapshots)
    made.save(tmp_path / "labels.parquet")
    assert same(load_labels(tmp_path / "labels.parquet"), made)
    assert made.soft_labels.equal(labels.soft_labels)


def test_a_data_frame_has_a_row_for_each_sample():
    pytest.importorskip("pandas")
    labels = some_labels()
    frame = labels.to_pandas()
    assert list(frame.columns) == [
        *("index", "decision", "status", "queries", "nearest_class", "nearest_distance", "label"),
        *(f"distance_{number}" for number in range(3)),
        *(f"soft_label_{number}" for number in range(3)),
    ]
    assert frame["queries"].tolist() == labels.queries.sum(1).tolist()
    assert frame["distance_1"].tolist() == labels.distances[:, 1].tolist()
    for row, (which, distance) in enumerate(
        zip(frame["nearest_class"], frame["nearest_distance"], strict=True)
    ):
        measured = labels.distances[row][labels.targets[row]]
        if measured.isfinite().any():
            assert distance == measured.min() == labels.distances[row, which]
        else:
            assert (which, distance) == (-1, torch.inf)


def test_labels_are_described_in_three_lines():
    labels = some_labels(optional=False)
    described = repr(labels).split("\n")
    assert len(described) == 3
    assert described[0].startswith("Labels(4 samples, 3 classes")
    assert f"{int(labels.queries.sum()):,} queries" in described[1]
    assert described[2].endswith("soft labels: none)")
    assert repr(some_labels()).endswith("soft labels: temperature 4)")
    assert "mean distance none" in repr(some_labels(0))


def test_pandas_reads_a_run(run):
    pandas = pytest.importorskip("pandas")
    labels = some_labels()
    run.write_shard(0, to_table(labels))
    with run.journal("decisions", 10) as journal:
        journal.ask(torch.arange(3))
    (run.path / "_report").mkdir()
    (run.path / "_report" / "report.md").write_text("# A report")
    frame = pandas.read_parquet(run.path)
    assert list(frame.columns) == [
        *("index", "decision", "label", "status", "queries", "distances", "searched"),
        *("distances_at_500", "distances_at_1000", "soft_labels"),
    ]
    assert frame["status"].tolist() == labels.status
    assert frame["distances"][0].tolist() == labels.distances[0].tolist()


def test_datasets_reads_a_run(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    parts = [some_labels(3), some_labels(2, first=3)]
    for part in parts:
        run.write_shard(int(part.index[0]), to_table(part))
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


def test_a_shard_without_a_column_is_named(run):
    run.write_shard(3, to_table(some_labels()).drop_columns(["queries"]))
    with pytest.raises(
        ValueError, match=r"labels-0000000003-.*does not hold valid labels: .*queries"
    ):
        load_labels(run.path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("distances", torch.ones(4), r"distances: expected \[4, C\]"),
        ("distances", torch.ones(4, 3).double(), "torch.float32, got"),
        ("decision", torch.ones(3).long(), r"decision: expected \[4\]"),
        ("queries", torch.ones(4, 2).long(), r"queries: expected \[4, 3\]"),
        ("snapshots", {500: torch.ones(4, 2)}, r"snapshots\[500\]"),
        ("soft_labels", torch.ones(4, 2), "soft_labels: expected"),
        ("searched", torch.ones(4, 3), r"searched: expected \[4, 3\] torch.bool"),
        ("soft_label_temperature", 0.0, "soft_label_temperature: expected a finite number above 0"),
        ("soft_labels", None, r"soft_label_temperature: .*got 4.0 without soft_labels"),
        ("status", ["ok"] * 3, "status: expected 4"),
        ("status", ["fine"] * 4, "fine"),
    ],
)
def test_labels_of_the_wrong_shape_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(some_labels(), **{name: value})


def test_only_parts_with_the_same_contents_are_joined():
    with pytest.raises(ValueError, match="without soft labels"):
        Labels.concat([some_labels(), some_labels(optional=False)])
    with pytest.raises(ValueError, match=r"soft labels of temperature 2\.0"):
        Labels.concat(
            [some_labels(), dataclasses.replace(some_labels(), soft_label_temperature=2.0)]
        )
    with pytest.raises(ValueError, match="all classes searched"):
        Labels.concat([some_labels(), dataclasses.replace(some_labels(), searched=None)])
    with pytest.raises(ValueError, match="at least one"):
        Labels.concat([])


def test_targets_are_the_other_classes_that_were_searched():
    labels = some_labels(2)
    labels.decision[1] = -1
    searched = torch.tensor([[True, False, True], [True, True, True]])

    narrowed = dataclasses.replace(labels, searched=searched).targets.tolist()

    assert narrowed == [[False, False, True], [False, False, False]]
    everything = dataclasses.replace(labels, searched=None).targets.tolist()
    assert everything == [[False, True, True], [False, False, False]]
