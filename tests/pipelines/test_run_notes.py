"""Small results that a resumed run finds again."""

import json

import pytest
from distill_cases import TRAINING

from db3kd.errors import InputError
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.run_notes import RunNotes, price_of_run


def test_notes_are_found_again_and_unknown_ones_are_none(tmp_path):
    notes = RunNotes(tmp_path)
    assert notes.get("curve") is None
    assert notes.put("curve", [[10, 0.5]]) == [[10, 0.5]]

    again = RunNotes(tmp_path)
    assert again.get("curve") == [[10, 0.5]]
    again.remove()
    assert RunNotes(tmp_path).get("curve") is None
    assert list(tmp_path.iterdir()) == []


def test_a_value_is_computed_once_for_equal_inputs(tmp_path):
    computed = []

    def compute() -> int:
        computed.append(len(computed))
        return computed[-1]

    def get(**depends_on: object) -> int:
        return RunNotes(tmp_path).once("steps", depends_on, compute)

    assert [get(limit=3.0, settings=TRAINING) for _ in range(3)] == [0, 0, 0]
    assert get(limit=4.0, settings=TRAINING) == 1, "another input needs another value"
    assert get(limit=4.0, settings=TRAINING) == 1
    assert len(computed) == 2


def test_a_value_that_fails_is_not_kept(tmp_path):
    notes = RunNotes(tmp_path)
    with pytest.raises(ZeroDivisionError):
        notes.once("steps", {}, lambda: 1 / 0)
    assert notes.once("steps", {}, lambda: 7) == 7


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"3", b"\xff\xfe"])
def test_a_damaged_file_is_named_with_a_way_out(tmp_path, content):
    (tmp_path / "_notes.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"_notes.json: expected JSON.* remove it"):
        RunNotes(tmp_path)


def test_the_time_of_a_block_that_fails_counts_too(tmp_path, monkeypatch):
    clock = iter([1.0, 4.0, 10.0, 12.0])
    monkeypatch.setattr("db3kd.pipelines.run_notes.time.monotonic", lambda: next(clock))
    with RunNotes(tmp_path).timed("seconds"):
        pass
    with pytest.raises(KeyboardInterrupt), RunNotes(tmp_path).timed("seconds"):
        raise KeyboardInterrupt

    assert RunNotes(tmp_path).get("seconds") == 5.0


def test_the_notes_of_a_distillation_are_found_again(tmp_path):
    notes = DistillNotes(tmp_path)
    assert notes.seconds == {"asking": 0.0, "choosing": 0.0, "training": 0.0}
    assert notes.curve == [] and not notes.rare_classes(False)

    assert notes.rare_classes(True)
    for queries, share in ((300, 0.75), (100, 0.5), (300, 1.0)):
        notes.add_agreement(queries, share)
    with notes.timed_part("asking"), notes.timed_part("choosing"):
        pass
    notes.keep_training({"student": "mlp"})

    stored = json.loads((tmp_path / "_notes.json").read_text())
    assert {key for key in stored if key.startswith("seconds")} == {
        "seconds_asking",
        "seconds_choosing",
    }
    del stored["seconds_asking"], stored["seconds_choosing"]
    assert stored == {
        "rare_classes": True,
        "curve": [[100, 0.5], [300, 1.0]],
        "student": {"depends_on": {"student": "mlp"}, "value": True},
    }
    again = DistillNotes(tmp_path)
    assert again.curve == [(100, 0.5), (300, 1.0)] and again.rare_classes(False)


@pytest.mark.parametrize("price", ["x", -1, True, float("nan")])
def test_a_stored_price_that_is_none_is_refused(tmp_path, price):
    notes = RunNotes(tmp_path)
    notes.put("price_per_1000", price)
    with pytest.raises(InputError, match="entry price_per_1000: expected a number, at least 0"):
        price_of_run(None, tmp_path, resume=True)
