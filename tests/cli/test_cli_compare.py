"""db3kd compare: the plan of each strategy, the table, and resuming."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import TEACHERS, CountingTeacher, Result, fail, succeed

QUICK = ("--student", "linear", "--steps", 5, "--proxy", "linear", "--device", "cpu", "--seeds", 2)


def options(teacher: Path | str, *more: object) -> tuple[object, ...]:
    return ("compare", "--teacher", teacher, "--data", "digits", "--limit", 60, *QUICK, *more)


def test_a_dry_run_asks_nothing_and_prints_the_plan_of_each_strategy(tmp_path):
    before = CountingTeacher.asked
    counting = f"{TEACHERS}:CountingTeacher"
    names = ("--strategies", "auto, decisions,mbd", "--test", "digits", "--price-per-1000", 2)

    out = succeed(*options(counting, "--budget", 50, *names, "--dry-run"))

    assert CountingTeacher.asked == before
    auto, decisions, mbd, total, measured, training = out.splitlines()
    assert "on 359 test images, to ±5 percentage points or better" in measured
    assert "--test-limit N queries fewer of them" in measured
    assert auto.startswith("auto") and "at most 50 queries, price 0.10 at 2.00 per 1,000" in auto
    assert (
        decisions.startswith("decisions") and "a part of the images, drawn at random" in decisions
    )
    assert mbd.startswith("mbd") and "not used" in mbd and "60 images" in mbd
    assert "at most 559 queries for 4 students and 359 test images, price 1.118" in total
    assert "no query was sent" in training
    assert list(tmp_path.iterdir()) == []
    # A run without proxies does not offer them as teachers.
    assert auto.endswith("; proxies may teach") and "teach" not in decisions
    given = ("--data", "digits", "--limit", 60, "--student", "linear", "--proxies", 0)
    printed = succeed("compare", "--teacher", counting, *given, *names, "--budget", 50, "--dry-run")
    assert "may teach" not in printed


def test_the_table_is_printed_and_written_and_resumed_without_a_query(teacher, tmp_path):
    out = tmp_path / "compare"
    command = options(
        teacher, "--budget", 80, "--strategies", "decisions,augmented", "--test", "digits",
        "--out", out,
    )  # fmt: skip

    printed = succeed(*command)

    page = (out / "report.md").read_text()
    for row in ("decisions", "augmented"):
        (line,) = (line for line in printed.splitlines() if line.startswith(f"| {row} |"))
        assert line in page
    assert "decisions, seed 1: test agreement" in printed
    assert " is the best of 2 strategies by agreement on 359 test images: " in printed
    assert "359 of them about the test images" in printed
    content = json.loads((out / "compare.json").read_text())
    assert content["queries"] == 359 + 2 * 60 + 2 * 80
    assert "already" in fail(*command)
    assert succeed(*command, "--resume").splitlines()[-1] == printed.splitlines()[-1]


def test_a_dry_run_of_a_resumed_comparison_says_what_is_answered(tmp_path):
    out, counting = tmp_path / "compare", f"{TEACHERS}:CountingTeacher"
    names = ("--strategies", "auto,decisions", "--test", "digits", "--out", out)
    given = (*names, "--resume", "--price-per-1000", 1000)
    started = CountingTeacher.asked
    out.mkdir()
    assert "answered" not in succeed(*options(counting, "--budget", 90, *given, "--dry-run"))
    assert not list(out.iterdir()) and CountingTeacher.asked == started
    for _ in range(5):
        fail(*options(f"{TEACHERS}:TiringTeacher", "--budget", 90, *given))
    paid = CountingTeacher.asked - started
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}

    printed = succeed(*options(counting, "--budget", 90, *given, "--dry-run"))

    planned = 359 + 2 * (90 + 60)
    assert f"answered   {paid} of these queries, which are not sent again; at most " in printed
    assert (
        f"at most {planned - paid} are left, price {planned - paid}.00 at 1,000.00 per" in printed
    )
    refused = fail(*options(counting, "--budget", 91, *given, "--dry-run"))
    assert "settings.budget: was 90, is 91 (--budget)" in refused
    assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    assert CountingTeacher.asked - started == paid
    continued = succeed(*options(counting, "--budget", 90, *given))
    assert f"answered   {paid} of these queries, which are not sent again; at most " in continued
    spent = CountingTeacher.asked - started
    finished = succeed(*options(counting, "--budget", 90, *names, "--resume", "--dry-run"))
    assert f"answered   {spent} queries; the run is finished" in finished
    assert "at 1,000.00 per 1,000" in finished, "the price of the comparison"
    assert "dry run    no query is left to send, and no network to train" in finished


def test_the_test_split_measures_accuracy_without_a_query(teacher, tmp_path):
    out = tmp_path / "compare"

    printed = succeed(*options(teacher, "--budget", 80, "--strategies", "decisions", "--out", out))

    content = json.loads((out / "compare.json").read_text())
    assert content["queries"] == 2 * 60 and content["test_queries"] == 0
    assert content["rows"][0]["accuracy"] is not None
    assert "decisions, accuracy on 359 test images: " in printed
    assert "accuracy %" in printed and "test agreement %" not in printed


def test_a_part_of_the_test_images_is_queried(teacher, tmp_path):
    given = options(teacher, "--budget", 80, "--strategies", "decisions,augmented")
    limited = (*given, "--test", "digits", "--test-limit", 40)

    assert "and 40 test images" in succeed(*limited, "--dry-run")
    printed = succeed(*limited, "--out", tmp_path / "c")

    assert "by agreement on 40 test images" in printed
    content = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert content["test_queries"] == 40
    report = (tmp_path / "c" / "decisions-0" / "report.md").read_text()
    assert "40 of 359 images, drawn at random, as --test-limit 40 --seed 0 does" in report
    without = succeed(*given, "--dry-run")
    assert "the agreement of each student, on 6 held-out images, to ±31 " in without
    assert "only 6 held-out images" in without
    assert "--test, whose images cost a query each" in without
    message = fail(*given, "--split", "test", "--test-limit", 4, "--dry-run")
    assert "--test-limit: needs --test" in message


def test_clipping_images_is_refused_by_the_name_of_the_option(teacher):
    message = fail(*options(teacher, "--budget", 80, "--clip", "--dry-run"))
    assert "--features, --label-column and --clip apply to tables" in message


def test_a_failing_teacher_is_resumed(tmp_path):
    out = tmp_path / "compare"
    rest = ("--budget", 80, "--strategies", "decisions", "--out", out)

    result = Result(*options(f"{TEACHERS}:TiringTeacher", *rest))

    assert result.code == 1
    assert "continue with --resume" in result.err
    before = CountingTeacher.asked
    succeed(*options(f"{TEACHERS}:CountingTeacher", *rest, "--resume"))
    kept = json.loads((out / "compare.json").read_text())["queries"] - (
        CountingTeacher.asked - before
    )
    assert kept > 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--strategies", "best"), "--strategies: expected some of auto,"),
        (("--strategies", "mbd"), "--strategies: none of them can be used. mbd: strategy"),
        (("--student", "lenet6"), "--student: expected one of"),
        (("--epochs", 3), "--epochs: needs --labels"),
    ],
)
def test_contradictions_are_refused(teacher, tmp_path, more, words):
    assert words in fail(*options(teacher, "--budget", 50, "--out", tmp_path / "c", *more))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("more", [("--dry-run",), ("--out", "c")])
def test_images_are_checked_before_the_plan_is_printed(tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    np.save("wide.npy", np.zeros((50, 9, 9), np.uint8))
    where = ("--teacher", f"{TEACHERS}:CountingTeacher", "--data", "wide.npy", "--budget", 100)

    result = Result("compare", *where, *QUICK, *more)

    assert "error: --data: expected shape (1, 8, 8), which the teacher takes" in result.err
    assert result.code == 1 and result.out == "" and not (tmp_path / "c").exists()


def test_a_folder_is_needed(teacher):
    assert "--out: expected a folder" in fail(*options(teacher, "--budget", 50))


def test_reasons_stand_below_a_narrow_table(tmp_path):
    given = ("--strategies", "decisions,mbd", "--test", "digits", "--price-per-1000", 12.345)

    printed = succeed(
        *options(f"{TEACHERS}:CountingTeacher", "--budget", 50, *given, "--out", tmp_path / "c")
    )

    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(table) == 4 and max(map(len, table)) <= 136
    assert table[-1].startswith("| mbd: not used |")
    reason = "Not used: mbd. strategy 'mbd' needs one decision for each of 60 images"
    assert reason in printed and reason in (tmp_path / "c" / "report.md").read_text()


@pytest.mark.parametrize(("strategies", "width"), [("auto,sd", 9), ("auto,db3kd-paper", 11)])
def test_all_lines_of_a_plan_begin_in_the_same_column(teacher, strategies, width):
    given = options(teacher, "--budget", 80, "--strategies", strategies, "--dry-run")
    lines = succeed(*given).splitlines()
    assert any(line.startswith("training") for line in lines)
    assert all(line[width : width + 2] == "  " and line[width + 2] != " " for line in lines)
