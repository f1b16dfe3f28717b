"""Values and combinations of options that a command refuses before it asks or writes anything."""

import errno
from pathlib import Path

import pytest
from command_line import TEACHERS, CountingTeacher, fail
from typer.main import get_command

from db3kd.cli.app import app
from db3kd.labelling.settings import LabelSettings
from db3kd.synthesis.settings import SynthesisSettings

COUNTING = ("--teacher", f"{TEACHERS}:CountingTeacher")
DIGITS = (*COUNTING, "--data", "digits")
DISTILL = ("distill", *DIGITS, "--budget", 100, "--out", "run")
COMPARE = ("compare", *DIGITS, "--budget", 100, "--out", "run")
LABEL = ("label", *DIGITS, "--out", "run")
SYNTHESIZE = ("synthesize", *COUNTING, "--out", "run")
SURROGATE = ("surrogate", *DIGITS, "--out", "run.safetensors")
EVALUATE = ("evaluate", *DIGITS)
TEACHER = ("teacher", "--data", "digits", "--out", "teacher.safetensors")


def refused(tmp_path, monkeypatch, arguments) -> str:
    """Returns the message of a command that must neither ask nor write."""
    monkeypatch.chdir(tmp_path)
    before = CountingTeacher.asked
    message = fail(*arguments)
    assert CountingTeacher.asked == before and list(tmp_path.iterdir()) == []
    return message


@pytest.mark.parametrize("seed", [-1, 2**63, 99999999999999999999])
@pytest.mark.parametrize(
    "command",
    [
        DISTILL,
        (*COMPARE, "--test", "digits"),
        LABEL,
        SYNTHESIZE,
        SURROGATE,
        EVALUATE,
        TEACHER,
        ("demo", "--out", "demo"),
    ],
    ids=lambda command: command[0],
)
def test_a_seed_beyond_those_of_generators_names_its_option(tmp_path, monkeypatch, command, seed):
    message = refused(tmp_path, monkeypatch, (*command, "--seed", seed))
    assert f"error: --seed: expected an integer of at least 0 and below 2^61, got {seed}" in message


@pytest.mark.parametrize("price", ["inf", "nan", "-1"])
@pytest.mark.parametrize(
    "command", [DISTILL, COMPARE, LABEL, EVALUATE], ids=lambda command: command[0]
)
def test_a_price_is_a_finite_number(tmp_path, monkeypatch, command, price):
    options = ("--price-per-1000", price, "--dry-run")
    message = refused(tmp_path, monkeypatch, (*command, *options))
    assert "error: --price-per-1000: expected a finite number of at least 0, got" in message


def without(command: tuple[object, ...], *options: str) -> tuple[object, ...]:
    """Returns a command without some options and their values."""
    left = list(command)
    for option in options:
        place = left.index(option)
        del left[place : place + 2]
    return tuple(left)


NO_IMAGES = without(DISTILL, "--data")
COMPARE_NO_IMAGES = without(COMPARE, "--data")


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (NO_IMAGES, ("--limit", 10), "--limit: needs --data"),
        (NO_IMAGES, ("--size", 8), "--size: needs --data, or --test with images"),
        (NO_IMAGES, ("--channels", 1), "--channels: needs --data, or --test with images"),
        (NO_IMAGES, ("--features", "f.json"), "--features: needs --data, or --test"),
        (NO_IMAGES, ("--label-column", "y"), "--label-column: needs --data, or --test"),
        (COMPARE_NO_IMAGES, ("--limit", 10), "--limit: needs --data"),
        (COMPARE_NO_IMAGES, ("--split", "test"), "--split: needs --data"),
        (COMPARE_NO_IMAGES, ("--size", 8), "--size: needs --data, or --test with images"),
        (without(COMPARE, "--out"), ("--resume", "--dry-run"), "--resume: needs --out"),
        (COMPARE, ("--tracker-dir", "x"), "--tracker-dir: needs --tracker tensorboard"),
        (
            (*COMPARE, "--test", "digits"),
            ("--tracker-dir", __file__, "--tracker", "tensorboard"),
            f"{__file__}/student: expected a path in a folder, but",
        ),
        (DISTILL, ("--proxies", 0, "--proxy", "mlp"), "--proxy: needs --proxies of at least 1"),
        (
            LABEL,
            ("--measure", "sd", "--queries-per-pair", 5),
            "--queries-per-pair: needs",
        ),
        (LABEL, ("--measure", "sd", "--starting-points", 5), "--starting-points: needs --order"),
        (LABEL, ("--measure", "sd", "--mixup-rounds", 1), "--mixup-rounds: needs --measure bd"),
        (LABEL, ("--mixup-rounds", 1), "--mixup-rounds: needs --measure bd"),
        (LABEL, ("--accept-changed-teacher",), "--accept-changed-teacher: needs --resume"),
        (SYNTHESIZE, ("--snapshots", "0,1"), "--snapshots: needs --moves of at least 1"),
        (SYNTHESIZE, ("--queries-per-move", 5), "--queries-per-move: needs --moves"),
        (SYNTHESIZE, ("--queries-per-sample", 5), "--queries-per-sample: needs --moves"),
        (
            SYNTHESIZE,
            ("--preset", "plain", "--acquisition-model", "mlp"),
            "--acquisition-model: needs --preset guided",
        ),
        (("info",), ("--classes", 10), "--classes: needs --teacher"),
        (("info", "--teacher-keys"), ("--time", 5), "--time: needs --teacher"),
        (("info", "--teacher-keys"), COUNTING, "--teacher-keys: cannot be combined with --teacher"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path, monkeypatch, command, options, message):
    assert f"error: {message}" in refused(tmp_path, monkeypatch, (*command, *options))


@pytest.mark.parametrize("option", [("--split", "train"), ("--size", 8), ("--channels", 1)])
def test_export_without_images_refuses_how_to_read_them(teacher, tmp_path, option):
    message = fail("export", teacher, "--out", tmp_path / "teacher.pt", *option)
    assert f"error: {option[0]}: needs --data" in message and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        *map(lambda each: without(each, "--out"), (DISTILL, COMPARE, LABEL, SYNTHESIZE)),
        without(SURROGATE, "--out"),
        without(TEACHER, "--out"),
        ("demo",),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("below", ["run.safetensors", "deeper/run.safetensors"])
def test_an_output_below_a_file_is_refused_before_any_work(tmp_path, monkeypatch, command, below):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    before = CountingTeacher.asked

    message = fail(*command, "--out", f"notes.txt/{below}")

    assert "error: notes.txt/" in message
    assert "expected a path in a folder, but" in message and "pass another --out" in message
    assert CountingTeacher.asked == before and [each.name for each in tmp_path.iterdir()] == [
        "notes.txt"
    ]


@pytest.mark.parametrize(
    "command",
    [DISTILL, COMPARE, LABEL, SYNTHESIZE, SURROGATE, TEACHER],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("out", ["/proc/runs.safetensors", "/proc/deeper/run.safetensors"])
def test_an_output_that_cannot_be_created_is_refused_before_any_work(command, out):
    for options in ((), ("--dry-run",))[: 1 if command == TEACHER else 2]:
        before = CountingTeacher.asked
        message = fail(*without(command, "--out"), "--out", out, *options)
        assert f"error: --out: cannot create {Path(out).with_suffix('')}" in message
        assert message.endswith("; choose a writable folder") and "plan" not in message
        assert CountingTeacher.asked == before


def test_an_empty_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    def refuse(**_: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("db3kd.storage.filesystem.tempfile.mkdtemp", refuse)
    message = fail(*without(DISTILL, "--out"), "--out", tmp_path)
    words = f"error: --out: cannot create files in {tmp_path} (Read-only file system);"
    assert words in message


@pytest.mark.parametrize("command", [DISTILL, COMPARE, LABEL, SYNTHESIZE])
def test_no_message_advises_to_remove_a_folder_with_files(command, tmp_path):
    photo = tmp_path / "photo.png"
    photo.touch()
    message = fail(*without(command, "--out"), "--out", tmp_path)
    assert f"error: {tmp_path}: " in message and "remove" not in message and photo.exists()


def test_students_reports_and_logs_below_a_file_are_refused_before_any_work(
    run, teacher, tmp_path, monkeypatch
):
    def trained(*_: object, **__: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("db3kd.training.student.train_student", trained)
    monkeypatch.setattr("db3kd.export.exporting.encode", trained)
    file = tmp_path / "notes.txt"
    file.write_text("notes")
    labels = ("distill", "--labels", run, "--data", "digits", "--scale", 1, "--device", "cpu")
    refusal = "expected a path in a folder, but"
    assert refusal in fail(*labels, "--out", file / "student.safetensors")
    assert refusal in fail("export", teacher, "--out", file / "student.pt")
    assert refusal in fail("report", "--labels", run, "--out", file / "report")
    logs = ("--tracker", "tensorboard", "--tracker-dir", file)
    message = fail(*labels, "--out", tmp_path / "student.safetensors", *logs)
    assert refusal in message and "pass another --tracker-dir" in message
    assert list(tmp_path.iterdir()) == [file]


def defaults_of(command: str) -> dict[str, object]:
    """Returns what the help of a command shows as the default of each option."""
    parameters = get_command(app).commands[command].params
    return {each.name: each.show_default for each in parameters}


def test_the_help_shows_the_defaults_of_the_paper():
    paper, shown = SynthesisSettings.paper(), defaults_of("synthesize")
    for name, value in (
        ("effort", f"{paper.effort:,.0f}"),
        ("samples", f"{paper.samples:,}"),
        ("starts", paper.starts),
        ("moves", f"{paper.moves.count}"),
        ("queries_per_move", f"{paper.moves.queries_per_move:,}"),
        ("queries_per_sample", f"{paper.moves.queries_per_sample:,}"),
    ):
        assert str(shown[name]).endswith(f"paper: {value}"), name
    labels, shown = LabelSettings.paper(), defaults_of("label")
    assert str(shown["queries_per_pair"]).endswith(f"paper: {labels.queries_per_pair:,}")
    assert str(shown["order"]).endswith(f"paper: {labels.order}")
    assert f"paper: {labels.starting_points}, or" in str(shown["starting_points"])
