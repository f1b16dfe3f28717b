"""Help, version, information on a teacher, and errors of the command line."""

import logging
import os
import subprocess
import sys

import pytest
import torch
from command_line import TEACHERS, CountingTeacher, Result, fail, succeed
from fresh_code import fresh_module

import db3kd.cli
from db3kd.teachers.descriptions.keys import description_tables

COMMANDS = (
    "info",
    "teacher",
    "surrogate",
    "label",
    "distill",
    "compare",
    "evaluate",
    "report",
    "synthesize",
    "demo",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_help_text_with_examples(command):
    text = " ".join(succeed(command, "--help").split())

    assert "For example:" in text
    assert len(text) > 200


def test_help_lists_the_commands():
    text = succeed("--help")

    assert all(command in text for command in COMMANDS)


def test_info_shows_build_devices_and_versions():
    text = succeed("info")

    assert all(word in text for word in ("build", "cpu", "torch", "python"))


def test_info_describes_a_teacher(teacher):
    text = succeed("info", "--teacher", teacher)

    assert "1 x 8 x 8" in text and "10" in text and "0 to 1" in text and "fingerprint" in text


def test_info_shows_the_fingerprint_of_a_module_that_was_not_called(monkeypatch):
    text = (
        "import db3kd\nfrom torch import nn\nclass Net(nn.Module):\n    calls = 0\n"
        "    def forward(self, x):\n        self.calls += 1\n        return x.flatten(1)\n"
        "teacher = db3kd.ModuleTeacher(Net(), (1, 2, 2), 4)\n"
    )
    known = fresh_module(text, "counted_net", monkeypatch).teacher.fingerprint()
    fresh_module(text, "counted_net", monkeypatch)
    assert known in succeed("info", "--teacher", "counted_net:teacher")


def test_info_describes_a_function_that_declares_nothing():
    text = succeed("info", "--teacher", f"{TEACHERS}:striped")

    assert "kind           function striped" in text
    assert "pass --image-shape and --classes" in text
    declared = ("--image-shape", "1,8,8", "--classes", 10)
    assert "1 x 8 x 8" in succeed("info", "--teacher", f"{TEACHERS}:striped", *declared)


def test_info_takes_from_the_data_of_a_run_what_a_function_does_not_declare():
    teacher = ("--teacher", f"{TEACHERS}:striped")
    message = fail("info", *teacher, "--time", 3)
    assert message.endswith(
        "pass --image-shape and --classes; or pass the data of your run as --data"
    )

    text = succeed("info", *teacher, "--data", "digits", "--time", 3)

    assert "image shape    1 x 8 x 8" in text and "classes        10" in text
    assert "3 queries were sent" in text and "missing" not in text


def test_info_makes_the_teacher_of_a_factory_once(monkeypatch):
    made = []

    def slow_factory():
        made.append(torch.nn.Linear(64, 10))
        return made[-1]

    monkeypatch.setitem(globals(), "slow_factory", slow_factory)

    text = succeed("info", "--teacher", f"{__name__}:slow_factory")

    assert "kind           torch module Linear with 650 weights" in text
    assert "pass --image-shape and --classes" in text
    assert len(made) == 1


def test_info_times_the_queries_that_it_is_told_to_ask():
    before = CountingTeacher.asked
    assert "query time" not in succeed("info", "--teacher", f"{TEACHERS}:CountingTeacher")
    assert CountingTeacher.asked == before

    text = succeed("info", "--teacher", f"{TEACHERS}:CountingTeacher", "--time", 100)

    assert CountingTeacher.asked == before + 100
    assert "ms per query in calls of 64; 100 queries were sent" in text
    assert fail("info", "--time", 2) == "error: --time: needs --teacher"


def test_info_lists_every_key_of_a_description():
    lines = succeed("info", "--teacher-keys").splitlines()

    for table in description_tables():
        for key in table.keys:
            name = f"[{key.name}]" if key.is_table else key.name
            assert any(line.startswith(f"{name}  (") for line in lines)
    assert 'layout  ("NCHW" or "NHWC" or "flat", default "NCHW")' in lines
    assert "variable  (text, required)" in lines


def test_a_folder_without_a_run_is_refused(tmp_path):
    message = fail("report", "--labels", tmp_path)
    assert "expected a run folder, got a folder without _manifest.json" in message


def test_debug_raises_the_error(tmp_path):
    result = Result("--debug", "report", "--labels", tmp_path)

    assert isinstance(result.exception, FileNotFoundError)


def test_without_typer_the_extra_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "db3kd.cli.app")

    with pytest.raises(SystemExit, match=r"pip install \"db3kd\[cli\]\""):
        db3kd.cli.main()


@pytest.mark.parametrize("words", [["--help"], ["evaluate", "--help"], ["info", "--teacher-keys"]])
def test_a_command_whose_output_is_not_read_to_its_end_ends_quietly(words):
    reader, writer = os.pipe()
    os.close(reader)

    result = subprocess.run(
        [sys.executable, "-m", "db3kd", *words], stdout=writer, stderr=subprocess.PIPE, check=False
    )

    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


_COUNTING = ("--teacher", f"{TEACHERS}:CountingTeacher", "--dry-run")
_DIGITS = (*_COUNTING, "--data", "digits", "--limit", 100)
_QUICK = ("--student", "linear", "--proxy", "linear", "--steps", 2)


_RESUMABLE = [
    ("distill", (*_DIGITS, "--budget", 600)),
    ("compare", (*_DIGITS, "--budget", 600)),
    ("label", (*_DIGITS, "--budget", 600)),
    ("surrogate", _DIGITS),
    ("synthesize", (*_COUNTING, "--samples", 10, "--budget", 600)),
]


@pytest.mark.parametrize(("command", "options"), _RESUMABLE)
def test_a_note_says_if_there_is_no_run_to_resume(tmp_path, command, options):
    out = tmp_path / ("new.safetensors" if command == "surrogate" else "new")
    folder = out.with_suffix(".decisions") if command == "surrogate" else out
    folder.mkdir()
    note = f"note: no run in {out} to resume; this is a new one\n"

    found = Result(command, *options, "--out", out, "--resume")
    assert (found.code, found.err) == (0, note)
    assert "note: no run" not in Result(command, *options, "--out", out).err
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("command", "options"), _RESUMABLE)
def test_a_folder_that_does_not_exist_is_not_resumed(tmp_path, command, options):
    out = tmp_path / ("missing.safetensors" if command == "surrogate" else "missing")
    folder = out.with_suffix(".decisions") if command == "surrogate" else out
    before = CountingTeacher.asked

    for mode in ((), ("--dry-run",)):
        given = [each for each in options if each != "--dry-run"]
        message = fail(command, *given, *mode, "--out", out, "--resume")
        assert f"{folder}: expected the folder of the run to resume, got no such folder." in message
        assert "leave out --resume, or create this folder first" in message

    assert CountingTeacher.asked == before and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "options"), _RESUMABLE)
def test_a_run_that_is_refused_shows_no_plan(tmp_path, command, options):
    out = tmp_path / ("run.safetensors" if command == "surrogate" else "run")
    quick = {
        "distill": _QUICK,
        "compare": (*_QUICK, "--seeds", 1, "--strategies", "decisions"),
        "surrogate": ("--steps", 2),
    }.get(command, ())
    given = [each for each in options if each != "--dry-run"]
    succeed(command, *given, *quick, "--out", out)

    refused = Result(command, *given, *quick, "--out", out, "--resume", "--seed", 7)

    assert (refused.code, refused.out) == (1, "")
    assert "seed: was 0, is 7 (--seed)" in refused.err


def test_logged_warnings_are_labelled_as_other_lines_are(monkeypatch, capsys):
    succeed("info")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a process of its own

    logging.getLogger("db3kd").warning("%s is rare", "class 3")

    assert capsys.readouterr().err == "warning: class 3 is rare\n"
