"""The zero-shot benchmark: its rows, what it keeps of their images, and how it is resumed."""

import json
import sys

import pytest

zero_shot = pytest.importorskip(
    "benchmarks.students.zero_shot", reason="benchmarks are not installed"
)
record = pytest.importorskip("benchmarks.common.record")


def test_rows_keep_the_classes_reached_and_are_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    command = "zero_shot curve --data digits --teacher-epochs 3 --threads 1 --student lenet5-fifth"
    command += " --steps 3 --seeds 2 --queries 300 --resume --save smoke --only"
    monkeypatch.setattr(sys, "argv", [*command.split(), "plain starts"])
    zero_shot.main()

    result = json.loads((tmp_path / "smoke.json").read_text())
    (row,) = result["rows"]
    assert row["queries"] >= row["images"] == 300
    assert len(row["accuracies"]) == len(row["agreements"]) == 2
    assert 1 <= row["reached"] <= 10 and row["cpu_seconds"] > 0
    assert (row["rarest"] > 0) == (row["reached"] == 10)

    monkeypatch.setattr(zero_shot, "_make", lambda *_: pytest.fail("made again"))
    monkeypatch.setattr(sys, "argv", [*command.split(), ""])
    monkeypatch.setattr(zero_shot, "_curve", lambda setting: [("plain starts, 300", None)])
    zero_shot.main()
    assert json.loads((tmp_path / "smoke.json").read_text())["rows"] == [row]
