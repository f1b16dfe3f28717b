"""The benchmark of budgets: runs that differ only in their student share answers and proxies."""

import argparse
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("benchmarks.students.budgets", reason="benchmarks are not installed")

from benchmark_cases import small_trained
from teachers_analytic import CountingTeacher

from benchmarks.common import record
from benchmarks.students import budgets


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Makes the benchmark write to a temporary folder, and returns its teacher."""
    made = small_trained()
    made = replace(made, teacher=CountingTeacher(made.teacher))
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(budgets, "trained_teacher", lambda options: made)
    return made


def rows_of(students, runs, name, monkeypatch, more=""):
    words = "budgets --images 40 --per-sample 4 --strategies auto --steps 3 --seeds 1"
    words += f" --students {students} --runs {runs} --save {name} {more}"
    monkeypatch.setattr("sys.argv", words.split())
    budgets.main()
    return json.loads((record.RESULTS / f"{name}.json").read_text())["rows"]


def test_runs_that_differ_only_in_their_student_share_answers_and_proxies(
    trained, tmp_path, monkeypatch
):
    (alone,) = rows_of("mlp-half", tmp_path / "alone", "alone", monkeypatch)
    asked_alone, trained.teacher.total = trained.teacher.total, 0

    first, second = rows_of("mlp-quarter mlp-half", tmp_path / "both", "both", monkeypatch)

    assert (first["student"], second["student"]) == ("mlp-quarter", "mlp-half")
    assert trained.teacher.total == asked_alone
    assert second["queries"] == alone["queries"] == 160
    measured = ("accuracy", "agreement", "held_out_agreement", "choices")
    assert [second[name] for name in measured] == [alone[name] for name in measured]
    weights = [
        load_file(tmp_path / run / "generated" / "40-4-mlp-half-auto-0" / "student.safetensors")
        for run in ("alone", "both")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_answers_of_other_runs_teach_students_without_a_query(
    trained, tmp_path, monkeypatch, capsys
):
    rows_of("mlp-quarter", tmp_path / "runs", "with", monkeypatch)
    trained.teacher.total = 0
    more = f"--proxies 0 --answers-of {tmp_path / 'runs'}"

    (row,) = rows_of("mlp-quarter mlp-half", tmp_path / "alone", "alone", monkeypatch, more)

    assert trained.teacher.total == len(trained.test)
    assert row["student"] == "mlp-quarter" and row["queries"] == 160
    assert "40-4-mlp-half-auto-0: --answers-of: expected a run in" in capsys.readouterr().out


def test_a_student_that_a_larger_budget_does_not_change_is_trained_once():
    options = argparse.Namespace(
        images=[100], per_sample=[0.5, 2, 10], students=["mlp"], seeds=1, white_box=True
    )
    options.strategies = ["auto", "decisions", "sd"]

    cells = [(each.strategy, each.queries_per_sample) for each in budgets._cells(options)]

    expected = {("auto", 0.5), ("auto", 2), ("auto", 10), ("decisions", 0.5), ("decisions", 2)}
    expected |= {("sd", 0.5), ("sd", 2), ("white box, patient", 0.5)}
    assert len(cells) == len(expected) and set(cells) == expected
