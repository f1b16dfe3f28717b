"""What a teacher may have been paid for without an answer, checked against a counting service."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distill_cases import CLASSES, QUICK, SAMPLES, SHAPE, images, teacher
from served_doubles import Answer, Asked, Loopback, Scripted

import db3kd
from db3kd.pipelines.student_warnings import paid_twice_note
from db3kd.storage.existing_runs import queries_paid_twice
from db3kd.storage.lost_queries import count_lost
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import (
    FunctionTeacher,
    ModelOverrides,
    RequestSettings,
    TeacherError,
    open_inference_teacher,
)
from db3kd.teachers.remote.rest import rest_teacher

pq = pytest.importorskip("pyarrow.parquet")

BUDGET = 100
MAX_BATCH = 16
BATCH, IN_FLIGHT = 4, 2


class Service:
    """A function that pays for one image after the other.

    Attributes:
        paid: The number of images that it has paid for.
        calls: The number of images of each call.
        fail: Called with `paid` after each payment; it may raise, or return the answer to give.
    """

    def __init__(self) -> None:
        self.paid, self.calls = 0, []
        self.fail: Callable[[int], Any] = lambda paid: None

    def classify(self, array: np.ndarray) -> list[Any]:
        self.calls.append(len(array))
        return [self._pay_for(image) for image in array]

    def classify_one_by_one(self, array: np.ndarray) -> Iterator[Any]:
        for image in array:
            yield self._pay_for(image)

    def _pay_for(self, image: np.ndarray) -> Any:
        self.paid += 1
        answer = self.fail(self.paid)
        if answer is not None:
            return answer
        return int(teacher().decide(torch.from_numpy(image)[None]))

    def teacher(self, function: Any = None) -> FunctionTeacher:
        return FunctionTeacher(
            function or self.classify, SHAPE, CLASSES, max_batch=MAX_BATCH, fingerprint="service"
        )


def failing_at(paid: int, error: BaseException) -> Callable[[int], Any]:
    def fail(now: int) -> None:
        if now == paid:
            raise error

    return fail


def distill(asked: Any, out: Path, **options: Any) -> Any:
    given = {"budget": BUDGET, "strategy": "decisions", "student": "linear", "settings": QUICK}
    return db3kd.distill(asked, images(), out=out, **(given | options))


def requests(**options: Any) -> RequestSettings:
    return RequestSettings(
        batch=BATCH, in_flight=IN_FLIGHT, timeout=5.0, initial_backoff=0.001, max_backoff=0.01,
        **options,
    )  # fmt: skip


def served(server: Scripted, **options: Any) -> Any:
    overrides = ModelOverrides(image_shape=SHAPE, classes=CLASSES)
    return open_inference_teacher(server.model, overrides, requests=requests(**options))


FAILURES = pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (failing_at(50, ConnectionError("gone")), TeacherError),
        (lambda paid: 99 if paid == 50 else None, TeacherError),
        (failing_at(50, KeyboardInterrupt()), KeyboardInterrupt),
    ],
    ids=["raises", "invalid answer", "interrupt"],
)
"""What may happen to a teacher at its 50th image."""


@FAILURES
def test_answers_that_a_failed_call_lost_are_counted(tmp_path, failure, expected):
    service, out = Service(), tmp_path / "run"
    service.fail = failure
    with pytest.raises(expected) as raised:
        distill(service.teacher(), out)
    assert any("without an answer; the run counts them" in note for note in raised.value.__notes__)
    service.fail = lambda paid: None

    result = distill(service.teacher(), out, resume=True)

    assert result.queries == BUDGET < service.paid
    assert service.paid - BUDGET <= result.paid_twice <= MAX_BATCH
    assert f"plus at most {result.paid_twice} that may have been paid twice" in repr(result)
    assert f"At most {result.paid_twice} queries" in (out / "report.md").read_text()


@FAILURES
def test_a_generator_loses_at_most_one_answer(tmp_path, failure, expected):
    service, out = Service(), tmp_path / "run"
    service.fail = failure
    with pytest.raises(expected):
        distill(service.teacher(service.classify_one_by_one), out)
    service.fail = lambda paid: None

    result = distill(service.teacher(service.classify_one_by_one), out, resume=True)

    assert (service.paid, result.queries, result.paid_twice) == (BUDGET + 1, BUDGET, 1)


@pytest.mark.parametrize("times", [0, 2], ids=["left out", "answered twice"])
def test_the_answers_of_a_generator_call_with_a_wrong_number_are_paid_again(tmp_path, times):
    service, out = Service(), tmp_path / "run"

    def wrong_at_40(array: np.ndarray) -> Iterator[Any]:
        for answer in service.classify_one_by_one(array):
            yield from [answer] * (times if service.paid == 40 else 1)

    with pytest.raises(TeacherError, match="none of this call is kept"):
        distill(service.teacher(wrong_at_40), out)
    stopped_at = service.paid

    result = distill(service.teacher(service.classify_one_by_one), out, resume=True)

    assert result.queries == BUDGET and service.paid - BUDGET <= result.paid_twice <= MAX_BATCH
    assert stopped_at - 40 < MAX_BATCH < service.paid - 40
    distill(service.teacher(service.classify_one_by_one), tmp_path / "whole")
    assert shards(out) == shards(tmp_path / "whole") != []


def shards(run: Path) -> list[Any]:
    """The rows of all shards of a run."""
    return [pq.read_table(file).to_pylist() for file in sorted(run.rglob("*.parquet"))]


def test_several_failures_add_up(tmp_path):
    service, out = Service(), tmp_path / "run"
    out.mkdir()
    for paid in (20, 50, 90):
        service.fail = failing_at(paid, OSError("down"))
        with pytest.raises(TeacherError):
            distill(service.teacher(), out, resume=True)
    service.fail = lambda paid: None

    result = distill(service.teacher(), out, resume=True)

    assert service.paid - BUDGET <= result.paid_twice <= 3 * MAX_BATCH
    assert queries_paid_twice(out) == result.paid_twice


def test_the_first_calls_of_a_stage_in_a_subfolder_are_counted(tmp_path):
    service, out = Service(), tmp_path / "run"
    plan = db3kd.plan_budget(SAMPLES, CLASSES, SAMPLES, "sd")
    options = {"strategy": "sd", "budget": SAMPLES, "resume": True}
    out.mkdir()
    for failures in (1, 2):
        service.fail = failing_at(plan.held_out + failures, OSError("down"))
        with pytest.raises(TeacherError) as raised:
            distill(service.teacher(), out, **options)
        assert not (out / "labels").exists()
        (note,) = (each for each in raised.value.__notes__ if "without an answer" in each)
        assert note.startswith("up to 1 of the queries") and note.endswith("the run counts them")
    service.fail = lambda paid: None

    result = distill(service.teacher(), out, **options)

    assert (service.paid, result.queries, result.paid_twice) == (SAMPLES + 2, SAMPLES, 2)


@pytest.mark.parametrize("function", ["classify", "classify_one_by_one"])
@pytest.mark.parametrize(
    "failure", [lambda paid: 0.5, lambda paid: CLASSES, failing_at(1, OSError("no key"))]
)
def test_a_teacher_whose_first_answer_is_invalid_costs_one_query(tmp_path, function, failure):
    service, out = Service(), tmp_path / "run"
    service.fail = failure
    with pytest.raises(TeacherError) as raised:
        distill(service.teacher(getattr(service, function)), out)
    assert service.paid == 1
    assert "up to 1 of the queries that were sent may have been paid" in raised.value.__notes__[0]
    assert not out.exists(), "the same command starts again"


def test_only_the_first_call_of_a_run_has_one_image(tmp_path):
    service, out = Service(), tmp_path / "run"
    service.fail = failing_at(40, OSError("down"))
    with pytest.raises(TeacherError):
        distill(service.teacher(), out)
    first = service.calls.copy()
    service.fail, service.calls = lambda paid: None, []
    distill(service.teacher(), out, resume=True)
    assert first[0] == 1 and 1 not in first[1:]
    assert service.calls[0] == MAX_BATCH


def every_20th_lost(lose: Callable[[Answer | None], Answer | None]) -> Callable[..., Any]:
    def script(number: int, asked: Asked, infer: Any) -> Answer | None:
        answer = infer(asked)  # which the service counts
        return lose(answer) if number % 20 == 5 else answer

    return script


@pytest.mark.parametrize(
    "lose",
    [lambda _: Answer(500), lambda _: None, lambda _: Answer(408)],
    ids=["status 500", "connection lost", "status 408"],
)
def test_repeated_requests_are_counted_exactly(tmp_path, lose):
    out = tmp_path / "run"
    with Scripted(teacher(), every_20th_lost(lose)) as server:
        asked = served(server)
        result = distill(asked, out)
        asked.close()
    assert result.queries == BUDGET
    assert result.paid_twice == server.paid - BUDGET > 0
    assert f"At most {result.paid_twice} queries" in (out / "report.md").read_text()
    assert not list(out.glob("*.lost")), "the manifest has taken them over"
    assert read_manifest(out)["lost_answers"][0]["queries"] == result.paid_twice


def test_a_rejected_request_is_not_counted(tmp_path):
    def script(number: int, asked: Asked, infer: Any) -> Answer | None:
        return Answer(503) if number % 3 == 1 else infer(asked)

    with Scripted(teacher(), script) as server:
        asked = served(server)
        result = distill(asked, tmp_path / "run")
        asked.close()
    assert (server.paid, result.paid_twice) == (BUDGET, 0)


def test_a_repeated_request_is_on_disk_before_it_is_sent_again(tmp_path):
    """A kill while it is sent again therefore loses no count."""
    out, lock = tmp_path / "run", threading.Lock()
    repeated, recorded = [], []

    def script(number: int, asked: Asked, infer: Any) -> Answer | None:
        with lock:
            before = server.paid, len(server.requests)
            answer = infer(asked)
            if len(server.requests) == before[1]:  # its id is known
                repeated.append(server.paid - before[0])
                recorded.append((sum(repeated), count_lost(out)))
        return answer if number % 7 else Answer(502)

    with Scripted(teacher(), script) as server:
        asked = served(server)
        distill(asked, out)
        asked.close()
    assert recorded and all(counted >= repeats for repeats, counted in recorded)


@pytest.mark.parametrize("ambiguous", [True, False])
def test_requests_that_fail_for_good_are_counted(tmp_path, ambiguous):
    """The bound includes the attempts of a request that no attempt answers."""
    out, broken = tmp_path / "run", True

    def script(number: int, asked: Asked, infer: Any) -> Answer | None:
        answer = infer(asked)
        return Answer(500) if broken and server.paid > 40 else answer

    with Scripted(teacher(), script) as server:
        asked = served(server, max_attempts=3, retry_ambiguous=ambiguous)
        with pytest.raises(TeacherError):
            distill(asked, out)
        asked.close()
        broken, asked = False, served(server)
        result = distill(asked, out, resume=True)
        asked.close()
    attempts = 3 if ambiguous else 1
    assert 0 < server.paid - BUDGET <= result.paid_twice <= BATCH * IN_FLIGHT * attempts


@pytest.mark.parametrize(("invalid", "status"), [(77, 200), (0, 201)])
def test_an_invalid_answer_of_a_service_is_counted(tmp_path, invalid, status):
    out, broken = tmp_path / "run", True

    class Rest(Loopback):
        paid = 0

        def answer(self, asked: Asked) -> Answer:
            array = torch.tensor(json.loads(asked.body)["instances"])
            self.paid += len(array)
            if broken and self.paid > 40:
                return Answer.of({"classes": [invalid] * len(array)}, status)
            return Answer.of({"classes": teacher().decide(array).tolist()})

    with Rest() as server:
        overrides = ModelOverrides(image_shape=SHAPE, classes=CLASSES)

        def asked() -> Any:
            return rest_teacher(
                server.url, {"instances": "$images"}, "classes", overrides, requests=requests()
            )

        with pytest.raises(TeacherError, match=r"class 77|status 201"):
            distill(asked(), out)
        broken = False
        result = distill(asked(), out, resume=True)
    assert 0 < server.paid - BUDGET <= result.paid_twice <= BATCH * IN_FLIGHT


@pytest.mark.parametrize("concurrent_chunks", [1, 2])
def test_labels_do_not_depend_on_the_first_call(tmp_path, limit_chunks, concurrent_chunks):
    limit_chunks(40)
    settings = db3kd.LabelSettings(measure="bd", queries_per_pair=5)
    service, whole = Service(), db3kd.label(teacher(), images(), settings)

    labels = db3kd.label(
        service.teacher(), images(), settings, out=tmp_path / "run",
        concurrent_chunks=concurrent_chunks,
    )  # fmt: skip

    assert labels.distances.equal(whole.distances) and labels.queries.equal(whole.queries)
    assert service.calls[0] == 1 and service.paid == int(labels.queries.sum())


def test_a_comparison_states_the_highest_price():
    assert paid_twice_note(7, 93, 1000.0).endswith(" With them, the price is at most 100.00.")
    assert "price" not in paid_twice_note(7)
