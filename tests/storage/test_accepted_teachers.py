"""The manifest of a run that is continued with another teacher, or with other names of classes."""

from pathlib import Path

import pytest
import torch

from db3kd.storage.changed_teachers import compare_or_accept_teacher
from db3kd.storage.kinds import Kind
from db3kd.storage.manifest import (
    current_names,
    make_manifest,
    read_manifest,
    with_current_teacher,
)
from db3kd.storage.run_comparison import ExpectedRun
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.shards import read_shards

pyarrow = pytest.importorskip("pyarrow")

KIND = Kind("rows", 1)
NAMES = ("cat", "dog", "brid", "fish")
CORRECTED = ("cat", "dog", "bird", "fish")


def manifest(names=NAMES, teacher="first", **settings) -> dict:
    settings = {"class_names": names, "noise": "gaussian"} | settings
    return make_manifest(
        settings, seed=0, teacher_fingerprint=teacher, classes=4, data_fingerprint="d"
    )


def accept(path: Path, wanted: dict) -> None:
    compare_or_accept_teacher([ExpectedRun(path, KIND, wanted)], accept_changed_teacher=True)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run with a shard and answers towards the next one."""
    with RunFolder.create(tmp_path / "run", KIND, manifest()) as run:
        run.write_shard(0, pyarrow.table({"decision": [0, 1, 1]}))
        with run.journal(3, 4) as journal:
            journal.ask(torch.zeros(3, dtype=torch.int64))
            journal.answer(torch.tensor([0, 1, 1]))
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (manifest(CORRECTED), r'class_names: was {"2": "brid"}, is {"2": "bird"}; if the answers'),
        (manifest(None), r'class_names: was \["cat", .*, is null; if the answers'),
        (manifest(teacher="second"), 'teacher: was "first", is "second".*; if the answers'),
    ],
)
def test_another_teacher_is_refused_until_it_is_accepted(stopped, wanted, message):
    before = read_manifest(stopped)
    with pytest.raises(ValueError, match=f"{message}.*accept_changed_teacher=True"):
        RunFolder.reopen(stopped, KIND, wanted)
    assert read_manifest(stopped) == before

    accept(stopped, wanted)

    with RunFolder.reopen(stopped, KIND, wanted) as run:
        assert len(run.journals.answers_in(run.journals.file(3))) == 3
    assert [position for position, _ in read_shards(stopped, KIND)] == [0]
    with pytest.raises(ValueError, match="holds a different run"):
        RunFolder.reopen(stopped, KIND, manifest())


def test_the_teacher_that_was_accepted_last_counts_whatever_the_clock_says(stopped, caplog):
    accept(stopped, manifest(CORRECTED))
    assert '(settings.class_names: was {"2": "brid"}, is {"2": "bird"})' in caplog.text
    accept(stopped, manifest(CORRECTED, "second"))
    accept(stopped, manifest(CORRECTED, "second"))

    stored = read_manifest(stopped)
    stored["changed_teachers"][0]["at"] = "2999-01-01T00:00:00+00:00"
    assert [each["teacher"] for each in stored["changed_teachers"]] == ["first", "second"]
    assert with_current_teacher(stored)["teacher"] == "second"
    assert current_names(stored) == CORRECTED
    assert stored["settings"]["class_names"] == list(NAMES), "its shards belong to the first ones"
    assert current_names(manifest()) == NAMES and current_names(manifest(None)) is None


@pytest.mark.parametrize("other", [{"noise": "rademacher"}, {"classes": 5}])
def test_only_the_teacher_is_accepted(stopped, other):
    wanted = manifest(CORRECTED, "second")
    wanted["settings"] |= other
    with pytest.raises(ValueError, match="holds a different run"):
        accept(stopped, wanted)
    assert "changed_teachers" not in read_manifest(stopped)
