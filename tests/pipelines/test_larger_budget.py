"""Runs that continue with a larger budget: nothing is paid for twice, and nothing is lost."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command_line import TEACHERS, CountingTeacher, Result, fail, succeed
from distill_cases import CLASSES, QUICK, SAMPLES, TRAINING, images, teacher, weights
from teachers_analytic import CountingTeacher as Counting
from teachers_analytic import RaisingTeacher

import db3kd
from db3kd.pipelines import DistillResult
from db3kd.pipelines.distillation import distill as distill_module
from db3kd.pipelines.distillation.prepared import stored_queries
from db3kd.pipelines.distillation.reproduction import command_lines
from db3kd.pipelines.query_rounds.answer_run import LARGER_BUDGETS, AnswerRun, clean_answers
from db3kd.pipelines.student_training import time_limit
from db3kd.planning import held_out, plan_budget
from db3kd.storage.manifest import MANIFEST, read_manifest


@pytest.fixture(autouse=True)
def _augmented_held_out_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small budgets query augmented versions of held-out images, too, as large ones do."""
    monkeypatch.setattr(held_out, "LEAST_VALIDATION", 1)


def run(out: Path, budget: int, asked: Any = None, **options: Any) -> DistillResult:
    given: dict[str, Any] = {"student": "linear", "settings": QUICK, "resume": out.exists()}
    given |= options
    return db3kd.distill(asked or teacher(), images(), budget=budget, out=out, **given)


def answered(out: Path) -> int:
    return stored_queries(out, plan_budget(1500, CLASSES, SAMPLES)).answered


def silent() -> RaisingTeacher:
    """A teacher that must not be asked."""
    return RaisingTeacher(teacher(), 0)


@pytest.mark.parametrize(
    ("strategy", "budgets"),
    [
        ("auto", (1500, 2500)),
        ("auto", (1500, 1550, 1700)),
        ("auto", (120, 1500, 1600)),  # the first one buys SD labels
        ("auto", (60, 400)),  # a part of the images, then all
        ("augmented", (500, 900)),
        ("decisions", (60, 100)),
    ],
)
def test_only_the_further_queries_are_sent_and_no_image_is_asked_about_twice(
    strategy, budgets, tmp_path
):
    counting, out = Counting(teacher()), tmp_path / "run"

    for budget in budgets:
        result = run(out, budget, counting, strategy=strategy)

        assert result.queries == counting.total == budget
        assert max(counting.per_image.values()) == 1
        assert answered(out) == budget
        assert read_manifest(out)["totals"]["queries"] == budget
        assert read_manifest(out)["state"] == "finished"
    again = run(out, budgets[-1], silent(), strategy=strategy)
    assert weights(again.student).equal(weights(result.student))
    assert again.plan == result.plan and again.paid_twice == 0


def test_the_decisions_behind_sd_labels_become_answers_of_their_images(tmp_path):
    out = tmp_path / "run"
    run(out, 120)
    run(out, 1500)

    numbers, decisions = clean_answers(out)
    assert sorted(numbers.tolist()) == list(range(SAMPLES))
    assert decisions.equal(torch.as_tensor(teacher().decide(images().read(numbers.tolist()))))


@pytest.mark.parametrize("budgets", [(1500, 2500), (120, 1500)])
@pytest.mark.parametrize("answers", [0, 40, 400, 900])
def test_a_stop_after_the_budget_was_increased_loses_nothing(budgets, answers, tmp_path):
    first, larger = budgets
    begun, whole, stopped = tmp_path / "begun", tmp_path / "whole", tmp_path / "stopped"
    run(begun, first)
    for copy in (whole, stopped):
        shutil.copytree(begun, copy)
    expected = run(whole, larger)

    failing = RaisingTeacher(teacher(), answers)
    with pytest.raises(Exception, match="continue"):
        run(stopped, larger, failing)
    assert first <= answered(stopped) <= first + answers + 64
    result = run(stopped, larger)

    assert weights(result.student).equal(weights(expected.student))
    assert result.queries == larger
    with pytest.raises(ValueError, match=rf"^budget: expected at least {larger:,}, because"):
        run(stopped, first, silent())


@pytest.mark.parametrize("first", [120, 500])
def test_a_mistyped_budget_is_withdrawn_if_nothing_was_asked_with_it(first, tmp_path):
    out, plain = tmp_path / "run", tmp_path / "plain"
    run(out, first)
    shutil.copytree(out, plain)
    with pytest.raises(Exception, match="continue"):
        run(out, 90_000, silent())

    before = run(out, first, silent())
    assert before.queries == first == answered(out)
    manifest = read_manifest(out)
    assert manifest["state"] == "finished"
    run(out, first, silent())
    assert read_manifest(out).get("resumed") == manifest.get("resumed"), "it stays finished"
    with pytest.raises(Exception, match="continue"):
        run(out, 90_000, silent())
    assert weights(run(out, 900).student).equal(weights(run(plain, 900).student))
    assert answered(out) == 900


def remove_shard(out: Path, number: int) -> int:
    """Removes a shard of a run, as errors for damaged ones advise; returns its number of rows."""
    shard = sorted(out.glob("answers-*.parquet"))[number]
    rows = pq.read_table(shard).num_rows
    shard.unlink()
    return rows


def test_a_budget_with_answers_stays_if_an_earlier_shard_is_removed(tmp_path):
    out, counting = tmp_path / "run", Counting(teacher())
    run(out, 500)
    run(out, 530)
    before = answers_of(out)
    removed = remove_shard(out, 1)
    assert removed > 30

    with pytest.raises(ValueError, match=r"^budget: expected at least 530, because"):
        run(out, 500, silent())
    result = run(out, 600, counting)

    assert result.queries == answered(out) == 600
    assert counting.total == removed + 70
    assert answers_of(out)[:530] == before
    assert [each["budget"] for each in read_manifest(out)[LARGER_BUDGETS]] == [530, 600]


def test_answers_that_were_taken_over_are_counted_once_without_the_held_out_ones(tmp_path):
    out = tmp_path / "run"
    run(out, 120)
    with pytest.raises(Exception, match="continue"):
        run(out, 1500, silent())
    held_out = remove_shard(out, 0)
    assert answered(out) == 120 - held_out


def test_damaged_sd_labels_leave_the_run_as_it_was(tmp_path):
    out = tmp_path / "run"
    run(out, 120)
    (shard,) = (out / "labels").glob("labels-*.parquet")
    shard.unlink()

    with pytest.raises(FileNotFoundError, match="labels: expected at least one shard"):
        run(out, 1500, silent())
    assert run(out, 120, silent()).queries == 120
    assert run(out, 1500).queries == 1500


@pytest.mark.parametrize(
    ("budget", "refused"),
    [(900.5, "an integer"), ("900", "an integer"), (None, "an integer"), (-1, "at least 1")],
)
def test_a_budget_that_is_no_count_is_refused(budget, refused, tmp_path):
    run(tmp_path / "run", 500)
    with pytest.raises((TypeError, ValueError), match=refused):
        run(tmp_path / "run", budget, silent())


def test_a_count_of_numpy_is_recorded_as_a_number(tmp_path):
    run(tmp_path / "run", 500)
    assert run(tmp_path / "run", np.int64(900)).queries == 900
    assert run(tmp_path / "run", 900, silent()).queries == 900


def test_random_rounds_stay_random_if_the_run_has_proxies_later(tmp_path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    run(out, 500)
    shutil.copytree(out, whole)
    without = replace(QUICK, proxies=0)
    run(whole, 900, settings=without)
    with pytest.raises(Exception, match="continue"):
        run(out, 900, RaisingTeacher(teacher(), 100), settings=without)

    result = run(out, 900)
    assert result.plan.chosen_rounds == [False, False]
    assert answers_of(out) == answers_of(whole)


def answers_of(out: Path) -> list[tuple[int, int]]:
    tables = (pq.read_table(file) for file in sorted(out.glob("answers-*.parquet")))
    return [(row["image"], row["number"]) for table in tables for row in table.to_pylist()]


def test_settings_may_change_before_anything_is_asked_with_a_budget(tmp_path):
    out = tmp_path / "run"
    run(out, 1500)
    with pytest.raises(Exception, match="continue"):
        run(out, 10**9, silent())
    other = replace(QUICK, training=replace(TRAINING, steps=18))

    result = run(out, 2500, settings=other)
    assert result.plan.budget == result.queries == 2500
    report = (out / "report.md").read_text()
    assert "were trained with other settings (entry choosing of the manifest)" in report


def test_a_run_needs_its_labels_no_more_once_it_has_their_decisions(tmp_path):
    out = tmp_path / "run"
    run(out, 120)
    result = run(out, 1500)
    shutil.rmtree(out / "labels")

    assert weights(run(out, 1500, silent()).student).equal(weights(result.student))
    assert run(out, 1600).queries == 1600


def test_a_stop_before_the_decisions_are_taken_over_hides_none_of_them(tmp_path, monkeypatch):
    out = tmp_path / "run"
    run(out, 120)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AnswerRun, "take_over", stop)
        run(out, 1500)
    assert answered(out) == 120
    counting = Counting(teacher())
    assert run(out, 1500, counting).queries == 1500
    assert counting.total == 1380


def test_a_budget_that_another_process_increased_in_between_is_refused(tmp_path, monkeypatch):
    out = tmp_path / "run"
    run(out, 500)
    prepared = distill_module.run_distillation

    def meanwhile(*arguments: Any, **options: Any) -> DistillResult:
        monkeypatch.setattr(distill_module, "run_distillation", prepared)
        run(out, 600)
        return prepared(*arguments, **options)

    monkeypatch.setattr(distill_module, "run_distillation", meanwhile)
    with pytest.raises(ValueError, match="has continued the run with a budget of 600; continue"):
        run(out, 700)
    assert run(out, 600, silent()).queries == 600
    assert run(out, 700).queries == 700


def change_entry(out: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Changes what the manifest says about the first larger budget."""
    manifest = read_manifest(out)
    entry = manifest[LARGER_BUDGETS][0]
    entry |= change(entry)
    (out / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"rounds": None}, "got None"),
        ({"rounds": 5}, "got 5"),
        ({"rounds": []}, "got []"),
        ({"rounds": ["a"]}, "got ['a']"),
        ({"rounds": [-3]}, "got [-3]"),
        ({"choosing": "x"}, "as choosing, got"),
        (
            {"budget": "9"},
            "expected a list of entries with the counts budget and held_out_augmented",
        ),
        ({"held_out_augmented": 1000}, "expected at most 900 queries, got"),
    ],
)
def test_a_damaged_entry_is_named(entry, named, tmp_path):
    out = tmp_path / "run"
    run(out, 500)
    run(out, 900)
    change_entry(out, lambda _: entry)

    with pytest.raises(ValueError, match=f"entry {LARGER_BUDGETS}: .*{re.escape(named)}"):
        run(out, 900, silent())


def test_a_lost_shard_of_another_size_is_noticed(tmp_path):
    out = tmp_path / "run"
    run(out, 500)
    run(out, 900)
    change_entry(out, lambda now: {"rounds": [now["rounds"][0] - 1, *now["rounds"][1:]]})

    with pytest.raises(ValueError, match=r"expected the .* answers of round .* got others"):
        run(out, 900, silent())


def test_a_report_says_which_rounds_proxies_chose(tmp_path):
    out = tmp_path / "run"
    run(out, 1200)
    run(out, 1500, settings=replace(QUICK, proxies=0))
    report = (out / "report.md").read_text()

    assert report.count("where proxies are least sure") == 3
    assert "chosen by proxies in 3 of 5 rounds" in report


@pytest.mark.parametrize(
    ("options", "first", "larger", "refused"),
    [
        ({"strategy": "bd"}, 500, 600, "expected 500, with which the run was started, got 600"),
        ({}, 120, 131, "expected 120, or at least 132, which also queries augmented images"),
        ({"strategy": "decisions"}, 500, 600, "has no use for more than 120 queries"),
        ({"strategy": "decisions"}, 500, 120, "settings.plan.budget: was 500, is 120"),
        ({}, 500, 400, "a run cannot be continued with a smaller budget: pass the old one,"),
    ],
)
def test_a_budget_that_cannot_continue_a_run_is_refused_before_a_query(
    options, first, larger, refused, tmp_path
):
    run(tmp_path / "run", first, **options)
    before = (tmp_path / "run" / "_manifest.json").read_bytes()
    with pytest.raises(ValueError, match=refused):
        run(tmp_path / "run", larger, silent(), **options)
    assert (tmp_path / "run" / "_manifest.json").read_bytes() == before


def test_sd_labels_must_be_finished_before_the_budget_is_increased(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Exception, match="continue"):
        run(out, 120, RaisingTeacher(teacher(), 50))
    with pytest.raises(ValueError, match=r"expected 120, .* until it is finished, got 1,500"):
        run(out, 1500, silent())
    run(out, 120)
    assert run(out, 1500).queries == 1500


def test_proxies_that_choose_stay_the_same_until_they_have_chosen(tmp_path):
    out = tmp_path / "run"
    run(out, 1500)
    with pytest.raises(Exception, match="continue"):
        run(out, 2500, RaisingTeacher(teacher(), 300))
    other = replace(QUICK, training=replace(TRAINING, steps=18))

    with pytest.raises(ValueError, match=r"settings\.choosing\.training\.steps: was 12, is 18"):
        run(out, 2500, silent(), settings=other)
    run(out, 2500)
    assert run(out, 2500, silent(), settings=other).queries == 2500


def test_another_run_is_refused_as_ever(tmp_path):
    out = tmp_path / "run"
    run(out, 500)
    for options, named in (
        ({"strategy": "augmented"}, 'strategy: was "auto", is "augmented"'),
        ({"settings": replace(QUICK, held_out=9)}, "held_out: was 6, is 9"),
    ):
        with pytest.raises(ValueError, match=named):
            run(out, 900, silent(), **options)


def test_an_export_of_an_earlier_student_is_named(tmp_path, caplog):
    out = tmp_path / "run"
    run(out, 500)
    exported = out / "student.onnx"
    succeed("export", out, "--format", "onnx")
    (out / "student.toml").write_text('model = "student.safetensors"')
    run(out, 500, silent())
    assert "earlier student" not in caplog.text

    run(out, 900)
    assert f"{exported}: holds an earlier student; remove it and export the new one" in caplog.text
    assert "student.toml" not in caplog.text, "a description is no export"
    message = fail("export", out, "--format", "onnx")
    assert "is older than student.safetensors, so it may hold an earlier student" in message


def test_the_report_says_how_to_spend_more_if_that_is_possible(tmp_path):
    for strategy, possible in (("auto", True), ("bd", False)):
        out = tmp_path / strategy
        run(out, 500, strategy=strategy)
        text = (out / "report.md").read_text()
        assert ("repeat the command with a larger --budget" in text) == possible


def test_a_time_limit_holds_for_the_training_of_each_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(time_limit, "seconds_per_step", lambda *_: 0.01)
    settings = replace(QUICK, training=replace(TRAINING, steps=4000), time_limit=3.0)
    for budget in (500, 900):
        result = run(tmp_path / "run", budget, settings=settings)
        assert result.queries == budget
        (warning,) = (each for each in result.warnings if "cut training from 4,000 to" in each)
        steps = int(warning.split("from 4,000 to ")[1].split()[0])
        assert 50 <= steps <= 300  # the proxies need time, too


def test_the_command_line_plans_prices_and_reproduces_a_larger_budget(tmp_path):
    out = tmp_path / "run"
    counting = f"{TEACHERS}:CountingTeacher"
    options = (
        *("distill", "--teacher", counting, "--data", "digits", "--limit", 300),
        *(
            "--student",
            "linear",
            "--proxy",
            "linear",
            "--steps",
            12,
            "--out",
            out,
            "--price-per-1000",
            1,
        ),
    )
    before = CountingTeacher.asked
    succeed(*options, "--budget", 1500)
    assert CountingTeacher.asked - before == 1500

    planned = succeed(*options, "--budget", 2500, "--resume", "--dry-run")
    assert CountingTeacher.asked - before == 1500
    assert "queries    at most 2,500 of 2,500, price 2.50" in planned
    assert "answered   1,500 of these queries" in planned
    assert "at most 1,000 are left, price 1.00" in planned
    assert "finished" not in planned

    printed = Result(*options, "--budget", 2500, "--resume")
    assert printed.code == 0, printed.err
    assert CountingTeacher.asked - before == 2500
    assert "queries    2,500" in printed.out
    report = (out / "report.md").read_text()
    assert "budget=1500" in report and "budget=2500" in report and "resume=True" in report
    again = succeed(*options, "--budget", 2500, "--resume", "--dry-run")
    assert "answered   2,500 queries; the run is finished" in again


def test_the_commands_of_a_report_repeat_each_budget():
    arguments = ["db3kd", "distill", "--budget", "2500", "--out", "r", "--resume"]
    assert command_lines(arguments, None, [1500, 2500]).splitlines() == [
        "db3kd distill --out r --budget 1500",
        "db3kd distill --out r --budget 2500 --resume",
    ]
