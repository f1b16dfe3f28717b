"""Answers that are journaled as they arrive: what an interrupt, a kill or a failure can lose."""

import logging
import signal
import threading

import pytest
import torch
from served_doubles import Answer, Asked, ModelServer, Scripted

from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import Query
from db3kd.storage.journal import Journal
from db3kd.storage.journal_format import Contents, read_journal
from db3kd.teachers import (
    FunctionTeacher,
    ModelOverrides,
    RequestSettings,
    TeacherError,
    decide_checked,
    open_inference_teacher,
)
from db3kd.teachers.base import WrongCountError
from db3kd.teachers.remote import request_stream

SHAPE = (1, 8, 8)
BATCH, IN_FLIGHT = 4, 3
WINDOW = BATCH * IN_FLIGHT


@pytest.fixture
def many() -> torch.Tensor:
    return torch.rand(100, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.journal"


def ask(server: ModelServer, max_backoff: float = 0.01):
    requests = RequestSettings(
        batch=BATCH,
        in_flight=IN_FLIGHT,
        timeout=5.0,
        initial_backoff=0.001,
        max_backoff=max_backoff,
    )
    return open_inference_teacher(
        server.model, ModelOverrides(image_shape=SHAPE, classes=10), requests=requests
    )


def interrupt() -> None:
    """What Ctrl-C does."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def search(images):
    return (yield Query(images, torch.zeros(len(images), dtype=torch.int64)))


def decide(teacher, images, file):
    """One search whose answers are kept in a journal; what is reported is what is booked."""
    ledger, reported = Ledger(torch.tensor([1000])), []
    with Journal(file, 10, "run") as journal:
        try:
            return run(search(images), teacher, ledger, reported.append, journal)
        finally:
            assert sum(reported) == int(ledger.spent)


def answers(found: Contents) -> list[int]:
    return [int(answer) for call in found.calls for answer in call.answers]


def interrupted_at_7(number: int, asked: Asked, infer):
    """The program is interrupted while the server has its eighth request."""
    if number == 7:
        interrupt()
    return infer(asked)


def test_answers_are_journaled_before_images_beyond_the_window_are_sent(truth, many, file):
    lost = []

    def look(number: int, asked: Asked, infer):
        answer = infer(asked)
        lost.append(server.paid - len(answers(read_journal(file, "run"))))
        return answer

    with Scripted(truth, look) as server:
        teacher = ask(server)
        decisions = decide(teacher, many, file)
        teacher.close()
    assert decisions.equal(truth.decide(many))
    assert 0 < max(lost) <= WINDOW
    assert server.paid == len(many)
    assert read_journal(file, "run").in_flight == 0
    assert answers(read_journal(file, "run")) == truth.decide(many).tolist()


def test_no_request_is_sent_beyond_the_window_of_an_unanswered_one(truth, many, file):
    released, others = threading.Event(), threading.Semaphore(0)
    ahead = []

    def hold_first(number: int, asked: Asked, infer):
        if many[:BATCH].numpy().tobytes() in asked.body:
            for _ in range(IN_FLIGHT - 1):
                assert others.acquire(timeout=5)
            released.wait(0.2)  # for as long as others may wrongly be sent
            ahead.append(server.paid)
        else:
            others.release()
        return infer(asked)

    with Scripted(truth, hold_first) as server:
        teacher = ask(server)
        assert decide(teacher, many, file).equal(truth.decide(many))
        teacher.close()
    assert ahead == [WINDOW - BATCH]


def test_an_interrupt_keeps_what_is_in_flight(truth, many, file):
    with Scripted(truth, interrupted_at_7) as server:
        teacher = ask(server)
        with pytest.raises(KeyboardInterrupt):
            decide(teacher, many, file)
        found = read_journal(file, "run")
        paid = server.paid
        assert 7 * BATCH < paid < len(many)
        assert len(answers(found)) == paid and found.in_flight == 0
        assert decide(teacher, many, file).equal(truth.decide(many))
        assert server.paid == len(many), "nothing is asked twice"
        teacher.close()


def test_an_interrupt_loses_no_answer_behind_a_rejected_request(truth, many, file):
    """The first request is in back-off, and those behind it are answered, when Ctrl-C comes."""
    first = many[:BATCH].numpy().tobytes()
    behind, rejections = threading.Semaphore(0), []

    def reject_first(number: int, asked: Asked, infer):
        if first not in asked.body:
            answer = infer(asked)
            behind.release()
            return answer
        if not rejections:
            for _ in range(IN_FLIGHT - 1):
                assert behind.acquire(timeout=5)
        rejections.append(number)
        if len(rejections) == 2:
            interrupt()
        return infer(asked) if len(rejections) > 5 else Answer(503)

    with Scripted(truth, reject_first) as server:
        teacher = ask(server)
        with pytest.raises(KeyboardInterrupt):
            decide(teacher, many, file)
        found = read_journal(file, "run")
        assert server.paid == len(answers(found)) == WINDOW and found.in_flight == 0
        assert decide(teacher, many, file).equal(truth.decide(many))
        assert server.paid == len(many), "nothing is asked twice"
        teacher.close()


def test_an_interrupt_does_not_repeat_requests_behind_which_nothing_is_lost(truth, many, file):
    asked_first = []

    def reject_all(number: int, asked: Asked, infer):
        asked_first.append(number)
        if len(asked_first) == IN_FLIGHT:
            interrupt()
        return Answer(503, headers={"Retry-After": "30"})

    with Scripted(truth, reject_all) as server:
        teacher = ask(server, max_backoff=60.0)
        with pytest.raises(KeyboardInterrupt):
            decide(teacher, many, file)
        teacher.close()
    assert len(asked_first) == IN_FLIGHT and not file.exists()


def test_a_second_interrupt_discards_and_records_requests_in_flight(truth, many, file, monkeypatch):
    monkeypatch.setattr(request_stream, "_SECONDS_BEFORE_WARNING", 0.01)
    released, reported = threading.Event(), []

    first = [images.numpy().tobytes() for images in many[:WINDOW].split(BATCH)]
    held = []

    def hold(number: int, asked: Asked, infer):
        # The last of those that are held is sent when all before them are kept.
        if not any(images in asked.body for images in first):
            held.append(number)
            if len(held) == IN_FLIGHT:
                interrupt()
            released.wait(5)
        return infer(asked)

    class Again(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reported.append(record.getMessage())
            interrupt()

    again = Again()
    logging.getLogger("db3kd").addHandler(again)
    try:
        with Scripted(truth, hold) as server:
            teacher = ask(server)
            with pytest.raises(KeyboardInterrupt):
                decide(teacher, many, file)
            found = read_journal(file, "run")
            released.set()
            assert len(answers(found)) == WINDOW
            assert found.in_flight == WINDOW
            assert len(reported) == 1 and "interrupt again to discard them" in reported[0]
            teacher.close()
    finally:
        logging.getLogger("db3kd").removeHandler(again)
    assert server.paid - len(answers(found)) <= WINDOW


def test_images_behind_a_gap_are_recorded_as_in_flight(truth, many, file):
    def fail_second(number: int, asked: Asked, infer):
        if many[BATCH : 2 * BATCH].numpy().tobytes() in asked.body:
            while server.paid < WINDOW - BATCH:
                threading.Event().wait(0.001)
            return Answer(400)
        return infer(asked)

    with Scripted(truth, fail_second) as server:
        teacher = ask(server)
        with pytest.raises(TeacherError, match="the server answered with status 400") as raised:
            decide(teacher, many, file)
        found = read_journal(file, "run")
        assert raised.value.answered.equal(truth.decide(many[:BATCH]))
        assert len(answers(found)) == BATCH
        assert server.paid - BATCH <= found.in_flight == raised.value.maybe_paid <= WINDOW
        teacher.close()


def test_a_server_that_rejects_everything_leaves_no_journal(truth, many, file):
    with Scripted(truth, lambda *_: Answer(401)) as server:
        teacher = ask(server)
        with pytest.raises(TeacherError, match="the server answered with status 401"):
            decide(teacher, many, file)
        teacher.close()
    assert not file.exists()


def test_a_lost_answer_counts_as_in_flight(truth, many, file):
    with Scripted(truth, lambda *_: None) as server:
        teacher = ask(server)
        with pytest.raises(TeacherError, match="no answer in 8 attempts") as raised:
            decide(teacher, many, file)
        teacher.close()
    assert BATCH <= raised.value.maybe_paid <= WINDOW
    assert raised.value.maybe_paid == read_journal(file, "run").in_flight


def test_an_interrupted_call_without_a_journal_is_not_paid_again(truth, many):
    with Scripted(truth, interrupted_at_7) as server:
        teacher = ask(server)
        with pytest.raises(KeyboardInterrupt):
            teacher.decide(many)
        assert teacher.decide(many).equal(truth.decide(many))
        assert server.paid == len(many)
        teacher.close()


class OneByOne:
    """A generator function that fails, or is interrupted, at an image."""

    def __init__(self, truth, stop: int | None = None, error: BaseException | None = None) -> None:
        self.truth, self.stop, self.error = truth, stop, error
        self.asked = 0

    def teacher(self) -> FunctionTeacher:
        def decide(rows):
            for row in rows:
                if self.asked == self.stop:
                    raise self.error
                self.asked += 1
                yield int(self.truth.decide(torch.from_numpy(row)[None]))

        return FunctionTeacher(decide, SHAPE, 10, name="slow", fingerprint="slow", max_batch=16)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (ConnectionError("gone"), TeacherError, "teacher slow raised ConnectionError on 1 image"),
        (StopIteration("x"), TeacherError, "teacher slow raised StopIteration on 1 image: x"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_each_answer_of_a_generator_is_journaled(truth, many, file, error, expected, message):
    work = OneByOne(truth, stop=37, error=error)
    with pytest.raises(expected, match=message):
        decide(work.teacher(), many, file)
    assert (
        work.asked == 37 and answers(read_journal(file, "run")) == truth.decide(many[:37]).tolist()
    )
    assert read_journal(file, "run").in_flight == 1, "the image at which it stopped"
    work.stop = None
    assert decide(work.teacher(), many, file).equal(truth.decide(many))
    assert work.asked == len(many)


def test_a_generator_is_a_teacher_without_a_journal(truth, many):
    work = OneByOne(truth, stop=20, error=ConnectionError("gone"))
    with pytest.raises(TeacherError) as raised:
        decide_checked(work.teacher(), many)
    assert raised.value.answered.equal(truth.decide(many[:20]))
    work.stop = None
    assert decide_checked(work.teacher(), many).equal(truth.decide(many))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda rows: iter(()),
            "16 classes for 16 images., got 0; .* Yield each image's class once",
        ),
        (lambda rows: iter([None]), "got NoneType for image 0; yield each image's class once"),
        (lambda rows: ([1, 2] for _ in rows), "got list for image 0"),
        (lambda rows: (0.5 for _ in rows), "got float for image 0"),
        (lambda rows: (10 for _ in rows), r"returned class 10, expected \[0, 10\)"),
        (lambda rows: iter([1] * (len(rows) + 1)), "16 classes for 16 images., got more"),
    ],
)
def test_a_generator_that_yields_no_classes_is_a_teacher_error(many, file, answer, message):
    def decide_rows(rows):
        yield from answer(rows)

    teacher = FunctionTeacher(decide_rows, SHAPE, 10, name="mine", max_batch=16)
    with pytest.raises(TeacherError, match=f"teacher mine.*{message}"):
        decide(teacher, many, file)


@pytest.mark.parametrize("at", [20, 31], ids=["amid a call", "at its end"])
@pytest.mark.parametrize("times", [0, 2], ids=["left out", "answered twice"])
def test_a_call_of_a_generator_with_a_wrong_number_of_answers_leaves_none(
    truth, many, file, times, at
):
    expected, wrong, calls = truth.decide(many), {at: times}, []

    def decide_rows(rows):
        calls.append(len(rows))
        for row in rows:
            image = int((many == torch.from_numpy(row)).flatten(1).all(1).nonzero())
            yield from [int(expected[image])] * wrong.get(image, 1)

    teacher = FunctionTeacher(decide_rows, SHAPE, 10, fingerprint="f", max_batch=16)
    with pytest.raises(WrongCountError, match="none of this call is kept") as raised:
        decide(teacher, many, file)
    assert raised.value.answered.equal(expected[:16]), "those of the call before"
    found = read_journal(file, "run")
    assert answers(found) == expected[:16].tolist() and found.in_flight == 16
    with pytest.raises(WrongCountError) as raised:
        decide_checked(teacher, many)
    assert raised.value.answered.equal(expected[:16]) and raised.value.maybe_paid == 16

    wrong.clear()
    calls.clear()
    assert decide(teacher, many, file).equal(expected)
    assert sum(calls) == len(many) - 16


@pytest.mark.parametrize("first_answers", [1, 20])
def test_a_wrong_number_of_answers_in_the_first_call_leaves_no_file(many, file, first_answers):
    def decide_rows(rows):
        yield from [0] * first_answers

    teacher = FunctionTeacher(decide_rows, SHAPE, 10, fingerprint="f", max_batch=16)
    with pytest.raises(WrongCountError):
        decide(teacher, many, file)
    found = read_journal(file, "run")
    assert answers(found) == [] and found.in_flight == 16


class Parts:
    """The stream of a teacher of one's own, in parts of two decisions."""

    window, maybe_paid = 2, 0

    def __init__(self, decisions: torch.Tensor) -> None:
        self.parts = [*decisions.split(2), decisions[:0]]

    def next_part(self) -> torch.Tensor:
        return self.parts.pop(0)

    def stop(self) -> torch.Tensor:
        return torch.empty(0, dtype=torch.int64)


@pytest.mark.parametrize("decided", [97, 99, 101, 104])
def test_a_stream_with_a_wrong_number_of_decisions_leaves_none(
    truth, many, file, decided, monkeypatch
):
    stream = Parts(torch.arange(decided) % 10)
    monkeypatch.setattr(truth, "stream", lambda images: stream, raising=False)
    with pytest.raises(WrongCountError, match=r"got (97|99|101|102) dec"):
        decide(truth, many, file)
    assert answers(read_journal(file, "run")) == []


def test_the_decisions_of_a_stream_are_classes(truth, many, file, monkeypatch):
    stream = Parts(torch.tensor([1, 2, 3, 300]))
    monkeypatch.setattr(truth, "stream", lambda images: stream, raising=False)
    with pytest.raises(TeacherError, match="returned class 300"):
        decide(truth, many, file)
    assert answers(read_journal(file, "run")) == [1, 2]


def test_progress_receives_each_part_and_may_stop_the_search(truth, many, file):
    reported = []

    def stop(answered: int) -> None:
        reported.append(answered)
        if sum(reported) >= 5 * BATCH:
            raise InterruptedError

    with ModelServer(truth) as server:
        teacher = ask(server)
        with pytest.raises(InterruptedError), Journal(file, 10, "run") as journal:
            run(search(many), teacher, Ledger(torch.tensor([1000])), stop, journal)
        teacher.close()
        assert 5 * BATCH <= server.paid == len(answers(read_journal(file, "run"))) < len(many)
    reported.clear()
    with ModelServer(truth) as server:
        teacher = ask(server)
        with Journal(file, 10, "run") as journal:
            ledger = Ledger(torch.tensor([1000]))
            run(search(many), teacher, ledger, reported.append, journal)
        teacher.close()
    assert sum(reported) == len(many)
