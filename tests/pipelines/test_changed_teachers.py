"""Runs that are continued with a teacher whose fingerprint changed, for example an edited function.

They keep their answers only if the caller accepts the teacher; its answers are the same here.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import TEACHERS, fail, succeed
from command_line import CountingTeacher as Counting
from distill_cases import images
from resumable_cases import COMMANDS, Function, distill

import db3kd
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import TeacherError
from db3kd.training.settings import TrainSettings

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("run", COMMANDS)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_an_accepted_teacher_continues_without_paying_again(
    tmp_path: Path, run: Callable[..., object], share: float
) -> None:
    undisturbed, function, out = Function(), Function(), tmp_path / "run"
    run(undisturbed.teacher("before"), tmp_path / "whole")
    function.limit = int(share * undisturbed.answers)
    with pytest.raises(TeacherError, match="the service is down"):
        run(function.teacher("before"), out)
    paid, function.limit = function.answers, 10**9
    assert paid > undisturbed.answers // 5

    with pytest.raises(ValueError, match=r'"before", is "after".*accept_changed_teacher=True'):
        run(function.teacher("after"), out, resume=True)
    assert function.answers == paid
    run(function.teacher("after"), out, resume=True, accept_changed_teacher=True)

    assert function.answers == undisturbed.answers
    manifests = [read_manifest(file.parent) for file in out.rglob("_manifest.json")]
    accepted = [entry for each in manifests for entry in each.get("changed_teachers", [])]
    assert accepted and {entry["teacher"] for entry in accepted} == {"after"}
    run(function.teacher("after"), out, resume=True)
    assert function.answers == undisturbed.answers
    with pytest.raises(ValueError, match='"after", is "before"'):
        run(function.teacher("before"), out, resume=True)


@pytest.mark.parametrize("run", COMMANDS)
def test_a_finished_run_records_an_accepted_teacher(
    tmp_path: Path, run: Callable[..., object]
) -> None:
    function, out = Function(), tmp_path / "run"
    run(function.teacher("before"), out)
    paid = function.answers
    run(function.teacher("after"), out, resume=True, accept_changed_teacher=True)

    run(function.teacher("after"), out, resume=True)
    for weights in out.glob("surrogate.safetensors"):
        weights.unlink()
        run(function.teacher("after"), out, resume=True)
    with pytest.raises(ValueError, match='"after", is "before"'):
        run(function.teacher("before"), out, resume=True)
    assert function.answers == paid


def test_the_report_names_each_teacher(tmp_path):
    distill(Function().teacher("before"), tmp_path)
    distill(Function().teacher("after"), tmp_path, resume=True, accept_changed_teacher=True)
    assert "before, then after" in (tmp_path / "report.html").read_text()


def test_only_the_teacher_is_accepted(tmp_path):
    function, out = Function(), tmp_path / "run"
    distill(function.teacher("before"), out)
    with pytest.raises(ValueError, match="seed"):
        db3kd.distill(
            function.teacher("after"), images(), budget=120, strategy="decisions",
            student="linear", out=out, resume=True, accept_changed_teacher=True,
            settings=db3kd.DistillSettings(training=TrainSettings(seed=5)),
        )  # fmt: skip
    assert "changed_teachers" not in read_manifest(out)


@pytest.mark.parametrize("run", COMMANDS)
def test_a_teacher_is_accepted_only_when_a_run_is_resumed(tmp_path, run):
    with pytest.raises(ValueError, match="accept_changed_teacher: needs resume=True"):
        run(Function().teacher("any"), tmp_path / "run", accept_changed_teacher=True)


@pytest.mark.parametrize("command", ["distill", "compare", "surrogate", "synthesize", "label"])
def test_the_command_line_names_its_option(tmp_path, monkeypatch, command):
    out = tmp_path / ("run.safetensors" if command == "surrogate" else "run")
    data = ("--data", "digits", "--limit", 60)
    quick = ("--student", "linear", "--steps", 4, "--device", "cpu")
    given = {
        "distill": (*data, *quick, "--budget", 60),
        "compare": (*data, *quick, "--budget", 60, "--strategies", "decisions", "--seeds", 1),
        "surrogate": (*data, "--model", "linear", "--steps", 4, "--networks", 1),
        "synthesize": ("--samples", 30, "--preset", "plain"),
        "label": (*data, "--measure", "bd", "--budget", 600),
    }[command]
    options = (command, "--teacher", f"{TEACHERS}:CountingTeacher", *given, "--out", out)
    succeed(*options)
    monkeypatch.setattr(Counting, "fingerprint", lambda teacher: "edited", raising=False)
    asked = Counting.asked

    message = fail(*options, "--resume")
    assert "continue with --accept-changed-teacher" in message
    assert "--accept-changed-teacher: needs --resume" in fail(
        *options[:-1], tmp_path / "other.safetensors", "--accept-changed-teacher"
    )
    if command in ("distill", "compare"):
        planned = succeed(*options, "--resume", "--accept-changed-teacher", "--dry-run")
        assert "answered" in planned
        assert "--accept-changed-teacher" in fail(*options, "--resume")
    succeed(*options, "--resume", "--accept-changed-teacher")
    assert Counting.asked == asked
