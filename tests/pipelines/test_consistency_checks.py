"""`distill` and `compare` with `resume` repeat known answers, and notice another teacher.

The teachers have one fingerprint, as a service has whose model was replaced.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TEACHERS, CountingTeacher, fail, succeed
from distill_cases import QUICK, images, weights
from forked import forked_processes
from replaceable_service import BATCH, Service

import db3kd
from db3kd import TeacherChangedError
from db3kd.pipelines import Comparison, DistillResult
from db3kd.querying.consistency import queries_of_checks
from db3kd.storage.manifest import queries_in_flight, read_manifest
from db3kd.teachers import TeacherError

pytest.importorskip("pyarrow")


def distill(service: Service, out: Path, checks: int = 0, **options: Any) -> DistillResult:
    options = {"strategy": "decisions", "budget": 120} | options
    return db3kd.distill(
        service.teacher(), images(), student="linear", settings=QUICK, out=out,
        consistency_checks=checks, **options,
    )  # fmt: skip


def stop(service: Service, out: Path, answers: int, **options: Any) -> int:
    """Runs until so many queries are answered, and returns the number that are in the folder."""
    return service.stop_at(answers, lambda: distill(service, out, **options))


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
    undisturbed, service = Service(), Service()
    whole = distill(undisturbed, tmp_path / "whole", **options)
    paid = stop(service, tmp_path / "run", answers, **options)

    result = distill(service, tmp_path / "run", 16, resume=True, **options)

    assert service.answers == undisturbed.answers + 16
    assert set(service.asked[paid : paid + 16]) <= set(service.asked[:paid])
    assert len(set(service.asked[paid : paid + 16])) == 16
    assert (result.check_queries, result.queries) == (16, whole.queries + 16)
    totals = read_manifest(tmp_path / "run")["totals"]
    assert (totals["check_queries"], totals["queries"]) == (16, whole.queries)
    assert result.checks == "answers that changed: 0 of 16"
    assert weights(result.student).equal(weights(whole.student))
    assert "consistency checks" in (tmp_path / "run" / "report.html").read_text()
    assert not list((tmp_path / "run").glob("_check*"))
    asked = service.answers
    assert distill(service, tmp_path / "run", 16, resume=True, **options).check_queries == 16
    assert service.answers == asked, "a finished run asks nothing"


@pytest.mark.parametrize(("answers", "options"), CASES)
def test_a_replaced_teacher_is_refused_before_it_is_asked_anything_new(
    tmp_path: Path, answers: int, options: dict[str, Any]
) -> None:
    service = Service()
    paid = stop(service, tmp_path, answers, **options)
    service.model = 1

    message = r"changed \d+ of 20 answers.*another folder.*accept_changed_teacher=True"
    for _ in range(2):
        with pytest.raises(TeacherChangedError, match=message):
            distill(service, tmp_path, 20, resume=True, **options)
    assert service.answers == paid + 40
    accepted = distill(service, tmp_path, 20, resume=True, accept_changed_teacher=True, **options)

    assert accepted.check_queries == queries_of_checks(read_manifest(tmp_path)) == 60
    assert accepted.queries == service.answers


def test_a_refused_run_continues_with_its_teacher(tmp_path: Path) -> None:
    service = Service()
    whole = distill(Service(), tmp_path / "whole")
    stop(service, tmp_path / "run", 9 * BATCH)
    service.model = 1
    with pytest.raises(TeacherChangedError, match="was replaced or is noisy"):
        distill(service, tmp_path / "run", 20, resume=True)
    service.model = 0

    result = distill(service, tmp_path / "run", 20, resume=True)

    assert weights(result.student).equal(weights(whole.student))
    assert result.queries == service.answers == whole.queries + 40


def test_no_more_answers_are_repeated_than_there_are(tmp_path: Path) -> None:
    service = Service()
    paid = stop(service, tmp_path, 3 * BATCH)
    result = distill(service, tmp_path, 1000, resume=True)
    assert result.check_queries == paid > 2 * BATCH
    (tmp_path / "new").mkdir()
    new = distill(Service(), tmp_path / "new", 1000, resume=True)
    assert new.check_queries == 0


def test_answers_of_a_check_that_fails_are_counted(tmp_path: Path) -> None:
    service = Service()
    paid = stop(service, tmp_path, 9 * BATCH)
    service.limit = paid + 2 * BATCH
    with pytest.raises(TeacherError, match="the service is down"):
        distill(service, tmp_path, 3 * BATCH, resume=True)
    service.limit = 10**9

    result = distill(service, tmp_path, resume=True)

    assert result.check_queries == 2 * BATCH
    assert result.queries == service.answers


def _check_and_die(out: Path, log: Path) -> None:
    service = Service()
    original = service.classes

    def classes(array: np.ndarray) -> np.ndarray:
        with log.open("a") as file:
            file.write(f"{len(array)}\n")
        if service.answers >= 2 * BATCH:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(array)

    service.classes = classes  # type: ignore[method-assign]
    distill(service, out, 5 * BATCH, resume=True)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_kill_during_a_check_loses_only_the_call_in_flight(tmp_path: Path) -> None:
    service = Service()
    stop(service, tmp_path / "run", 9 * BATCH)
    process = forked_processes().Process(
        target=_check_and_die, args=(tmp_path / "run", tmp_path / "log")
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    asked = sum(map(int, (tmp_path / "log").read_text().split()))

    result = distill(service, tmp_path / "run", 5 * BATCH, resume=True)

    in_flight = queries_in_flight(read_manifest(tmp_path / "run"))
    # The service refused the call at which the first process stopped, so it charged nothing for it.
    assert in_flight == result.paid_twice == 2 * BATCH, "the refused call, and the killed one"
    assert result.queries == service.answers + asked - BATCH
    assert result.check_queries == 7 * BATCH


def test_checks_need_a_run_and_its_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="consistency_checks: needs resume=True"):
        distill(Service(), tmp_path, 5)
    with pytest.raises(ValueError, match="consistency_checks: expected an integer of at least 0"):
        distill(Service(), tmp_path, -1, resume=True)
    with pytest.raises(ValueError, match="consistency_checks: needs images"):
        db3kd.distill(
            Service().teacher(), budget=100, out=tmp_path, resume=True, consistency_checks=5
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
    assert "checks     20 of these queries; answers that changed: 10 of 10" in (summary)
    finished = succeed(*checked, "--resume", "--dry-run")
    assert "checks     none, because no new query is left" in finished
    assert "the run is finished" in finished
    succeed_without = succeed(*checked[: checked.index("--consistency-checks")], "--resume")
    assert "checks     none" not in succeed_without


def compare(
    service: Service, out: Path, checks: int = 0, seeds: int = 1, **options: Any
) -> Comparison:
    return db3kd.compare(
        service.teacher(), images(), budget=60, strategies=["decisions", "augmented"], seeds=seeds,
        student="linear", settings=QUICK, out=out, consistency_checks=checks,
        **{"test": images(40)} | options,
    )  # fmt: skip


COMPARED = (
    3 * BATCH,  # while the teacher is asked about test images: only a journal has answers
    8 * BATCH,  # in the run of the first student
    16 * BATCH,  # in that of the second one
)


def stop_comparison(service: Service, out: Path, answers: int) -> int:
    service.limit = answers
    with pytest.raises(TeacherError, match="the service is down"):
        compare(service, out)
    service.limit = 10**9
    return service.answers


@pytest.mark.parametrize("answers", COMPARED)
def test_a_comparison_is_checked_once_before_it_continues(tmp_path: Path, answers: int) -> None:
    undisturbed, service = Service(), Service()
    whole = compare(undisturbed, tmp_path / "whole")
    paid = stop_comparison(service, tmp_path / "run", answers)

    result = compare(service, tmp_path / "run", 6, resume=True)

    assert service.answers == result.queries == undisturbed.answers + 6 == whole.queries + 6
    assert set(service.asked[paid : paid + 6]) <= set(service.asked[:paid])
    assert result.check_queries == 6 and result.rows[0].queries == whole.rows[0].queries
    note = "Consistency checks: 6 of these queries; answers that changed: 0 of 6."
    assert note in result.notes and note not in whole.notes
    content = json.loads((tmp_path / "run" / "compare.json").read_text())
    assert (content["check_queries"], content["queries"]) == (6, result.queries)
    assert compare(service, tmp_path / "run", 6, resume=True).queries == service.answers
    assert service.answers == undisturbed.answers + 6, "a finished comparison asks nothing"


@pytest.mark.parametrize("answers", [*COMPARED, None])
def test_a_comparison_is_not_continued_with_a_replaced_teacher(
    tmp_path: Path, answers: int | None
) -> None:
    service = Service()
    if answers is None:  # a finished one, to which students are added
        compare(service, tmp_path)
    else:
        stop_comparison(service, tmp_path, answers)
    paid, service.model = service.answers, 1

    for _ in range(2):
        with pytest.raises(TeacherChangedError, match=r"changed \d of 6 answers"):
            compare(service, tmp_path, 6, seeds=2, resume=True)
    assert service.answers == paid + 12

    accepted = compare(service, tmp_path, 6, seeds=2, resume=True, accept_changed_teacher=True)
    assert accepted.check_queries == 18 and accepted.queries == service.answers


def test_a_comparison_without_test_images_repeats_those_of_its_students(tmp_path: Path) -> None:
    service = Service()
    compare(service, tmp_path, test=None)
    paid, service.model = service.answers, 1

    with pytest.raises(TeacherChangedError):
        compare(service, tmp_path, 20, seeds=2, resume=True, test=None)

    assert service.answers == paid + 20
    with pytest.raises(ValueError, match=r"^consistency_checks: needs resume=True"):
        compare(service, tmp_path / "new", 5)
    with pytest.raises(ValueError, match=r"^consistency_checks: needs images"):
        db3kd.compare(
            Service().teacher(), budget=100, out=tmp_path, resume=True, consistency_checks=5
        )


def test_the_plan_of_a_comparison_shows_what_checks_cost(tmp_path: Path) -> None:
    teacher = ("compare", "--teacher", f"{TEACHERS}:CountingTeacher", "--student", "linear")
    spent = ("--budget", 60, "--strategies", "decisions", "--steps", 4, "--device", "cpu")
    where = ("--data", "digits", "--limit", 100, "--out", tmp_path / "run", "--seeds", 1)
    checked = ("--consistency-checks", 10, "--price-per-1000", 2)
    assert "--consistency-checks: needs --resume" in fail(*teacher, *spent, *where, *checked)
    resumed = (*checked, "--resume")
    without = (*teacher, *spent, "--out", tmp_path / "none")
    assert "--consistency-checks: needs --data" in fail(*without, *resumed)
    succeed(*teacher, *spent, *where)
    asked = CountingTeacher.asked

    more = (*teacher, *spent, *where[:-1], 2)
    plan = succeed(*more, *resumed, "--dry-run")
    summary = succeed(*more, *resumed)

    line = "checks     10 more queries to repeat known answers, price 0.02 at 2.00 per 1,000; with"
    assert f"{line} them at most 130, price 0.26" in plan and line in summary
    assert "used 130 queries (price 0.26)" in summary
    assert "Consistency checks: 10 of these queries; answers that changed" in summary
    assert CountingTeacher.asked - asked == 60 + 10
    finished = succeed(*more, *resumed, "--dry-run")
    assert "checks     none, because no new query is left" in finished


@pytest.mark.parametrize("function", [distill, compare])
def test_a_finished_run_says_that_it_repeats_nothing(tmp_path, caplog, function):
    service = Service()
    function(service, tmp_path / "run")
    paid = service.answers

    function(service, tmp_path / "run", resume=True)
    assert "consistency_checks" not in caplog.text
    function(service, tmp_path / "run", 20, resume=True)

    assert "consistency_checks: none, because no new query is left" in caplog.text
    assert service.answers == paid
