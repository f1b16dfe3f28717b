"""Hostile servers and secrets: errors are typed and short, and quote no secret."""

import itertools
import logging
import threading
import time

import pytest
import torch
from served_doubles import Answer, Asked, Loopback, ModelServer, Scripted

from db3kd.teachers import (
    ModelOverrides,
    RequestSettings,
    SecretHeader,
    TeacherError,
    decide_checked,
    open_inference_teacher,
    rest_teacher,
)

SHAPE = (1, 8, 8)
SAID = ModelOverrides(image_shape=SHAPE, classes=10)
SECRET = "Bearer hush-very-secret"
BRISK = RequestSettings(batch=8, in_flight=1, timeout=5.0, initial_backoff=0.001, max_backoff=0.01)


@pytest.fixture
def many() -> torch.Tensor:
    return torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def secret(monkeypatch) -> SecretHeader:
    monkeypatch.setenv("DB3KD_TEST_SECRET", SECRET)
    return SecretHeader("DB3KD_TEST_SECRET")


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
    "a class name": (
        data([SECRET] * 8, "BYTES"),
        "got a class name .withheld: the server received a secret. for",
    ),
    "no output": (body(b'{"outputs": []}'), "expected the output 'label'"),
    "no object": (body(b"[1, 2]"), "cannot be read"),
    "no JSON": (body(b"<html>"), "cannot be read"),
    "nothing": (body(b""), "cannot be read"),
    "deep JSON": (body(b"[" * 100_000), "cannot be read"),
    "a huge number": (body(b'{"outputs": ' + b"9" * 100_000 + b"}"), "cannot be read"),
    "a long body": (body(b" " * (3 * 2**20)), "a response of at most 1,055,744 bytes"),
    "a body without end": (
        lambda *_: Answer(200, (b" " * 65536 for _ in range(100))),
        "a response of at most",
    ),
    "a dripping body": (drip, "no answer in 2 attempts; no complete answer within 0.3 s"),
    "a lying header": (lying_length, "cannot be read"),
    "a compressed body": (
        lambda *_: Answer(200, b"\x1f\x8b", {"Content-Encoding": "gzip"}),
        "uncompressed",
    ),
    "a redirect": (redirect, "redirects .status 307., and redirects are not followed"),
    "an error that repeats what was sent": (
        lambda n, asked, infer: Answer(400, echo(asked)),
        r"the server answered with status 400; its words are withheld, because it received "
        r"a secret; the request held \[\d+, .*\] float32, layout NCHW$",
    ),
    "a failure that repeats what was sent": (
        lambda n, asked, infer: Answer(500, echo(asked)),
        r"no answer in 2 attempts; the server answered with status 500; its words are withheld, "
        r"because it received a secret; the request held",
    ),
    "a status that repeats what was sent": (
        lambda n, asked, infer: Answer(999, echo(asked)),
        "the server answered with status 999; its words are withheld, because it received a "
        "secret$",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("binary", [True, False])
def test_a_hostile_answer_is_a_teacher_error_without_the_secret(
    truth, many, secret, caplog, kind, binary
):
    script, words = HOSTILE[kind]
    if kind == "a lying header" and not binary:
        pytest.skip("JSON answers have no such header")
    caplog.set_level(logging.INFO)
    with Scripted(truth, script) as server:
        requests = RequestSettings(
            batch=8, in_flight=1, timeout=0.3, max_attempts=2, initial_backoff=0.001
        )
        teacher = open_inference_teacher(
            server.model, SAID, requests=requests, binary=binary, secret=secret
        )
        with pytest.raises(TeacherError, match=words) as raised:
            decide_checked(teacher, many[:8])
        teacher.close()
        reported = [str(raised.value), repr(raised.value), repr(vars(teacher)), caplog.text]
        reported += [teacher.name, teacher.fingerprint(), *map(str, teacher.details())]
        assert not any("hush" in text for text in reported)
        assert server.asked[-1].headers["Authorization"] == SECRET


def test_a_redirect_is_not_followed(truth, many, secret):
    with Loopback(lambda asked: Answer(200)) as elsewhere:
        there = Answer(308, headers={"Location": f"{elsewhere.url}/v2"})
        with Scripted(truth, lambda *_: there) as server:
            teacher = open_inference_teacher(server.model, SAID, requests=BRISK, secret=secret)
            with pytest.raises(TeacherError, match="redirects are not followed"):
                teacher.decide(many[:8])
            teacher.close()
        assert not elsewhere.asked


def test_a_silent_server_times_out(many):
    release = threading.Event()
    with Loopback(lambda asked: release.wait(5) and None) as server:
        requests = RequestSettings(timeout=0.2, max_attempts=1)
        teacher = rest_teacher(server.url, {"x": "$images"}, "y", SAID, requests=requests)
        with pytest.raises(TeacherError, match=r"1 attempt; no complete answer within 0\.2 s"):
            teacher.decide(many[:8])
        release.set()
        teacher.close()


def test_a_missing_server_is_reported(many):
    with Loopback() as server:
        url = f"{server.url}/v2/models/digits"
    with pytest.raises(TeacherError, match=r"no answer in 2 attempts; no connection"):
        open_inference_teacher(url, requests=RequestSettings(max_attempts=2, initial_backoff=0.001))


def test_a_secret_is_sent_but_never_stored(secret, truth, many):
    with ModelServer(truth) as server:
        teacher = open_inference_teacher(server.model, SAID, requests=BRISK, secret=secret)
        teacher.decide(many[:8])
        teacher.close()
    assert all(asked.headers["Authorization"] == SECRET for asked in server.asked)
    assert "secret" not in repr(secret) and SECRET not in str(vars(secret))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "which is not set"),
        ("", "not set"),
        ("a\nb", "got others"),
        ("é", "got others"),
    ],
)
def test_an_invalid_secret_is_reported_by_its_variable(monkeypatch, value, words):
    monkeypatch.delenv("DB3KD_TEST_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("DB3KD_TEST_SECRET", value)
    with pytest.raises(ValueError, match=f"header: .*DB3KD_TEST_SECRET.*{words}"):
        SecretHeader("DB3KD_TEST_SECRET")


@pytest.mark.parametrize(
    "url", ["http://me:pw123@host/v2/models/m", "http://me:pw123/4@host/v2/models/m"]
)
def test_a_password_in_an_address_is_rejected_and_not_quoted(url):
    with pytest.raises(ValueError, match=r"url: ") as raised:
        open_inference_teacher(url)
    assert "pw123" not in str(raised.value)
