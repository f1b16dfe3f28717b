"""`db3kd distill`: the plan before anything is asked, a run, and what cannot be combined."""

import re
from pathlib import Path

import numpy as np
import pytest
from command_line import TEACHERS, CountingTeacher, Result, fail, succeed

import db3kd
from db3kd.pipelines import student_network
from db3kd.storage.manifest import MANIFEST, read_manifest, write_manifest

QUICK = ("--student", "linear", "--steps", 12, "--batch-size", 16, "--device", "cpu")
COUNTING, TIRING = f"{TEACHERS}:CountingTeacher", f"{TEACHERS}:TiringTeacher"


def asked(*options: object, teacher: object = COUNTING, budget: object = 600) -> tuple[object, ...]:
    """The arguments of a short run on digits."""
    given = ("--teacher", teacher, "--budget", budget) if budget else ("--teacher", teacher)
    return ("distill", *given, *QUICK, *options)


DIGITS = ("--data", "digits", "--limit", 100)


def test_a_dry_run_prints_the_plan_and_writes_and_asks_nothing(tmp_path):
    before = CountingTeacher.asked
    out = tmp_path / "run"

    printed = succeed(*asked(*DIGITS, "--out", out, "--dry-run", "--price-per-1000", 2))

    lines = printed.splitlines()
    assert lines[0].split() == ["strategy", "auto"]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["5", "held-out"],
        ["95", "decisions"],
        ["500", "augmented"],
    ]
    assert "queries    at most 600 of 600, price 1.20 at 2.00 per 1,000" in printed
    assert "training   about 0:0" in printed and "12 steps of the student; no query was" in printed
    assert "querying   time unknown" in printed
    networks = [line for line in lines if line.startswith("networks")]
    assert networks == ["networks   student linear; 2 linear proxies may teach it"]
    assert CountingTeacher.asked == before and not out.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["distill", "compare"])
def test_a_run_with_many_steps_says_how_long_they_take_before_it_starts(
    tmp_path, monkeypatch, command
):
    options = (command, *asked(*DIGITS, "--strategy", "decisions")[1:])
    if command == "compare":
        options = (*options[:-2], "--strategies", "decisions", "--seeds", 1)
    assert "training   " not in succeed(*options, "--out", tmp_path / "short")
    monkeypatch.setattr("db3kd.cli.plan_output._TIMED_FROM", 12)
    out = tmp_path / "long"
    printed = succeed(*options, "--out", out)
    rows = printed.splitlines()
    (row,) = (row for row in rows if row.startswith("training   about 0:0"))
    assert rows.index(row) < len(rows) - 1 and "no query was sent" not in printed
    assert "training   " not in succeed(*options, "--out", out, "--resume"), "nothing is left"


def test_a_dry_run_checks_the_images_as_a_run_does(tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((50, 9, 9), np.uint8))
    options = asked("--data", tmp_path / "wide.npy", "--out", tmp_path / "run", budget=100)

    message = fail(*options, "--dry-run")

    assert "error: --data: expected shape (1, 8, 8), which the teacher takes, got (1, 9, 9)" in (
        message
    )
    assert message == fail(*options)


@pytest.mark.parametrize("command", ["distill", "compare"])
def test_a_dry_run_checks_the_student_once(monkeypatch, command):
    checked, check = [], student_network._check_training
    monkeypatch.setattr(
        student_network, "_check_training", lambda *given: [checked.append(1), check(*given)]
    )
    succeed(command, *asked(*DIGITS, "--dry-run")[1:])
    assert len(checked) == 1


def test_a_dry_run_needs_no_folder_and_says_what_is_not_spent():
    printed = succeed(*asked(*DIGITS, "--dry-run", "--strategy", "decisions"))
    assert "queries    at most 100 of 600" in printed
    assert "unused     500 queries" in printed
    assert "this strategy has no use for more with these images" in printed
    printed = succeed(*asked(*DIGITS, "--dry-run", budget=105))
    assert "unused     5 queries: a budget of 110 or more also queries augmented" in printed
    printed = succeed(*asked(*DIGITS, "--dry-run", budget=10**9))
    assert "of 1,000,000,000" in printed and "unused" in printed


def test_a_plan_says_how_exactly_the_agreement_is_measured_and_how_to_do_better(tmp_path):
    printed = succeed(*asked(*DIGITS, "--dry-run"))
    assert "measured   the agreement, on 5 held-out images, to ±33 percentage points" in printed
    assert "--held-out N" in printed and "db3kd evaluate RUN --data … --agree-with" in printed
    assert "warning    The agreement is measured on only 5 held-out images" in printed
    chosen = succeed(*asked(*DIGITS, "--held-out", 60, "--out", tmp_path / "run"))
    assert " 60  held-out images " in chosen and "on 60 held-out images, to ±12 " in chosen
    assert "of 60 held-out images" in chosen and "measured on only" not in chosen
    without = succeed(*asked("--dry-run", "--held-out", 600, budget=900))
    assert "600 of them measure" in without and "on 600 held-out pseudo samples" in without
    assert "--held-out N" not in without, "an agreement to 4 points needs no advice"
    message = fail(*asked(*DIGITS, "--held-out", 100, "--dry-run"))
    assert "--held-out: expected fewer than the 100 images" in message


def test_the_summary_repeats_the_code_of_the_users_own_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = ("--student", f"{TEACHERS}:make_network")

    printed = succeed(*asked(*DIGITS, "--out", "run", *own, budget=100))

    lines = dict(line.split(maxsplit=1) for line in printed.splitlines()[-5:])
    names = {"db3kd": db3kd}
    exec(lines["load"], names)
    assert names["student"].classes == 10
    measure = lines["measure"].replace("DATA", "digits").replace("TEACHER", COUNTING)
    assert "agreement" in succeed(*measure.split()[1:])
    succeed(*lines["export"].split()[1:])
    assert list(tmp_path.glob("run/*.onnx"))
    assert lines["export"] in (tmp_path / "run" / "report.md").read_text()


def _without_answered(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if not line.startswith("answered ")]


def test_a_run_is_continued_and_then_repeated_without_a_query(tmp_path):
    out, first = tmp_path / "run", CountingTeacher.asked
    stopped = Result(*asked(*DIGITS, "--out", out, teacher=f"{TEACHERS}:TiringTeacher"))
    assert stopped.code == 1
    assert "the answers so far are kept" in stopped.err and "continue with --resume" in stopped.err
    message = fail(*asked(*DIGITS, "--out", out))
    assert "already holds a run; continue it with --resume" in message
    before = CountingTeacher.asked

    resumed = Result(*asked(*DIGITS, "--out", out, "--resume"))
    printed = resumed.out

    assert resumed.code == 0 and "no run" not in resumed.err
    spent = CountingTeacher.asked - before
    assert 0 < spent < 600 and "queries    600" in printed
    assert f"student    {out / 'student.safetensors'}" in printed
    assert f"report     {out / 'report.html'}" in printed
    assert "accuracy" in printed, "digits have a test split"
    assert read_manifest(out)["totals"]["queries"] == 600
    again = succeed(*asked(*DIGITS, "--out", out, "--resume"))
    assert CountingTeacher.asked - before == spent
    assert f"answered   {spent + before - first} queries; the run is finished" in again
    assert _without_answered(again) == _without_answered(printed)
    refused = Result(*asked(*DIGITS, "--out", out, "--resume", budget=500))
    assert (refused.code, refused.out) == (1, ""), "no plan that looks accepted"
    assert (
        "different run: settings.plan.budget: was 600, is 500 (--budget); a run cannot be "
        "continued with a smaller budget: pass the old one, or start another run in another "
        "folder, which pays for its answers anew"
    ) in refused.err
    message = fail(*asked(*DIGITS, "--out", out, "--resume", "--strategy", "bd"))
    assert 'run: settings.plan.strategy: was "auto", is "bd" (--strategy); pass what' in message


@pytest.mark.parametrize(
    ("options", "budget"), [(DIGITS, 600), ((*DIGITS, "--strategy", "bd"), 600), ((), 300)]
)
def test_a_dry_run_of_a_resumed_run_says_what_is_answered(tmp_path, options, budget):
    out = tmp_path / "run"

    def dry_run(*more: object, **others: object) -> tuple[object, ...]:
        given = {"teacher": COUNTING, "budget": budget} | others
        return asked(*options, "--out", out, "--resume", "--dry-run", *more, **given)

    def contents() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}

    out.mkdir()
    assert "answered" not in succeed(*dry_run()) and not list(out.iterdir())
    started = CountingTeacher.asked
    for _ in range(4):
        fail(*asked(*options, "--out", out, "--resume", teacher=TIRING, budget=budget))
    paid, before = CountingTeacher.asked - started, contents()

    printed = succeed(*dry_run("--price-per-1000", 1000))

    planned = int(printed.partition("at most ")[2].split()[0])
    assert f"answered   {paid} of these queries, which are not sent again; at most " in printed
    assert (
        f"at most {planned - paid} are left, price {planned - paid}.00 at 1,000.00 per" in printed
    )
    other = ("--image-shape", "1,8,8", "--classes", 10)
    refused = fail(*dry_run(*other, teacher=f"{TEACHERS}:striped"))
    assert "holds a different run: " in refused and "teacher: was " in refused
    refused = fail(*dry_run(budget=budget - 100))
    assert f"settings.plan.budget: was {budget}, is {budget - 100} (--budget)" in refused
    assert contents() == before and CountingTeacher.asked - started == paid
    continued = succeed(*asked(*options, "--out", out, "--resume", budget=budget))
    assert f"answered   {paid} of these queries, which are not sent again; at most " in continued
    spent = CountingTeacher.asked - started
    printed = succeed(*dry_run())
    assert f"answered   {spent} queries; the run is finished" in printed
    nothing = "dry run    no query is left to send, and no network to train"
    assert nothing in printed and "training " not in printed
    printed = succeed(*dry_run("--student", "mlp"))
    assert "querying   no query is left" in printed and "training   at most 0:0" in printed

    shards = sorted(out.glob("answers-*.parquet"))
    if not shards:  # without images
        return
    shards[-1].unlink()
    assert "the run is finished" not in succeed(*dry_run())
    succeed(*asked(*options, "--out", out, "--resume", budget=budget))
    assert CountingTeacher.asked - started > spent


def test_without_images_pseudo_samples_are_made(tmp_path):
    printed = succeed(*asked("--out", tmp_path / "run", teacher=COUNTING, budget=200))
    assert "200  pseudo samples" in printed and "queries    200" in printed
    assert "\naccuracy " not in printed
    page = (tmp_path / "run" / "report.md").read_text()
    assert "with 190 pseudo samples, proxies help from " in page
    assert "sgd, cosine schedule" in page and not list((tmp_path / "run").glob("networks/proxy*"))
    assert "None" not in page and "teacher fingerprint" in page


def test_students_of_labels_are_written_next_to_the_run(run, tmp_path):
    copy = tmp_path / "bd"
    copy.symlink_to(run)
    printed = succeed("distill", "--labels", copy, "--data", "digits", *QUICK, "--scale", 1)
    assert str(tmp_path / "bd-student.safetensors") in printed
    assert (tmp_path / "bd-student.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--budget", 100), "--budget"),
        (("--teacher", COUNTING), "--teacher"),
        (("--dry-run",), "--dry-run"),
        (("--resume",), "--resume"),
        (("--strategy", "bd"), "--strategy"),
        (("--price-per-1000", 1), "--price-per-1000"),
        (("--proxies", 1), "--proxies"),
        (("--patience", 3), "--patience"),
        (("--limit", 10), "--limit"),
        (("--test", "digits"), "--test"),
        (("--max-batch", 5), "--max-batch"),
    ],
)
def test_what_labels_leave_no_use_for_is_refused(run, tmp_path, options, words):
    out = tmp_path / "s.safetensors"
    message = fail("distill", "--labels", run, "--out", out, *QUICK, *options)
    assert f"error: {words}: cannot be combined with --labels" in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "run"), "--teacher: expected a teacher, or --labels"),
        (asked(*DIGITS, "--out", "run", budget=None)[1:], "--budget: expected the maximum number"),
        (asked(*DIGITS)[1:], "--out: expected a folder for the run"),
        (asked("--dry-run", "--resume")[1:], "--resume: needs --out"),
        (asked("--out", "run", "--limit", 10)[1:], "--limit: needs --data"),
        (asked("--out", "run", "--split", "test")[1:], "--split: needs --data"),
        (asked(*DIGITS, "--out", "run", "--scale", 1)[1:], "error: --scale: needs --labels;"),
        (asked(*DIGITS, "--out", "run", "--seeds", 2)[1:], "--seeds: needs --labels"),
        (asked(*DIGITS, "--out", "run", "--epochs", 2)[1:], "--epochs: needs --labels"),
        (asked(*DIGITS, "--out", "run", budget=19)[1:], "--budget: expected at least 20"),
        (
            asked(*DIGITS, "--out", "run", "--strategy", "bd", budget=50)[1:],
            "--budget: strategy 'bd' needs one decision for each of 100 images",
        ),
        (asked("--out", "run", "--strategy", "sd")[1:], "--data: strategy 'sd' needs images"),
        (asked(*DIGITS, "--out", "run", "--student", "lenet9")[1:], "--student: expected one of"),
        (
            asked(*DIGITS, "--dry-run", "--student", "lenet9")[1:],
            "--student: expected one of",
        ),
        (asked(*DIGITS, "--out", "run", "--tracker-dir", "x")[1:], "--tracker-dir: needs"),
    ],
)
def test_wrong_combinations_name_the_options(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    before = CountingTeacher.asked

    result = Result("distill", *arguments)

    assert result.code == 1 and words in result.err
    assert result.out == "", "all arguments are checked before the plan is printed"
    assert CountingTeacher.asked == before
    assert list(tmp_path.iterdir()) == []


def images_file(path: Path, labels: list[int] | None = None) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    named = {} if labels is None else {"labels": np.array(labels)}
    np.savez(path, images=pixels, **named)
    return path


def test_test_images_are_measured_without_a_query(tmp_path):
    test = images_file(tmp_path / "test.npz", [0, 1] * 10)
    before = CountingTeacher.asked

    printed = succeed(*asked(*DIGITS, "--out", tmp_path / "run", "--test", test, budget=120))

    assert "of the test images" in printed and CountingTeacher.asked - before == 120


def test_a_test_split_of_other_classes_is_not_measured(tmp_path, caplog):
    data = tmp_path / "data.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    pixels[::2] //= 4
    labels = np.arange(40) % 30  # the teacher has ten classes
    np.savez(data, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)

    printed = succeed(*asked("--data", data, "--out", tmp_path / "run", budget=100))

    assert "\naccuracy " not in printed and "queries    100" in printed
    assert "no accuracy" not in caplog.text
    message = fail(*asked("--data", data, "--out", tmp_path / "other", "--test", data))
    assert "error: --test: expected labels in [0, 10)" in message


@pytest.mark.parametrize(
    ("test", "labels", "warned"), [((9, 9), True, True), ((8, 8), False, False)]
)
def test_a_test_split_that_cannot_be_used_is_warned_of(tmp_path, caplog, test, labels, warned):
    data = tmp_path / "data.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    known = {"y_test": np.zeros(20, int)} if labels else {}
    np.savez(data, x_train=pixels, x_test=np.zeros((20, *test), np.uint8), **known)

    succeed(*asked("--data", data, "--test-limit", 5, "--dry-run", budget=100))

    problem = "no accuracy is measured, because the test split is unusable: test: expected shape"
    assert (problem in caplog.text) == ("no accuracy" in caplog.text) == warned


def test_test_images_without_labels_are_refused_before_anything_is_asked(tmp_path):
    test = images_file(tmp_path / "test.npz")
    before = CountingTeacher.asked

    message = fail(*asked(*DIGITS, "--out", tmp_path / "run", "--test", test))

    assert "error: --test: expected labelled images, got " in message
    assert "without labels; use a folder with a folder for each class" in message
    assert CountingTeacher.asked == before and not (tmp_path / "run").exists()


def test_the_summary_says_how_many_queries_may_have_been_paid_twice(tmp_path):
    out = tmp_path / "run"
    first = succeed(*asked(*DIGITS, "--strategy", "bd", "--out", out))
    for folder, lost in ((out, 3), (out / "labels", 4)):
        stop = {"at": "2026-01-01T00:00:00+00:00", "queries_in_flight": lost}
        write_manifest(folder / MANIFEST, read_manifest(folder) | {"resumed": [stop]})

    resumed = succeed(*asked(*DIGITS, "--strategy", "bd", "--out", out, "--resume"))

    assert "paid twice" not in first
    assert "paid twice at most 7 queries that were sent but returned no usable answer" in resumed
    *_, line = (line for line in resumed.splitlines() if line.startswith("queries "))
    assert line.endswith(", plus at most 7 that may have been paid twice")
    page, markdown = ((out / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "** queries in total, plus at most 7 that may have been paid twice\n" in markdown
    assert "queries in total, plus at most 7 that may have been paid twice" in page
    assert (
        "At most 7 queries may have been paid for twice, because an answer was lost"
        in (out / "report.md").read_text()
    )

    again = ("--strategy", "bd", "--out", out, "--resume", "--price-per-1000", 1000)
    priced = succeed(*asked(*DIGITS, *again))
    *_, line = (line for line in priced.splitlines() if line.startswith("queries "))
    queries = int(line.split()[1].strip(","))
    assert line.endswith(
        f", plus at most 7 that may have been paid twice, so the price is at most {queries + 7}.00"
    )
    expected = (
        f"per 1,000 queries; at most {queries + 7}.00 with those that may have been paid twice"
    )
    assert expected in (out / "report.md").read_text()


@pytest.mark.parametrize("command", ["distill", "compare"])
def test_rare_classes_without_images_are_refused(command):
    given = ("--teacher", COUNTING, "--budget", 600, "--rare-classes", "--dry-run")

    assert "--rare-classes: needs --data; pseudo samples" in fail(command, *given)


def test_the_progress_says_what_is_chosen_in_which_round(tmp_path):
    given = ("--data", "digits", "--limit", 200, "--out", tmp_path / "run")

    shown = Result(*asked(*given, budget=1_200)).err

    rounds = [line.partition(" done")[0] for line in shown.splitlines() if "choosing" in line]
    assert rounds == [f"choosing images to query, round {number} of 4" for number in (2, 3, 4)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "digit"), "; did you mean 'digits'?"),
        ((*DIGITS, "--student", "lenet5-hlf"), "; did you mean 'lenet5-half'?"),
        ((*DIGITS, "--split", "tst"), "; did you mean 'test'?"),
        ((*DIGITS, "--image-shape", "8,8"), "use 1,8,8 for grey images or 3,8,8 for colour images"),
        ((*DIGITS, "--student", "nets/net.py:make"), "--student: expected package.module:object"),
        ((*DIGITS, "--student", "nets/net.py:make"), "; use nets.net:make"),
    ],
)
def test_a_mistaken_value_is_answered_with_the_right_one(options, words):
    assert words in fail(*asked("--dry-run", *options))


def test_a_mistaken_choice_of_an_option_is_answered_with_the_nearest_one():
    result = Result(*asked(*DIGITS, "--dry-run", "--strategy", "augmnted"))

    assert result.code == 2
    assert "Did you mean 'augmented'?" in " ".join(result.err.replace("\u2502", " ").split())


def test_a_first_call_that_fails_costs_one_query_and_leaves_no_folder(tmp_path):
    out, shape = tmp_path / "run", ("--image-shape", "1,8,8", "--classes", 10)
    result = Result(*asked(*DIGITS, *shape, "--out", out, teacher=f"{TEACHERS}:failing"))
    assert result.code == 1 and not out.exists()
    assert "note: up to 1 of the queries that were sent may have been paid for" in result.err


def test_an_exit_of_the_teacher_is_answered_with_how_to_continue(tmp_path):
    out = tmp_path / "run"
    result = Result(*asked(*DIGITS, "--out", out, teacher=f"{TEACHERS}:ExitingTeacher"))
    assert result.code == 7 and "the answers so far are kept" in result.err
    refused = Result(*asked(*DIGITS, "--out", out, "--resume", budget=500))
    assert refused.code == 1 and "the answers so far are kept" not in refused.err


def test_a_failed_call_is_stated_when_it_stops_a_run_and_in_the_summary(tmp_path):
    out = tmp_path / "run"
    failing = Result(*asked(*DIGITS, "--out", out, teacher=TIRING))
    assert "the answers so far are kept; up to 4 queries of the last call may have" in failing.err
    again = Result(*asked(*DIGITS, "--out", out, "--resume", teacher=TIRING))
    assert "; this run pays at most 4 other queries twice; continue with --resume" in again.err
    resumed = succeed(*asked(*DIGITS, "--out", out, "--resume"))
    assert "paid twice at most " in resumed


def test_the_display_of_a_run_that_measures_distances_counts_its_held_out_images(tmp_path):
    result = Result(*asked(*DIGITS, "--out", tmp_path / "run", "--strategy", "bd"))
    assert "querying held-out images done: 5/5 images · 5 of 5 queries" in result.err
    assert "measuring distances (bd) done: 95/95 images · " in result.err


def test_a_dry_run_of_a_resumed_run_estimates_its_queries_from_those_so_far(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    for _ in range(3):
        fail(*asked(*DIGITS, "--out", out, "--resume", teacher=TIRING))
    printed = succeed(*asked(*DIGITS, "--out", out, "--resume", "--dry-run"))
    assert re.search(r"querying   about \d:\d\d:\d\d more, at [\d,.]+ queries per second", printed)
