"""Values in files whose checksums are right: what no run writes is an error, and never a label."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from label_cases import some_labels

from db3kd.data.augmented_images import AugmentedImages
from db3kd.data.pseudo_samples import PSEUDO_SAMPLES, PseudoSamples, load_pseudo_samples
from db3kd.data.pseudo_samples import to_table as pseudo_table
from db3kd.labelling.runs.label_run import open_run
from db3kd.labels.label_files import iterate_shards, load_labels
from db3kd.labels.labels import LABELS, Labels, to_table
from db3kd.storage.manifest import MANIFEST, make_manifest
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.shards import read_shards
from db3kd.surrogates.augmented_decisions import AUGMENTED_DECISIONS, read_decisions

pytest.importorskip("pyarrow")

WRONG = {
    "index": (torch.tensor([0, 1, 1, 3]), "index: expected each number once, got 1 twice"),
    "decision": (torch.tensor([0, 1, 10**6, 0]), "column decision, row 2: .*got 1e"),
    "distances": (torch.tensor([[0.0, math.nan, 1]] * 4), "column distances, row 0: .*got nan"),
    "queries": (torch.tensor([[1, -5, 0]] * 4), "column queries, row 0: .*got -5"),
    "label": (torch.tensor([-2, 0, 0, 0]), "column label, row 0: expected a class, or -1, in"),
    "soft_labels": (torch.full((4, 3), 0.5), "column soft_labels, row 0: expected a sum of 1"),
    "snapshots": ({7: torch.full((4, 3), -1.0)}, "column distances_at_7, row 0: .*got -1"),
}


def begin(folder: Path, kind: Any = LABELS, seed: int = 0, **settings: object) -> RunFolder:
    described = make_manifest(
        settings, seed=seed, teacher_fingerprint="t", classes=None, data_fingerprint="d"
    )
    return RunFolder.create(folder, kind, described)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with begin(tmp_path / "run") as run:
        yield run


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_no_run_writes_is_named_with_file_and_column(run, name):
    value, message = WRONG[name]
    labels = some_labels()
    object.__setattr__(labels, name, value)  # `Labels` refuses most of these values itself
    file = run.write_shard(0, to_table(labels))

    with pytest.raises(ValueError, match=f"{file.name}.*{message}.*resume"):
        load_labels(run.path)


def test_a_missing_value_is_no_number(run):
    import pyarrow

    table = to_table(some_labels())
    decisions = pyarrow.array([0, None, 1, 2], pyarrow.int32())
    at = table.column_names.index("decision")
    run.write_shard(0, table.set_column(at, "decision", decisions))

    with pytest.raises(ValueError, match="column decision: expected int64 in every row"):
        load_labels(run.path)


def test_an_index_is_in_one_shard_alone(run):
    for position in (0, 4):
        run.write_shard(position, to_table(some_labels()))
    with pytest.raises(ValueError, match="index: expected each number once, got 0 twice"):
        load_labels(run.path)


def test_a_shard_of_another_run_or_place_is_refused(run, tmp_path):
    with begin(tmp_path / "other", seed=1) as other:
        foreign = other.write_shard(0, to_table(some_labels()))
    mine = run.write_shard(0, to_table(some_labels()))
    moved = mine.with_name(mine.name.replace("-0000000000-", "-0000000004-"))

    moved.write_bytes(mine.read_bytes())
    with pytest.raises(ValueError, match=f"{moved.name}: is a shard of another run"):
        load_labels(run.path)
    moved.unlink()
    mine.unlink()
    (run.path / foreign.name).write_bytes(foreign.read_bytes())
    with pytest.raises(ValueError, match=f"{foreign.name}: is a shard of another run.*resume"):
        load_labels(run.path)


def test_queries_are_those_that_the_manifest_counts(run):
    labels = some_labels()
    run.write_shard(0, to_table(labels))
    run.finish({"samples": 4, "queries": int(labels.queries.sum()) + 1})
    with pytest.raises(ValueError, match=r"column queries: expected a total of"):
        load_labels(run.path)


def some_pseudo_samples(**changes: object) -> PseudoSamples:
    values = {
        "pixels": torch.zeros(3, 1, 2, 2, dtype=torch.uint8),
        "decision": torch.tensor([0, 1, 2]),
        "start": torch.tensor([0, 1, -1]),
        "moves": torch.zeros(3, dtype=torch.int64),
        "distance": torch.tensor([1.0, 2, math.inf]),
        "queries": torch.ones(3, dtype=torch.int64),
        "status": ["ok", "stuck", "budget"],
        "bounds": (0.0, 1.0),
        "classes": 3,
    }
    return PseudoSamples(**values | changes)


@pytest.mark.parametrize(
    "changes, column",
    [
        ({"decision": torch.tensor([0, 3, 0])}, "decision, row 1"),
        ({"distance": torch.tensor([1, -1, math.nan])}, "distance, row 1"),
        ({"queries": torch.tensor([1, 1, -1])}, "queries, row 2"),
        ({"status": ["ok", "ok", "fine"]}, "status"),
        ({"pixels": torch.zeros(3, 1, 2, 3, dtype=torch.uint8)}, "image"),
    ],
)
def test_pseudo_samples_are_checked_too(tmp_path, changes, column):
    described = {"image_shape": (1, 2, 2), "bounds": (0.0, 1.0), "classes": 3}
    with begin(tmp_path / "run", PSEUDO_SAMPLES, **described) as run:
        file = run.write_shard(0, pseudo_table(some_pseudo_samples(**changes)))
        with pytest.raises(ValueError, match=f"{file.name}.*column {column}"):
            load_pseudo_samples(run.path)


def is_sound(labels: Labels) -> bool:
    values = labels.distances, *labels.snapshots.values()
    return (
        len(set(labels.index.tolist())) == len(labels)
        and int(labels.index.min()) >= 0
        and bool(((labels.decision >= -1) & (labels.decision < labels.classes)).all())
        and all(bool((value >= 0).all()) for value in values)
        and bool((labels.queries >= 0).all())
    )


NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 10**6, 2**31 - 1, math.nan, math.inf, -math.inf, 0.5])


@given(data=st.data())
@settings(max_examples=25)
def test_any_value_in_any_cell_is_an_error_or_a_sound_label(tmp_path_factory, data):
    import pyarrow

    table = to_table(some_labels(3))
    name = data.draw(st.sampled_from(table.column_names))
    rows = table[name].to_pylist()
    row, value = data.draw(st.integers(0, 2)), data.draw(NUMBERS | st.none() | st.just("ok"))
    if isinstance(rows[row], list):
        rows[row][data.draw(st.integers(0, 2))] = value
    else:
        rows[row] = value
    try:
        column = pyarrow.array(rows, table[name].type)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
        column = pyarrow.array([str(cell) for cell in rows])
    changed = table.set_column(table.column_names.index(name), name, column)
    with begin(tmp_path_factory.mktemp("fuzz") / "run") as run:
        file = run.write_shard(0, changed)
        try:
            ((_, labels),) = iterate_shards(run.path)
        except ValueError as error:
            assert file.name in str(error)
        else:
            assert is_sound(labels)


ENTRIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(data=st.data())
@settings(max_examples=25)
def test_any_manifest_is_an_error_of_its_own_or_the_run(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    described = {"source": {"data": "nowhere.npz", "split": "train"}}
    with begin(folder, **described) as run:
        run.write_shard(0, to_table(some_labels()))
        run.finish({"samples": 4})
    content = json.loads((folder / MANIFEST).read_bytes())
    place = content
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key]:
            break
        inner, place = place, place[key]
    else:
        place, key = inner, key
    if data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(ENTRIES)
    (folder / MANIFEST).write_text(json.dumps(content))

    for read in (lambda: list(read_shards(folder, LABELS)), lambda: open_run(folder)):
        try:
            read()
        except (ValueError, FileNotFoundError) as error:
            assert str(folder) in str(error)
    file = folder / MANIFEST
    text = file.read_text()
    file.write_text(text[: data.draw(st.integers(0, len(text) - 2))])
    with pytest.raises(ValueError, match=r"expected JSON|expected format"):
        load_labels(folder)


@pytest.mark.parametrize(
    "changes, column",
    [
        ({"decision": [0, 7, 1, 2]}, "decision, row 1"),
        ({"decision": [0.5, 1, 1, 2]}, "decision: expected int64"),
        ({"number": [0, 1, 1, 1]}, "number: expected the images in their order"),
    ],
)
def test_what_a_surrogate_learns_from_is_checked_too(tmp_path, changes, column):
    import pyarrow

    images = AugmentedImages(torch.rand(4, 1, 4, 4), 2, 0, partners=4)
    right = {"sample": [0, 0, 1, 1], "number": [0, 1, 0, 1], "decision": [0, 1, 1, 2]}
    with begin(tmp_path / "run", AUGMENTED_DECISIONS) as run:
        file = run.write_shard(0, pyarrow.table(right | changes))
        ((_, table),) = read_shards(run.path, AUGMENTED_DECISIONS)
        assert read_decisions(run.path, 0, pyarrow.table(right), images, 3).tolist() == [0, 1, 1, 2]
        with pytest.raises(ValueError, match=f"{file.name}.*column {column}"):
            read_decisions(run.path, 0, table, images, 3)
