"""What computations without a run folder say of answers that may have been paid for and lost."""

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from distill_cases import CLASSES, SHAPE
from distill_cases import images as some_images
from distill_cases import teacher as truth
from served_doubles import Answer, Asked, Scripted

import db3kd
from db3kd.querying import decide_all
from db3kd.querying.sent_queries import SentQueries
from db3kd.teachers import (
    FunctionTeacher,
    ModelOverrides,
    RequestSettings,
    RescaledTeacher,
    TeacherError,
    open_inference_teacher,
)
from db3kd.wording import counted

COUNT, BATCH, IN_FLIGHT, MAX_BATCH = 100, 4, 2, 16


def images() -> torch.Tensor:
    return some_images(COUNT).read(range(COUNT))


def served(server: Scripted, **options: Any) -> Any:
    requests = {"timeout": 5.0, "initial_backoff": 0.001, "max_backoff": 0.01} | options
    return open_inference_teacher(
        server.model,
        ModelOverrides(image_shape=SHAPE, classes=CLASSES),
        requests=RequestSettings(batch=BATCH, in_flight=IN_FLIGHT, **requests),
    )


def every_fifth(lose: Callable[[Answer | None], Answer | None]) -> Callable[..., Any]:
    def script(number: int, asked: Asked, infer: Any) -> Answer | None:
        answer = infer(asked)  # which the service counts
        return lose(answer) if number % 5 == 1 else answer

    return script


LOST = pytest.mark.parametrize(
    "lose",
    [lambda _: Answer(500), lambda _: None, lambda _: Answer(408)],
    ids=["status 500", "connection lost", "status 408"],
)


@LOST
@pytest.mark.parametrize("rescaled", [False, True])
def test_repeated_requests_are_counted_exactly(lose, rescaled):
    with Scripted(truth(), every_fifth(lose)) as server:
        teacher = served(server)
        asked = RescaledTeacher(teacher, (0.0, 255.0)) if rescaled else teacher
        scale, sent = 255.0 if rescaled else 1.0, SentQueries()
        shown = images() * scale
        decisions = decide_all(
            asked, shown.__getitem__, torch.arange(COUNT), sent=sent, query_batch_size=64
        )
        teacher.close()
    assert decisions.equal(truth().decide(images()))
    assert sent.answered == COUNT
    assert sent.lost == server.paid - COUNT > 0


def test_answers_after_the_timeout_are_counted():
    """The server computes, and is charged, but answers later than its client waits."""
    release, waiting = threading.Event(), threading.Event()

    def script(number: int, asked: Asked, infer: Any) -> Answer | None:
        answer = infer(asked)
        if number == 3:
            waiting.set()
            release.wait(30)
        return answer

    with Scripted(truth(), script) as server:
        teacher, sent = served(server, timeout=1.0), SentQueries()
        decide_all(teacher, images().__getitem__, torch.arange(COUNT), sent=sent)
        release.set()
        teacher.close()
    assert waiting.is_set() and sent.lost > 0
    assert sent.answered + sent.lost >= server.paid > COUNT


@pytest.mark.parametrize("measure", ["evaluate", "agreement", "label_chunks", "synthesize"])
def test_python_functions_without_a_folder_log_what_was_paid_twice(measure, caplog):
    lock, lost = threading.Lock(), []

    def script(number: int, asked: Asked, infer: Any) -> Answer | None:
        with lock:
            before, answer = server.paid, infer(asked)
            if number % 5 == 1:
                lost.append(server.paid - before)
        return Answer(500) if number % 5 == 1 else answer

    with Scripted(truth(), script) as server:
        teacher = served(server)
        answers = truth().decide(images())
        with caplog.at_level(logging.WARNING, "db3kd"):
            if measure == "evaluate":
                assert db3kd.evaluate(teacher, images(), answers) == 1.0
            elif measure == "agreement":
                assert db3kd.agreement(teacher, images(), answers) == 1.0
            elif measure == "label_chunks":
                settings = db3kd.LabelSettings(measure="sd")
                chunks = list(db3kd.label_chunks(teacher, images(), settings))
                assert sum(map(len, chunks)) == COUNT
            else:
                settings = db3kd.SynthesisSettings(samples=20)
                assert len(db3kd.synthesize(teacher, settings)) == 20
        teacher.close()
    logged = re.findall(r"paid twice: at most (\d+) queries that were sent", caplog.text)
    assert sum(map(int, logged)) == sum(lost) > 0


def test_labels_in_memory_log_what_was_paid_twice(caplog):
    with Scripted(truth(), every_fifth(lambda _: Answer(500))) as server:
        teacher = served(server)
        with caplog.at_level(logging.WARNING, "db3kd"):
            labels = db3kd.label(teacher, images(), db3kd.LabelSettings(measure="sd"))
        teacher.close()
    lost = server.paid - int(labels.queries.sum())
    assert f"paid twice: at most {lost} queries that were sent but" in caplog.text


def test_a_teacher_without_failures_logs_nothing(caplog):
    with Scripted(truth(), lambda _, asked, infer: infer(asked)) as server:
        teacher = served(server)
        db3kd.evaluate(teacher, images(), truth().decide(images()))
        teacher.close()
    assert server.paid == COUNT and "paid twice" not in caplog.text


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ConnectionError("gone"), TeacherError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (None, TeacherError),
    ],
    ids=["raises", "interrupt", "invalid answer"],
)
@pytest.mark.parametrize("generator", [False, True])
def test_the_error_of_a_failed_call_says_what_may_have_been_paid(failure, expected, generator):
    paid = 0

    def pay_for(image: np.ndarray) -> int:
        nonlocal paid
        paid += 1
        if paid == 50 and failure is not None:
            raise failure
        return 99 if paid == 50 else int(truth().decide(torch.from_numpy(image)[None]))

    def classify(array: np.ndarray) -> list[int]:
        return [pay_for(image) for image in array]

    def one_by_one(array: np.ndarray) -> Any:
        for image in array:
            yield pay_for(image)

    function = one_by_one if generator else classify
    teacher = FunctionTeacher(function, SHAPE, CLASSES, max_batch=MAX_BATCH)
    sent = SentQueries()
    with pytest.raises(expected) as raised, sent.noted():
        decide_all(teacher, images().__getitem__, torch.arange(COUNT), sent=sent)
    assert sent.answered + sent.lost >= paid >= 50
    if expected is TeacherError:
        assert sent.answered == 49  # in calls of 1 and then MAX_BATCH images
        assert sent.lost == (1 if generator else MAX_BATCH)
    answered = counted(sent.answered, "query")
    found = f"{answered} had an answer, and up to {sent.lost} more may have been paid"
    assert found in raised.value.__notes__[-1]


def test_a_request_that_fails_for_good_is_counted_with_its_attempts():
    def script(number: int, asked: Asked, infer: Any) -> Answer | None:
        answer = infer(asked)
        return Answer(500) if server.paid > 40 else answer

    with Scripted(truth(), script) as server:
        teacher, sent = served(server, max_attempts=3), SentQueries()
        with pytest.raises(TeacherError):
            decide_all(teacher, images().__getitem__, torch.arange(COUNT), sent=sent)
        teacher.close()
    assert server.paid <= sent.answered + sent.lost <= server.paid + BATCH * IN_FLIGHT


def _label_in_chunks(teacher: Any) -> None:
    list(db3kd.label_chunks(teacher, images(), db3kd.LabelSettings(queries_per_pair=10)))


def _synthesize(teacher: Any) -> None:
    db3kd.synthesize(teacher, db3kd.SynthesisSettings(samples=40, moves=db3kd.Moves(count=1)))


def _make_surrogate(teacher: Any) -> None:
    training = db3kd.TrainSettings(steps=1)
    settings = db3kd.SurrogateSettings(queries_per_sample=4, model="linear", training=training)
    db3kd.make_surrogate(teacher, images(), settings)


@pytest.mark.parametrize("call", [_label_in_chunks, _synthesize, _make_surrogate])
def test_the_error_of_a_late_search_counts_the_answers_of_all_earlier_ones(call, monkeypatch):
    monkeypatch.setattr("db3kd.querying.sharded_decisions.SHARD_ROWS", 128)
    paid = 0

    def classify(array: np.ndarray) -> Any:
        nonlocal paid
        paid += len(array)
        if paid > 350:
            raise ConnectionError("gone")
        return truth().decide(torch.from_numpy(array))

    with pytest.raises(TeacherError) as raised:
        call(FunctionTeacher(classify, SHAPE, CLASSES, max_batch=MAX_BATCH))
    (note,) = (note for note in raised.value.__notes__ if "may have been paid" in note)
    answered, lost = map(int, re.findall(r"\d+", note)[:2])
    assert answered + lost == paid > 350
    assert lost <= MAX_BATCH


def test_an_error_in_the_training_of_a_surrogate_says_which_answers_it_loses(monkeypatch):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("db3kd.surrogates.training.train_surrogate", interrupt)
    with pytest.raises(KeyboardInterrupt) as raised:
        _make_surrogate(truth())
    assert "400 queries had an answer" in raised.value.__notes__[-1]


def test_a_caller_that_stops_early_is_told_what_was_paid_twice(caplog):
    with Scripted(truth(), every_fifth(lambda _: Answer(500))) as server:
        teacher = served(server)
        with caplog.at_level(logging.WARNING, "db3kd"):
            chunks = db3kd.label_chunks(teacher, images(), db3kd.LabelSettings(measure="sd"))
            next(chunks)
            chunks.close()
        teacher.close()
    assert f"paid twice: at most {server.paid - COUNT} queries that were sent" in caplog.text
