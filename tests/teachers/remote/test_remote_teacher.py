"""Teachers behind a network: order, limits, and failures on the way."""

import asyncio
import gc
import threading
import time
from email.utils import formatdate

import pytest
import torch
from served_doubles import Answer, FaultyServer, ModelServer, Scripted

from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import Query
from db3kd.teachers import (
    ModelOverrides,
    RequestSettings,
    TeacherError,
    decide_checked,
    open_inference_teacher,
)
from db3kd.teachers.remote import retry
from db3kd.teachers.remote.event_loop import EventLoopThread
from db3kd.teachers.remote.retry import RateLimit

SHAPE = (1, 8, 8)
SAID = ModelOverrides(image_shape=SHAPE, classes=10)
BRISK = RequestSettings(batch=8, in_flight=4, timeout=5.0, initial_backoff=0.001, max_backoff=0.01)


@pytest.fixture
def many() -> torch.Tensor:
    return torch.rand(300, *SHAPE, generator=torch.Generator().manual_seed(1))


def ask(server: ModelServer, **changes):
    options = {**vars(BRISK), **changes}
    return open_inference_teacher(server.model, SAID, requests=RequestSettings(**options))


def fail_on(number: int, answer: Answer | None):
    """A script that answers all but one question."""
    return lambda n, asked, infer: answer if n == number else infer(asked)


def test_answers_keep_the_order_of_the_images(truth, many):
    def late_at_first(number, asked, infer):
        time.sleep(0.02 * (3 - number % 4))
        return infer(asked)

    with Scripted(truth, late_at_first) as server:
        teacher = ask(server)
        assert decide_checked(teacher, many[:100]).equal(truth.decide(many[:100]))
        assert server.max_in_flight > 1
        teacher.close()


@pytest.mark.parametrize(("batch", "in_flight"), [(1, 1), (7, 3), (100, 2)])
def test_batches_and_concurrent_requests_are_limited(truth, many, batch, in_flight):
    with ModelServer(truth) as server:
        teacher = ask(server, batch=batch, in_flight=in_flight)
        teacher.decide(many[:50])
        teacher.close()
    assert len(server.requests) == -(-50 // batch)
    assert server.max_in_flight <= in_flight
    assert server.paid == server.answered == 50


def test_a_large_request_is_sent_whole(truth, many):
    images = many.repeat(20, 1, 1, 1)
    with ModelServer(truth) as server:
        teacher = ask(server, batch=len(images))
        assert teacher.decide(images).equal(truth.decide(images))
        assert len(server.asked[-1].body) > 2**20 and len(server.requests) == 1
        teacher.close()


def test_no_images_send_no_request(truth, many):
    with ModelServer(truth) as server:
        teacher = ask(server)
        assert teacher.decide(many[:0]).shape == (0,) and not server.requests
        teacher.close()


def test_a_faulty_server_that_restarts_changes_no_label_and_is_paid_once(truth, many):
    images = many.repeat(4, 1, 1, 1)
    with FaultyServer(truth, delay=0.6) as server:
        teacher = ask(server, batch=4, timeout=0.4, initial_backoff=0.05, max_backoff=1.0)
        ledger = Ledger(torch.tensor([len(images)]))

        def search():
            return (yield Query(images, torch.zeros(len(images), dtype=torch.int64)))

        restart = threading.Timer(0.2, server.restart, (0.2,))
        restart.start()
        decisions = run(search(), teacher, ledger)
        restart.join()
        teacher.close()
    assert decisions.equal(truth.decide(images))
    assert int(ledger.spent) == len(images)
    assert set(server.faults) == {"drop", "busy", "slow"}
    assert server.answered >= len(images), "an answer may be lost on the way at the restart"
    assert server.answered - len(images) <= teacher.requests.in_flight * teacher.requests.batch


def test_without_a_restart_every_answered_query_is_counted_once(truth, many):
    with FaultyServer(truth, drop=0.15, busy=0.15, slow=0) as server:
        teacher = ask(server, batch=4)
        assert teacher.decide(many).equal(truth.decide(many))
        teacher.close()
    assert server.paid == server.answered == len(many)
    assert set(server.requests.values()) == {1}


def lose_after_paying(number, asked, infer):
    answer = infer(asked)
    return None if number == 1 else answer


def test_a_lost_answer_is_requested_again_with_the_same_id(truth, many):
    with Scripted(truth, lose_after_paying) as server:
        teacher = ask(server)
        assert teacher.decide(many[:40]).equal(truth.decide(many[:40]))
        assert sorted(server.requests.values()) == [1, 1, 1, 1, 2]
        teacher.close()


def test_without_ambiguous_retries_a_lost_answer_is_not_requested_again(truth, many):
    with Scripted(truth, lose_after_paying) as server:
        teacher = ask(server, retry_ambiguous=False, in_flight=1)
        with pytest.raises(
            TeacherError,
            match=r"no answer in 1 attempt; connection lost.*; the request was not repeated, "
            "because the server may have answered it and retry_ambiguous is false",
        ) as raised:
            teacher.decide(many[:40])
        assert raised.value.answered.equal(truth.decide(many[:8]))
        assert set(server.requests.values()) == {1}
        teacher.close()


def test_without_ambiguous_retries_a_busy_server_is_still_retried(truth, many):
    with Scripted(truth, fail_on(1, Answer.of({"error": "busy"}, 503))) as server:
        teacher = ask(server, retry_ambiguous=False)
        assert teacher.decide(many[:40]).equal(truth.decide(many[:40]))
        teacher.close()


@pytest.mark.parametrize("status", [408, 425, 500, 502, 504, 520, 522, 524, 529])
def test_a_passing_failure_of_the_server_is_retried(truth, many, status):
    with Scripted(truth, fail_on(1, Answer(status))) as server:
        teacher = ask(server)
        assert teacher.decide(many[:40]).equal(truth.decide(many[:40]))
        assert sorted(server.requests.values()) == [1, 1, 1, 1, 1] and next(server.number) == 6
        teacher.close()


@pytest.mark.parametrize(("status", "attempts"), [(408, 1), (425, 3), (429, 3), (500, 1), (524, 1)])
def test_without_ambiguous_retries_a_failure_that_may_be_charged_ends_the_run(
    truth, many, status, attempts
):
    with Scripted(truth, lambda *_: Answer(status)) as server:
        teacher = ask(server, retry_ambiguous=False, in_flight=1, max_attempts=3)
        with pytest.raises(TeacherError, match=f"answered with status {status}") as raised:
            teacher.decide(many[:8])
        assert next(server.number) == attempts
        assert raised.value.maybe_paid == (8 if attempts == 1 else 0)
        teacher.close()


def test_a_server_that_always_fails_is_quoted_after_the_last_attempt(truth, many):
    with Scripted(truth, lambda *_: Answer(500, b"expected 784 features")) as server:
        teacher = ask(server, max_attempts=3, in_flight=1)
        words = r"no answer in 3 attempts; .* status 500: expected 784 features; the request held"
        with pytest.raises(TeacherError, match=words) as raised:
            teacher.decide(many[:8])
        assert next(server.number) == 3 and raised.value.maybe_paid == 8
        teacher.close()


def test_an_attempt_that_may_be_paid_counts_if_the_next_one_is_refused(truth, many):
    with Scripted(truth, lambda number, *_: Answer(400 if number else 500)) as server:
        teacher = ask(server, in_flight=1)
        with pytest.raises(TeacherError, match="with status 400") as raised:
            teacher.decide(many[:8])
        assert next(server.number) == 2 and raised.value.maybe_paid == 8
        teacher.close()


@pytest.mark.parametrize("status", [400, 401, 422, 501, 505])
def test_permanent_errors_are_not_retried(truth, many, status):
    with Scripted(truth, fail_on(0, Answer.of({"error": "no such input"}, status))) as server:
        teacher = ask(server, in_flight=1)
        with pytest.raises(TeacherError, match=f"with status {status}: .*no such input"):
            teacher.decide(many[:8])
        assert next(server.number) == 1
        teacher.close()


def test_answers_before_a_gap_are_returned_and_those_behind_it_kept(truth, many):
    images = many[:64]

    failed = threading.Event()

    def fail_fourth(number, asked, infer):
        # By its images: the fourth to arrive may be any of those under way.
        if not failed.is_set() and images[24:32].numpy().tobytes() in asked.body:
            time.sleep(0.05)
            failed.set()
            return Answer(400)
        return infer(asked)

    with Scripted(truth, fail_fourth) as server:
        teacher = ask(server)
        with pytest.raises(TeacherError) as raised:
            decide_checked(teacher, images)
        answered = raised.value.answered
        assert answered.equal(truth.decide(images[:24]))
        paid = server.paid
        rest = images[len(answered) :]
        assert decide_checked(teacher, rest).equal(truth.decide(rest))
        assert server.paid == len(images), "nothing was asked twice"
        assert paid > len(answered), "some answers lay behind the gap"
        assert teacher.decide(rest).equal(truth.decide(rest))
        assert server.paid == len(images) + len(rest), "what was kept is handed out once"
        teacher.close()


def test_the_ledger_records_what_a_failing_batch_answered(truth, many):
    with Scripted(truth, fail_on(3, Answer(400))) as server:
        teacher = ask(server, in_flight=1)
        ledger = Ledger(torch.tensor([100]))

        def search():
            yield Query(many[:64], torch.zeros(64, dtype=torch.int64))

        with pytest.raises(TeacherError):
            run(search(), teacher, ledger)
        assert int(ledger.spent) == server.paid == 1 + 8 + 8
        teacher.close()


@pytest.mark.parametrize("form", ["seconds", "date", "nonsense"])
def test_retry_after_is_respected(truth, many, form):
    value = {"seconds": "0", "date": formatdate(0), "nonsense": "soon"}[form]
    busy = Answer(429, headers={"Retry-After": value})
    with Scripted(truth, fail_on(0, busy)) as server:
        teacher = ask(server)
        assert teacher.decide(many[:8]).equal(truth.decide(many[:8]))
        teacher.close()


def test_a_retry_after_beyond_the_limit_fails(truth, many):
    with Scripted(truth, lambda *_: Answer(429, headers={"Retry-After": "3600"})) as server:
        teacher = ask(server, in_flight=1)
        with pytest.raises(TeacherError, match="status 429 and asks for a wait of 3600 s"):
            teacher.decide(many[:8])
        assert next(server.number) == 1
        teacher.close()


def test_attempts_are_bounded(truth, many):
    with Scripted(truth, lambda *_: None) as server:
        teacher = ask(server, max_attempts=3, in_flight=1)
        with pytest.raises(TeacherError, match="no answer in 3 attempts; connection lost"):
            teacher.decide(many[:8])
        assert next(server.number) == 3
        teacher.close()


def test_a_rate_limit_spreads_queries_over_time(monkeypatch):
    waits = []

    async def sleep(seconds: float, given_up: asyncio.Event) -> None:
        waits.append(seconds)

    async def take() -> None:
        limit = RateLimit(100)
        for queries in (50, 25, 25, 1):
            await limit.take(queries, asyncio.Event())

    monkeypatch.setattr(retry, "_sleep", sleep)
    asyncio.run(take())

    assert waits == pytest.approx([0.5, 0.75, 1.0], abs=0.05)


def test_a_remote_teacher_works_inside_an_event_loop(truth, many):
    async def notebook(teacher):
        return teacher.decide(many[:20])

    with ModelServer(truth) as server:
        teacher = ask(server)
        assert asyncio.run(notebook(teacher)).equal(truth.decide(many[:20]))
        teacher.close()


def test_a_deleted_teacher_leaves_no_thread(truth, many):
    with ModelServer(truth) as server:
        teacher = ask(server)
        teacher.decide(many[:8])
        del teacher
        gc.collect()
        names = [thread.name for thread in threading.enumerate()]
        assert "db3kd-remote-teacher" not in names


def test_an_error_while_closing_is_raised_and_leaves_no_thread():
    async def fail() -> None:
        raise OSError("cannot close the connection")

    before = threading.active_count()
    with pytest.raises(OSError, match="cannot close the connection"):
        EventLoopThread().close(fail)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batch": 0}, "batch: expected an integer of at least 1"),
        ({"timeout": 0}, "timeout: expected a finite number above 0"),
        ({"timeout": "long"}, "timeout: expected a finite number above 0"),
        ({"queries_per_second": -1}, "queries_per_second: expected a finite number above 0"),
        ({"retry_ambiguous": 1}, "retry_ambiguous: expected True or False"),
    ],
)
def test_invalid_request_settings_are_rejected(wrong, words):
    with pytest.raises((TypeError, ValueError), match=words):
        RequestSettings(**wrong)
