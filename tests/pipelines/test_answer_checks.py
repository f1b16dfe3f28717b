"""A distillation that is resumed repeats known answers, if asked to, and notices another teacher.

The teachers have one fingerprint, as a service has whose model was replaced.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TEACHERS, CountingTeacher, fail, succeed
from distill_cases import QUICK, SHAPE, images, weights
from forked import forked_processes

import db3kd
from db3kd.labelling.check_results import is_inconsistent, queries_of_checks
from db3kd.pipelines import DistillResult
from db3kd.pipelines.asking.answer_run import ANSWERS
from db3kd.storage.manifest import queries_in_flight, read_manifest
from db3kd.storage.run_journals import count_answers
from db3kd.teachers import TeacherError

pytest.importorskip("pyarrow")

CLASSES, BATCH = 3, 8


class Served:
    """A service with one fingerprint, whose model may be replaced and whose answers are counted."""

    def __init__(self, model: int = 0) -> None:
        self.model, self.answers, self.limit = model, 0, 10**9
        self.asked: list[bytes] = []

    def teacher(self) -> db3kd.FunctionTeacher:
        return db3kd.FunctionTeacher(
            self._classes, SHAPE, CLASSES, max_batch=BATCH, fingerprint="served"
        )

    def _classes(self, array: np.ndarray) -> np.ndarray:
        if self.answers + len(array) > self.limit:
            raise OSError("the service is down")
        self.answers += len(array)
        self.asked += [image.tobytes() for image in array]
        generator = torch.Generator().manual_seed(5)
        first = torch.randn(array[0].size, CLASSES, generator=generator).numpy()
        other = torch.randn(array[0].size, CLASSES, generator=generator).numpy()
        used = first + 0.7 * self.model * other
        return (array.reshape(len(array), -1) @ (used - used.mean(0))).argmax(1)


def distill(served: Served, out: Path, checks: int = 0, **options: Any) -> DistillResult:
    options = {"strategy": "decisions", "budget": 120} | options
    return db3kd.distill(
        served.teacher(), images(), student="linear", settings=QUICK, out=out,
        consistency_checks=checks, **options,
    )  # fmt: skip


def stop(served: Served, out: Path, answers: int, **options: Any) -> int:
    """Runs until so many queries are answered, and returns the number that are in the folder."""
    served.limit = answers
    with pytest.raises(TeacherError, match="the service is down"):
        distill(served, out, **options)
    served.limit = 10**9
    return served.answers


CASES = (
    (5 * BATCH, {}),  # in the first shard: only its journal has answers
    (9 * BATCH, {}),
    (30 * BATCH, {"strategy": "augmented", "budget": 400}),
    (100 * BATCH, {"strategy": "mbd", "budget": 1500}),  # while distances are measured
)


@pytest.mark.parametrize(("answers", "options"), CASES)
def test_a_teacher_that_repeats_its_answers_continues(
    tmp_path: Path, answers: int, options: dict[str, Any]
) -> None:
    undisturbed, served = Served(), Served()
    whole = distill(undisturbed, tmp_path / "whole", **options)
    paid = stop(served, tmp_path / "run", answers, **options)

    result = distill(served, tmp_path / "run", 16, resume=True, **options)

    assert served.answers == undisturbed.answers + 16
    assert set(served.asked[paid : paid + 16]) <= set(served.asked[:paid])
    assert len(set(served.asked[paid : paid + 16])) == 16
    assert (result.check_queries, result.queries) == (16, whole.queries + 16)
    assert result.checks == "answers that changed when asked again: 0 of 16 at the resume"
    assert weights(result.student).equal(weights(whole.student))
    assert "consistency checks" in (tmp_path / "run" / "report.html").read_text()
    assert not list((tmp_path / "run").glob("_check*"))
    asked = served.answers
    assert distill(served, tmp_path / "run", 16, resume=True, **options).check_queries == 16
    assert served.answers == asked, "a finished run asks nothing"


@pytest.mark.parametrize(("answers", "options"), CASES)
def test_a_replaced_teacher_is_refused_before_it_is_asked_anything_new(
    tmp_path: Path, answers: int, options: dict[str, Any]
) -> None:
    served = Served()
    paid = stop(served, tmp_path, answers, **options)
    served.model = 1

    message = r"changed \d+ of 20 answers.*another folder.*accept_changed_teacher=True"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            distill(served, tmp_path, 20, resume=True, **options)
    assert served.answers == paid + 40
    assert not is_inconsistent(read_manifest(tmp_path)), "no answers are mixed"

    accepted = distill(served, tmp_path, 20, resume=True, accept_changed_teacher=True, **options)

    assert is_inconsistent(read_manifest(tmp_path))
    assert accepted.check_queries == queries_of_checks(read_manifest(tmp_path)) == 60
    assert accepted.queries == served.answers


def test_a_refused_run_continues_with_its_teacher(tmp_path: Path) -> None:
    served = Served()
    whole = distill(Served(), tmp_path / "whole")
    stop(served, tmp_path / "run", 9 * BATCH)
    served.model = 1
    with pytest.raises(ValueError, match="was replaced or is noisy"):
        distill(served, tmp_path / "run", 20, resume=True)
    served.model = 0

    result = distill(served, tmp_path / "run", 20, resume=True)

    assert weights(result.student).equal(weights(whole.student))
    assert result.queries == served.answers == whole.queries + 40


def test_no_more_answers_are_repeated_than_there_are(tmp_path: Path) -> None:
    served = Served()
    paid = stop(served, tmp_path, 3 * BATCH)
    result = distill(served, tmp_path, 1000, resume=True)
    assert result.check_queries == paid > 2 * BATCH
    new = distill(Served(), tmp_path / "new", 1000, resume=True)
    assert new.check_queries == 0


def test_answers_of_a_check_that_fails_are_counted(tmp_path: Path) -> None:
    served = Served()
    paid = stop(served, tmp_path, 9 * BATCH)
    served.limit = paid + 2 * BATCH
    with pytest.raises(TeacherError, match="the service is down"):
        distill(served, tmp_path, 3 * BATCH, resume=True)
    served.limit = 10**9
    assert count_answers(tmp_path, ANSWERS) == paid, "those of checks are no answers of the run"

    result = distill(served, tmp_path, resume=True)

    assert result.check_queries == 2 * BATCH
    assert result.queries == served.answers


def _check_and_die(out: Path, log: Path) -> None:
    served = Served()
    original = served._classes

    def classes(array: np.ndarray) -> np.ndarray:
        with log.open("a") as file:
            file.write(f"{len(array)}\n")
        if served.answers >= 2 * BATCH:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(array)

    served._classes = classes  # type: ignore[method-assign]
    distill(served, out, 5 * BATCH, resume=True)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_kill_during_a_check_loses_only_the_call_in_flight(tmp_path: Path) -> None:
    served = Served()
    stop(served, tmp_path / "run", 9 * BATCH)
    process = forked_processes().Process(
        target=_check_and_die, args=(tmp_path / "run", tmp_path / "log")
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    asked = sum(map(int, (tmp_path / "log").read_text().split()))

    result = distill(served, tmp_path / "run", 5 * BATCH, resume=True)

    in_flight = queries_in_flight(read_manifest(tmp_path / "run"))
    assert in_flight == result.paid_twice == 2 * BATCH, "of the failed call and of the killed one"
    assert result.queries == served.answers + asked - BATCH, "the failed call was not answered"
    assert result.check_queries == 7 * BATCH


def test_checks_need_a_run_and_its_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="consistency_checks: needs resume=True"):
        distill(Served(), tmp_path, 5)
    with pytest.raises(ValueError, match="consistency_checks: expected an integer of at least 0"):
        distill(Served(), tmp_path, -1, resume=True)
    with pytest.raises(ValueError, match="consistency_checks: needs images"):
        db3kd.distill(
            Served().teacher(), budget=100, out=tmp_path, resume=True, consistency_checks=5
        )


def test_the_command_line_shows_what_checks_cost(tmp_path, monkeypatch):
    teacher = ("distill", "--teacher", f"{TEACHERS}:CountingTeacher", "--student", "linear")
    spent = ("--budget", 60, "--strategy", "decisions", "--steps", 4, "--device", "cpu")
    where = ("--data", "digits", "--limit", 100, "--out", tmp_path / "run")
    checked = (*teacher, *spent, *where, "--consistency-checks", 10, "--price-per-1000", 2)
    assert "--consistency-checks: needs --resume" in fail(*checked)
    without = (*teacher, *spent, "--out", tmp_path / "none", "--consistency-checks", 10)
    assert "--consistency-checks: needs --data" in fail(*without, "--resume")

    monkeypatch.setattr(CountingTeacher, "max_batch", BATCH)
    asked, original = CountingTeacher.asked, CountingTeacher.decide

    def tired(self: CountingTeacher, images: torch.Tensor) -> torch.Tensor:
        if CountingTeacher.asked > asked + 20:
            raise ConnectionError("out of service")
        return original(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(CountingTeacher, "decide", tired)
        fail(*teacher, *spent, *where)
    paid = CountingTeacher.asked - asked
    plan = succeed(*checked, "--resume", "--dry-run")
    assert "checks     10 more queries to repeat known answers, price 0.02 at 2.00 per" in plan
    assert "; with them at most 70, price 0.14" in plan
    assert f"answered   {paid:,} of these queries" in plan
    assert CountingTeacher.asked == asked + paid

    with monkeypatch.context() as patched:
        patched.setattr(CountingTeacher, "decide", lambda self, images: 9 - original(self, images))
        assert "changed 10 of 10 answers" in fail(*checked, "--resume")
    summary = succeed(*checked, "--resume")

    assert CountingTeacher.asked - asked == 60 + 20
    assert "queries    80, price 0.16" in summary
    assert "checks     20 of these queries; answers that changed when asked again: 10 of 10" in (
        summary
    )
    finished = succeed(*checked, "--resume", "--dry-run")
    assert "checks" not in finished and "the run is finished" in finished
