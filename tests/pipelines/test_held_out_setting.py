"""`held_out` of the settings: how many images measure the student, in all runs that train one."""

from dataclasses import replace

import pytest
from distill_cases import QUICK, images, teacher
from teachers_analytic import CountingTeacher

import db3kd


@pytest.mark.parametrize("strategy", ["auto", "decisions", "sd", "zero-shot"])
def test_a_student_is_measured_on_the_chosen_number(strategy, tmp_path):
    counting = CountingTeacher(teacher())
    settings = replace(QUICK, held_out=40)

    result = db3kd.distill(
        counting, images(), budget=200, strategy=strategy, settings=settings, out=tmp_path / "r"
    )

    assert result.held_out == 40 == result.plan.measured_on
    assert counting.total == result.queries <= 200
    noun = "pseudo samples" if strategy == "zero-shot" else "images"
    assert f"of 40 held-out {noun}" in (tmp_path / "r" / "report.md").read_text()
    assert "held_out=40" in (tmp_path / "r" / "report.md").read_text(), "needed to repeat the run"


@pytest.mark.parametrize("strategy", ["auto", "zero-shot"])
def test_a_run_is_not_resumed_with_another_number(strategy, tmp_path):
    given = {"budget": 130, "strategy": strategy, "out": tmp_path / "r"}
    db3kd.distill(teacher(), images(), settings=replace(QUICK, held_out=30), **given)

    with pytest.raises(ValueError, match=r"held_out: was 30, is 31 \(held_out=\)"):
        db3kd.distill(
            teacher(), images(), settings=replace(QUICK, held_out=31), resume=True, **given
        )


def test_a_number_that_does_not_fit_costs_no_query(tmp_path):
    counting = CountingTeacher(teacher())
    for call in (db3kd.distill, db3kd.compare):
        with pytest.raises(ValueError, match="held_out: expected fewer than the 120 images"):
            call(counting, images(), budget=200, settings=replace(QUICK, held_out=120))
    with pytest.raises(ValueError, match="held_out: expected an integer of at least 1, got 0"):
        replace(QUICK, held_out=0)
    assert counting.total == 0


def test_a_comparison_measures_each_student_on_the_chosen_number():
    result = db3kd.compare(
        teacher(), images(), budget=200, strategies=["decisions", "zero-shot"], student="linear",
        seeds=1, settings=replace(QUICK, held_out=33),
    )  # fmt: skip
    assert [row.held_out[1] for row in result.rows] == [33, 33]
