"""Class names that are corrected before a run goes on: only those that no answer depends on."""

from pathlib import Path

import pytest
import torch

from db3kd.storage.fingerprints import fingerprint_with_names, split_fingerprint
from db3kd.storage.manifest import CHANGED_TEACHERS, RENAMED, make_manifest, read_manifest
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.run_names import current_names, record_change, with_current_names
from db3kd.storage.shards import Kind, read_shards

pyarrow = pytest.importorskip("pyarrow")

KIND = Kind("rows", 1)
NAMES = ("cat", "dog", "brid", "fish")


def manifest(names=NAMES, model="model", named=True, **settings) -> dict:
    teacher = fingerprint_with_names(model, names if named else None)
    settings = {"class_names": names, "noise": "gaussian"} | settings
    return make_manifest(
        settings, seed=0, teacher_fingerprint=teacher, classes=None, data_fingerprint="d"
    )


def reopen(path: Path, wanted: dict) -> RunFolder:
    return RunFolder.reopen(path, KIND, wanted)


@pytest.fixture(params=["journal", "shard"])
def stopped(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run whose teacher has answered with classes 0 and 1."""
    with RunFolder.create(tmp_path / "run", KIND, manifest()) as run:
        if request.param == "shard":
            run.write_shard(0, pyarrow.table({"decision": [0, 1, 1]}))
        else:
            with run.journal(0, 4) as journal:
                journal.ask(torch.zeros(3, dtype=torch.int64))
                journal.answer(torch.tensor([0, 1, 1]))
    return tmp_path / "run"


@pytest.mark.parametrize(
    "names",
    [("cat", "dog", "bird", "fish"), ("cat", "dog", "fish", "brid"), (*NAMES[:2], "a", "b")],
)
def test_names_of_classes_without_an_answer_may_change(tmp_path, stopped, names):
    run = reopen(stopped, manifest(names))
    run.write_shard(3, pyarrow.table({"decision": [2]}))
    run.close()

    stored = read_manifest(stopped)
    assert current_names(stored) == names
    assert stored["settings"]["class_names"] == list(NAMES), "its shards belong to the first ones"
    again = reopen(stopped, manifest(names))
    assert again.has_shard(3)
    again.close()
    decided = [
        row for _, table in read_shards(stopped, KIND) for row in table["decision"].to_pylist()
    ]
    assert decided[-1] == 2
    with pytest.raises(ValueError, match=f"class 2 was '{names[2]}', is 'x'"):
        reopen(stopped, manifest((*names[:2], "x", names[3])))


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        (
            ("cat", "Dog", "brid", "fish"),
            "1 class changed .*: class 1 was 'dog', is 'Dog'",
        ),
        (("cat", "brid", "dog", "fish"), "2 classes .* 1 of them: class 1 was 'dog', is 'brid'"),
        (
            ("dog", "cat", "bird", "fish"),
            "3 classes .* 2 of them: class 0 was 'cat', is 'dog'",
        ),
    ],
)
def test_names_of_classes_with_answers_must_stay(stopped, names, changes):
    before = read_manifest(stopped)

    with pytest.raises(ValueError, match=f"{changes}.*Restore these names") as raised:
        reopen(stopped, manifest(names))

    assert str(stopped) in str(raised.value)
    assert read_manifest(stopped) == before
    reopen(stopped, manifest()).close()


@pytest.mark.parametrize(
    "wanted",
    [
        manifest(("cat", "dog", "bird", "fish"), model="another"),
        manifest(("cat", "dog", "bird", "fish"), noise="rademacher"),
        manifest((*NAMES, "horse")),
        manifest(NAMES[:3]),
        manifest(None),
    ],
)
def test_a_run_that_differs_in_more_than_names_is_another(stopped, wanted):
    with pytest.raises(ValueError, match="holds a different run"):
        reopen(stopped, wanted)


def test_names_stay_if_it_is_unknown_what_the_teacher_answered(tmp_path):
    with RunFolder.create(tmp_path / "run", KIND, manifest()) as run:
        run.write_shard(0, pyarrow.table({"index": [0, 1, 1]}))

    with pytest.raises(ValueError, match="class 2 was 'brid', is 'bird'"):
        reopen(run.path, manifest(("cat", "dog", "bird", "fish")))


def test_a_fingerprint_tells_the_model_from_its_names():
    prints = {fingerprint_with_names("m", names) for names in (NAMES, NAMES[::-1], None)}

    assert len(prints) == 3
    assert {split_fingerprint(each)[0] for each in prints} == {"m"}
    assert {"".join(split_fingerprint(each)) for each in prints} == prints


EARLY, LATE = "2025-01-01T00:00:01+00:00", "2025-01-01T00:00:05+00:00"
BEGUN = {"teacher": "first", "settings": {"class_names": ["a"]}}


@pytest.mark.parametrize("times", [(EARLY, LATE), (EARLY, EARLY), (LATE, EARLY)])
@pytest.mark.parametrize("lists", [(RENAMED, CHANGED_TEACHERS), (CHANGED_TEACHERS, RENAMED)])
def test_the_change_that_was_recorded_last_counts_whatever_the_clock_says(times, lists):
    changed = dict(BEGUN)
    for name, when, teacher in zip(lists, times, ("second", "third"), strict=True):
        record_change(changed, name, when, teacher, class_names=["b"])
        assert with_current_names(changed)["teacher"] == teacher
    assert with_current_names(changed)["settings"]["class_names"] == ["b"]
    assert with_current_names(BEGUN) == BEGUN


def test_changes_of_earlier_versions_are_ordered_by_their_times():
    def entry(when: str, teacher: str) -> dict[str, object]:
        return {"at": when, "teacher": teacher, "class_names": ["b"]}

    for times, latest in (((EARLY, LATE), "accepted"), ((LATE, EARLY), "renamed")):
        changed = BEGUN | {
            RENAMED: [entry(times[0], "renamed")],
            CHANGED_TEACHERS: [entry(times[1], "accepted")],
        }
        assert with_current_names(changed)["teacher"] == latest
        record_change(changed, CHANGED_TEACHERS, "2024-01-01T00:00:00+00:00", "third")
        assert with_current_names(changed)["teacher"] == "third"
