"""Teachers behind a network: order, limits, failures on the way, hostile servers."""

import asyncio
import gc
import itertools
import logging
import threading
import time
from email.utils import formatdate

import pytest
import torch
from served_doubles import Answer, Asked, FaultyServer, Loopback, ModelServer
from teachers_analytic import LinearTeacher

from db3kd.driver import Ledger, run
from db3kd.search import Query
from db3kd.teachers import (
    Said,
    SecretHeader,
    TeacherError,
    Traffic,
    decide_checked,
    open_inference_teacher,
    rest_teacher,
)
from db3kd.teachers.traffic import RateLimit

SHAPE = (1, 8, 8)
SAID = Said(image_shape=SHAPE, classes=10)
SECRET = "Bearer 3b1f-very-secret"
BRISK = Traffic(batch=8, in_flight=4, timeout=5.0, first_wait=0.001, longest_wait=0.01)


@pytest.fixture(scope="module")
def truth() -> LinearTeacher:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(10, 64, generator=generator)
    return LinearTeacher(weights - weights.mean(1, keepdim=True), torch.zeros(10), SHAPE)


@pytest.fixture
def many() -> torch.Tensor:
    return torch.rand(300, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def secret(monkeypatch) -> SecretHeader:
    monkeypatch.setenv("DB3KD_TEST_SECRET", SECRET)
    return SecretHeader("DB3KD_TEST_SECRET")


class Scripted(ModelServer):
    """Does to the n-th question what `script` says: a function of the server and the question."""

    def __init__(self, teacher, script, **options):
        super().__init__(teacher, **options)
        self.script = script
        self.number = itertools.count()

    def infer(self, asked: Asked) -> Answer | None:
        return self.script(next(self.number), asked, super().infer)


def ask(server: ModelServer, **changes):
    options = {**vars(BRISK), **changes}
    return open_inference_teacher(server.model, SAID, traffic=Traffic(**options))


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
        assert server.most_under_way > 1
        teacher.close()


@pytest.mark.parametrize(("batch", "in_flight"), [(1, 1), (7, 3), (100, 2)])
def test_no_request_and_no_crowd_is_larger_than_allowed(truth, many, batch, in_flight):
    with ModelServer(truth) as server:
        teacher = ask(server, batch=batch, in_flight=in_flight)
        teacher.decide(many[:50])
        assert len(server.requests) == -(-50 // batch)
        assert server.most_under_way <= in_flight
        assert server.paid == server.answered == 50
        teacher.close()


def test_no_images_are_no_request(truth, many):
    with ModelServer(truth) as server:
        teacher = ask(server)
        assert teacher.decide(many[:0]).shape == (0,) and not server.requests
        teacher.close()


def test_a_faulty_server_that_restarts_changes_nothing_and_is_paid_once(truth, many):
    images = many.repeat(4, 1, 1, 1)
    with FaultyServer(truth, delay=0.6) as server:
        teacher = ask(server, batch=4, timeout=0.4, first_wait=0.05, longest_wait=1.0)
        ledger = Ledger(torch.tensor([len(images)]))

        def search():
            return (yield Query(images, torch.zeros(len(images), dtype=torch.int64)))

        restart = threading.Timer(0.2, server.restart, (0.2,))
        restart.start()
        decisions = run(search(), teacher, ledger)
        restart.join()
        assert decisions.equal(truth.decide(images))
        assert int(ledger.spent) == len(images)
        assert server.answered >= len(images), "an answer may be lost on the way at the restart"
        assert server.answered - len(images) <= teacher.traffic.in_flight * teacher.traffic.batch
        assert set(server.faults) == {"drop", "busy", "slow"}
        teacher.close()


def test_without_a_restart_every_answered_query_is_counted_once(truth, many):
    with FaultyServer(truth, drop=0.15, busy=0.15, slow=0) as server:
        teacher = ask(server, batch=4)
        assert teacher.decide(many).equal(truth.decide(many))
        assert server.paid == server.answered == len(many)
        assert set(server.requests.values()) == {1}
        teacher.close()


def lose_after_paying(number, asked, infer):
    answer = infer(asked)
    return None if number == 1 else answer


def test_an_answer_lost_on_the_way_is_asked_for_again_under_the_same_name(truth, many):
    with Scripted(truth, lose_after_paying) as server:
        teacher = ask(server)
        assert teacher.decide(many[:40]).equal(truth.decide(many[:40]))
        assert sorted(server.requests.values()) == [1, 1, 1, 1, 2]
        teacher.close()


def test_who_never_pays_twice_has_no_lost_answer_repeated(truth, many):
    with Scripted(truth, lose_after_paying) as server:
        teacher = ask(server, retry_lost=False, in_flight=1)
        with pytest.raises(
            TeacherError, match=r"no answer in 1 attempt; connection lost"
        ) as raised:
            teacher.decide(many[:40])
        assert raised.value.answered.equal(truth.decide(many[:8]))
        assert set(server.requests.values()) == {1}
        teacher.close()


def test_who_never_pays_twice_still_waits_for_a_busy_server(truth, many):
    with Scripted(truth, fail_on(1, Answer.of({"error": "busy"}, 503))) as server:
        teacher = ask(server, retry_lost=False)
        assert teacher.decide(many[:40]).equal(truth.decide(many[:40]))
        teacher.close()


@pytest.mark.parametrize("status", [400, 401, 422, 500, 501])
def test_what_is_no_use_to_repeat_is_not_repeated(truth, many, status):
    with Scripted(truth, fail_on(0, Answer.of({"error": "no such input"}, status))) as server:
        teacher = ask(server, in_flight=1)
        with pytest.raises(TeacherError, match=f"the server says {status}: .*no such input"):
            teacher.decide(many[:8])
        assert next(server.number) == 1
        teacher.close()


def test_answers_before_a_gap_are_handed_on_and_those_behind_it_kept(truth, many):
    images = many[:64]

    def fail_fourth(number, asked, infer):
        if number == 3:
            time.sleep(0.05)
            return Answer(500)
        return infer(asked)

    with Scripted(truth, fail_fourth) as server:
        teacher = ask(server)
        with pytest.raises(TeacherError) as raised:
            decide_checked(teacher, images)
        answered = raised.value.answered
        assert len(answered) >= 8 and answered.equal(truth.decide(images[: len(answered)]))
        paid = server.paid
        rest = images[len(answered) :]
        assert decide_checked(teacher, rest).equal(truth.decide(rest))
        assert server.paid == len(images), "nothing was asked twice"
        assert paid > len(answered), "some answers lay behind the gap"
        assert teacher.decide(rest).equal(truth.decide(rest))
        assert server.paid == len(images) + len(rest), "what was kept is handed out once"
        teacher.close()


def test_the_ledger_books_what_a_failing_batch_answered(truth, many):
    with Scripted(truth, fail_on(3, Answer(500))) as server:
        teacher = ask(server, in_flight=1)
        ledger = Ledger(torch.tensor([100]))

        def search():
            yield Query(many[:64], torch.zeros(64, dtype=torch.int64))

        with pytest.raises(TeacherError):
            run(search(), teacher, ledger)
        assert int(ledger.spent) == server.paid == 24
        teacher.close()


@pytest.mark.parametrize("form", ["seconds", "date", "nonsense"])
def test_a_server_that_asks_to_wait_is_waited_for(truth, many, form):
    value = {"seconds": "0", "date": formatdate(0), "nonsense": "soon"}[form]
    busy = Answer(429, headers={"Retry-After": value})
    with Scripted(truth, fail_on(0, busy)) as server:
        teacher = ask(server)
        assert teacher.decide(many[:8]).equal(truth.decide(many[:8]))
        teacher.close()


def test_a_server_that_asks_to_wait_too_long_is_not_asked_again(truth, many):
    with Scripted(truth, lambda *_: Answer(429, headers={"Retry-After": "3600"})) as server:
        teacher = ask(server, in_flight=1)
        with pytest.raises(TeacherError, match="says 429, and asks to wait 3600 s"):
            teacher.decide(many[:8])
        assert next(server.number) == 1
        teacher.close()


def test_attempts_are_bounded(truth, many):
    with Scripted(truth, lambda *_: None) as server:
        teacher = ask(server, attempts=3, in_flight=1)
        with pytest.raises(TeacherError, match="no answer in 3 attempts; connection lost"):
            teacher.decide(many[:8])
        assert next(server.number) == 3
        teacher.close()


def test_a_rate_limit_spreads_queries_over_time(monkeypatch):
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def take() -> None:
        limit = RateLimit(100)
        for queries in (50, 25, 25, 1):
            await limit.take(queries)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(take())

    assert waits == pytest.approx([0.5, 0.75, 1.0], abs=0.05)


def test_a_served_teacher_is_asked_from_within_an_event_loop(truth, many):
    async def notebook(teacher):
        return teacher.decide(many[:20])

    with ModelServer(truth) as server:
        teacher = ask(server)
        assert asyncio.run(notebook(teacher)).equal(truth.decide(many[:20]))
        teacher.close()


def test_a_forgotten_teacher_leaves_no_thread(truth, many):
    with ModelServer(truth) as server:
        teacher = ask(server)
        teacher.decide(many[:8])
        del teacher
        gc.collect()
        names = [thread.name for thread in threading.enumerate()]
        assert "db3kd-served-teacher" not in names


# Hostile servers


def drip(*_):
    return Answer(200, itertools.chain([b"{"], (time.sleep(0.05) or b" " for _ in range(100))))


def echo(asked: Asked) -> bytes:
    return asked.headers.get("Authorization", "").encode()


def redirect(n, asked, infer):
    there = f"http://{echo(asked).decode().split()[-1]}.example.org/"
    return Answer(307, echo(asked), headers={"Location": there})


def lying_length(n, asked, infer):
    answer = infer(asked)
    answer.headers["Inference-Header-Content-Length"] = "-5"
    return answer


def shape(*sizes):
    def script(n, asked, infer):
        output = {"name": "label", "datatype": "FP32", "shape": sizes, "data": [1.0] * 8}
        return Answer.of({"outputs": [output]})

    return script


def data(values, datatype="INT64"):
    output = {"name": "label", "datatype": datatype, "shape": [len(values)], "data": values}
    return lambda n, asked, infer: Answer.of({"outputs": [output]})


def body(content):
    return lambda n, asked, infer: Answer(200, content)


HOSTILE = {
    "another shape": (shape(2, 4), "got an answer of shape"),
    "an impossible shape": (shape(10**12, 10**12), "cannot be read"),
    "a negative shape": (shape(-3, -1), "cannot be read"),
    "too few answers": (data([1, 2]), "got an answer of shape"),
    "a class out of range": (data([1, 2, 3, 4, 5, 6, 7, 10]), "got class 10 for image 7"),
    "a negative class": (data([-1] * 8), "got class -1 for image 0"),
    "NaN": (data([float("nan")] * 8, "FP32"), "got class nan"),
    "a class name": (data([SECRET] * 8, "BYTES"), "got class names"),
    "no output": (body(b'{"outputs": []}'), "expected the output 'label'"),
    "no object": (body(b"[1, 2]"), "cannot be read"),
    "no JSON": (body(b"<html>"), "cannot be read"),
    "nothing": (body(b""), "cannot be read"),
    "deep JSON": (body(b"[" * 100_000), "cannot be read"),
    "a huge number": (body(b'{"outputs": ' + b"9" * 100_000 + b"}"), "cannot be read"),
    "a long body": (body(b" " * (3 * 2**20)), "an answer of at most 1,055,744 bytes"),
    "a body without end": (
        lambda *_: Answer(200, (b" " * 65536 for _ in range(100))),
        "an answer of at most",
    ),
    "a dripping body": (drip, "no answer in 2 attempts; nothing within 0.3 s"),
    "a lying header": (lying_length, "cannot be read"),
    "a compressed body": (
        lambda *_: Answer(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}),
        "not compressed",
    ),
    "a redirect": (redirect, "redirects .307., and no redirect is followed"),
    "an error that repeats what was sent": (
        lambda n, asked, infer: Answer(400, echo(asked)),
        "the server says 400$",
    ),
    "a status that repeats what was sent": (
        lambda n, asked, infer: Answer(999, echo(asked)),
        "the server says 999$",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("binary", [True, False])
def test_a_hostile_answer_is_a_typed_error_without_the_secret(
    truth, many, secret, caplog, kind, binary
):
    script, words = HOSTILE[kind]
    if kind == "a lying header" and not binary:
        pytest.skip("JSON answers have no such header")
    caplog.set_level(logging.INFO)
    with Scripted(truth, script) as server:
        traffic = Traffic(batch=8, in_flight=1, timeout=0.3, attempts=2, first_wait=0.001)
        teacher = open_inference_teacher(
            server.model, SAID, traffic=traffic, binary=binary, secret=secret
        )
        with pytest.raises(TeacherError, match=words) as raised:
            decide_checked(teacher, many[:8])
        teacher.close()
        told = [str(raised.value), repr(raised.value), repr(vars(teacher)), caplog.text]
        told += [teacher.name, teacher.fingerprint(), *map(str, teacher.rows())]
        assert not any("3b1f" in text for text in told)
        assert server.asked[-1].headers["Authorization"] == SECRET


def test_a_redirect_is_not_followed(truth, many, secret):
    with Loopback(lambda asked: Answer(200)) as elsewhere:
        there = Answer(308, headers={"Location": f"{elsewhere.url}/v2"})
        with Scripted(truth, lambda *_: there) as server:
            teacher = open_inference_teacher(server.model, SAID, traffic=BRISK, secret=secret)
            with pytest.raises(TeacherError, match="no redirect is followed"):
                teacher.decide(many[:8])
            teacher.close()
        assert not elsewhere.asked


def test_a_server_that_never_speaks_is_given_up(many):
    release = threading.Event()
    with Loopback(lambda asked: release.wait(5) and None) as server:
        traffic = Traffic(timeout=0.2, attempts=1)
        teacher = rest_teacher(server.url, {"x": "$images"}, "y", SAID, traffic=traffic)
        with pytest.raises(TeacherError, match=r"no answer in 1 attempt; nothing within 0\.2 s"):
            teacher.decide(many[:8])
        release.set()
        teacher.close()


def test_without_a_server_the_error_says_so(many):
    with Loopback() as server:
        url = f"{server.url}/v2/models/digits"
    with pytest.raises(TeacherError, match=r"no answer in 2 attempts; no connection"):
        open_inference_teacher(url, traffic=Traffic(attempts=2, first_wait=0.001))


# Secrets


def test_a_secret_is_sent_and_kept_nowhere(secret, truth, many):
    with ModelServer(truth) as server:
        teacher = open_inference_teacher(server.model, SAID, traffic=BRISK, secret=secret)
        teacher.decide(many[:8])
        teacher.close()
    assert all(asked.headers["Authorization"] == SECRET for asked in server.asked)
    assert "secret" not in repr(secret) and SECRET not in str(vars(secret))


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "which is not set"), ("", "not set"), ("a\nb", "characters that"), ("é", "characters")],
)
def test_a_secret_that_cannot_be_sent_is_named_by_its_variable(monkeypatch, value, words):
    monkeypatch.delenv("DB3KD_TEST_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("DB3KD_TEST_SECRET", value)
    with pytest.raises(ValueError, match=f"header: .*DB3KD_TEST_SECRET.*{words}"):
        SecretHeader("DB3KD_TEST_SECRET")


@pytest.mark.parametrize(
    "url", ["http://me:pw123@host/v2/models/m", "http://me:pw123/4@host/v2/models/m"]
)
def test_a_password_in_an_address_is_refused_and_not_repeated(url):
    with pytest.raises(ValueError, match=r"url: ") as raised:
        open_inference_teacher(url)
    assert "pw123" not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batch": 0}, "batch: expected an integer of at least 1"),
        ({"timeout": 0}, "timeout: expected a positive number"),
        ({"timeout": "long"}, "timeout: expected a positive number"),
        ({"queries_per_second": -1}, "queries_per_second: expected a positive number"),
        ({"retry_lost": 1}, "retry_lost: expected true or false"),
    ],
)
def test_traffic_that_makes_no_sense_is_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        Traffic(**wrong)
