import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from teachers_analytic import ConstantTeacher, CountingTeacher, LinearTeacher, RaisingTeacher

from db3kd.progress.answers import AnswerCounter
from db3kd.querying.driver import FIRST_CHECKED, decide_all, run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import UNANSWERED, Query
from db3kd.storage.journal import Journal
from db3kd.storage.journal_format import read_journal
from db3kd.teachers.base import TeacherError


def teacher_of_two(max_batch=512):
    return LinearTeacher(
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2), max_batch=max_batch
    )


def queries(*batches):
    """A search that asks one query for each account of each batch, and returns all decisions."""
    received = []
    for accounts in batches:
        accounts = torch.tensor(accounts, dtype=torch.int64)
        received.append((yield Query(torch.rand(len(accounts), 2), accounts)))
    return received


def test_a_search_without_queries_spends_nothing():
    ledger = Ledger(torch.tensor([3]))
    assert run(queries(), teacher_of_two(), ledger) == []
    assert ledger.spent.tolist() == [0]


def test_a_search_gets_the_teachers_decisions_in_order():
    def search():
        return (yield Query(torch.tensor([[0.9, 0.1], [0.1, 0.9]]), torch.tensor([0, 0])))

    assert run(search(), teacher_of_two(), Ledger(torch.tensor([2]))).tolist() == [0, 1]


def test_queries_beyond_the_budget_are_refused_in_order():
    teacher, ledger = CountingTeacher(teacher_of_two()), Ledger(torch.tensor([2, 1]))
    (decisions,) = run(queries([0, 1, 0, 1, 0]), teacher, ledger)
    assert (decisions == UNANSWERED).tolist() == [False, False, False, True, True]
    assert ledger.spent.tolist() == [2, 1] and teacher.total == 3


@pytest.mark.parametrize("query_batch_size", [1, 3, 100])
def test_all_images_are_decided_with_one_query_each(query_batch_size):
    images = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    index, batches, reported = torch.tensor([7, 3, 3, 19, 0]), [], []

    def read(numbers):
        batches.append(len(numbers))
        return images[numbers]

    teacher = CountingTeacher(teacher_of_two())
    decisions = decide_all(teacher, read, index, query_batch_size, on_answers=reported.append)
    assert decisions.equal(teacher_of_two().decide(images[index]))
    assert max(batches) == min(query_batch_size, 5)
    assert reported[0] == 1 and sum(reported) == 5
    assert teacher.total == sum(batches) == 5


def test_no_images_cost_no_query():
    assert decide_all(teacher_of_two(), torch.rand(3, 2).__getitem__, torch.arange(0)).shape == (0,)


@pytest.mark.parametrize("count", [FIRST_CHECKED, FIRST_CHECKED + 700])
def test_the_first_decisions_are_checked_before_more_are_paid_for(count, tmp_path):
    images = torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
    checked: list[torch.Tensor] = []
    expected = teacher_of_two().decide(images)
    index = torch.arange(count)

    decisions = decide_all(
        teacher_of_two(), images.__getitem__, index, 64, check_first=checked.append
    )

    assert decisions.equal(expected)
    if count <= FIRST_CHECKED:
        assert not checked, "nothing more would be paid for"
        return
    assert len(checked) == 1 and checked[0].equal(expected[:FIRST_CHECKED])

    def refuse(_: torch.Tensor) -> None:
        raise ValueError("useless")

    counting = CountingTeacher(teacher_of_two())
    for _ in range(2):  # the journal keeps what was paid for
        with Journal(tmp_path / "a.journal", 2, "run") as journal, pytest.raises(ValueError):
            decide_all(counting, images.__getitem__, index, 64, journal=journal, check_first=refuse)
        assert counting.total == FIRST_CHECKED


def test_deciding_resumes_where_its_journal_ends(tmp_path):
    images = torch.rand(9, 2, generator=torch.Generator().manual_seed(0))
    counting = CountingTeacher(teacher_of_two(max_batch=2))
    with pytest.raises(TeacherError), Journal(tmp_path / "a", 2, "run") as journal:
        failing = RaisingTeacher(counting, 5)
        decide_all(failing, images.__getitem__, torch.arange(9), 4, journal=journal)
    new, known = [], []
    with Journal(tmp_path / "a", 2, "run") as journal:
        decisions = decide_all(
            counting, images.__getitem__, torch.arange(9), 4,
            on_answers=AnswerCounter(new.append, known.append), journal=journal,
        )  # fmt: skip
    assert decisions.equal(teacher_of_two().decide(images)) and counting.total == 9
    assert (sum(new), sum(known)) == (5, 4), "answers of the journal are counted apart"


@given(
    limits=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    batches=st.lists(st.lists(st.integers(0, 4), max_size=12), max_size=4),
    max_batch=st.integers(1, 5),
)
def test_the_ledger_equals_what_the_teacher_saw_and_stays_within_its_limits(
    limits, batches, max_batch
):
    batches = [[account % len(limits) for account in batch] for batch in batches]
    teacher, ledger = CountingTeacher(teacher_of_two(max_batch)), Ledger(torch.tensor(limits))
    received = run(queries(*batches), teacher, ledger)
    asked = [sum(batch.count(account) for batch in batches) for account in range(len(limits))]
    assert ledger.spent.tolist() == [min(pair) for pair in zip(limits, asked, strict=True)]
    assert teacher.total == int(ledger.spent.sum())
    assert sum(int((decisions != UNANSWERED).sum()) for decisions in received) == teacher.total


def test_a_search_that_is_marks_too_many_queries_as_prepaid_is_an_error():
    def search():
        yield Query(torch.rand(3, 2), torch.tensor([0, 0, 0]), prepaid=True)

    with pytest.raises(RuntimeError, match="one account spent 1 more than its limit"):
        run(search(), teacher_of_two(), Ledger(torch.tensor([2])))


def test_answers_before_a_failure_in_the_same_batch_are_booked():
    ledger, reported = Ledger(torch.tensor([4, 4])), []
    failing = RaisingTeacher(teacher_of_two(max_batch=1), 3)
    with pytest.raises(TeacherError, match="the line is dead"):
        run(queries([0, 1, 0, 1]), failing, ledger, reported.append)
    assert ledger.spent.tolist() == [2, 1] and sum(reported) == 3


def fixed_queries(*batches):
    """As `queries`, but with the same images in every search."""
    generator = torch.Generator().manual_seed(0)
    received = []
    for accounts in batches:
        images = torch.rand(len(accounts), 2, generator=generator)
        received.append((yield Query(images, torch.tensor(accounts, dtype=torch.int64))).tolist())
    return received


@given(
    limits=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    batches=st.lists(st.lists(st.integers(0, 2), max_size=8), max_size=5),
    stops=st.lists(st.integers(0, 12), max_size=3),
    max_batch=st.integers(1, 4),
)
def test_a_search_resumes_where_its_journal_ends(
    tmp_path_factory, limits, batches, stops, max_batch
):
    batches = [[account % len(limits) for account in batch] for batch in batches]
    limits, journal = torch.tensor(limits), tmp_path_factory.mktemp("run") / "a.journal"
    whole_ledger, whole_teacher = Ledger(limits), CountingTeacher(teacher_of_two(max_batch))
    whole = run(fixed_queries(*batches), whole_teacher, whole_ledger)

    teacher = CountingTeacher(teacher_of_two(max_batch))
    for stop in stops:
        stopped, reported = Ledger(limits), [0]
        with contextlib.suppress(TeacherError), Journal(journal, 2, "run") as kept:
            failing = RaisingTeacher(teacher, stop)
            run(fixed_queries(*batches), failing, stopped, reported.append, kept)
        assert sum(reported) == int(stopped.spent.sum()), "what is shown is what was booked"
    ledger = Ledger(limits)
    with Journal(journal, 2, "run") as kept:
        assert run(fixed_queries(*batches), teacher, ledger, journal=kept) == whole

    assert ledger.spent.tolist() == whole_ledger.spent.tolist()
    assert teacher.per_image == whole_teacher.per_image, "no query is asked twice"


def test_the_journal_says_how_many_queries_were_in_flight_at_an_interrupt(tmp_path):
    teacher = RaisingTeacher(teacher_of_two(max_batch=1), 4, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "a", 2, "run") as journal:
        run(queries([0, 1], [0, 1, 1]), teacher, Ledger(torch.tensor([9, 9])), journal=journal)
    found = read_journal(tmp_path / "a", "run")
    assert len(found.calls) == 4 and found.in_flight == 1


def test_another_search_is_not_answered_from_the_journal(tmp_path):
    ledger = Ledger(torch.tensor([9, 9]))
    with Journal(tmp_path / "a", 2, "run") as journal:
        run(queries([0, 1]), teacher_of_two(), ledger, journal=journal)
    with (
        pytest.raises(ValueError, match="expected the journal of the same search"),
        Journal(tmp_path / "a", 2, "run") as journal,
    ):
        run(queries([1, 0]), teacher_of_two(), ledger, journal=journal)


def test_the_answers_of_each_batch_are_reported():
    reported = []
    run(
        queries([0, 0], [0, 0]),
        ConstantTeacher(0, (2,), 2),
        Ledger(torch.tensor([3])),
        reported.append,
    )
    assert reported == [1, 1, 1]  # the first call has one image


def test_an_invalid_first_answer_costs_one_query():
    teacher = CountingTeacher(ConstantTeacher(9, (2,), 2))
    with pytest.raises(TeacherError):
        decide_all(teacher, torch.rand(20, 2).__getitem__, torch.arange(20))
    assert teacher.total == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (torch.tensor([1.0]), r"limits: expected int64 \[A\], got \[1\] torch.float32"),
        (torch.tensor([[1]]), r"limits: expected int64 \[A\], got \[1, 1\]"),
        (torch.tensor([-1]), "limits: expected at least 0 queries, got -1"),
    ],
)
def test_wrong_limits_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Ledger(limits)
