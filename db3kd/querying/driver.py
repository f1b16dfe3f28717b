"""Runs searches in a query session, and decides the images of a set."""

from collections.abc import Callable

import torch
from torch import Tensor

from db3kd.querying.ledger import Ledger
from db3kd.querying.search import Result, Search, fitting_batch_size, query_in_batches
from db3kd.querying.sent_queries import SentQueries, counting
from db3kd.querying.session import AnswerJournal, JournaledSession, QuerySession, SearchTask
from db3kd.teachers.base import Teacher

FIRST_CHECKED = 1_000
"""Number of decisions after which `decide_all` calls `check_first`.

If this many independent random images are all in one class, the other classes together hold less
than 0.5 % of the images, with 99.3 % confidence.
"""


def run(
    search: Search[Result],
    teacher: Teacher,
    ledger: Ledger,
    on_answers: Callable[[int], None] | None = None,
    journal: AnswerJournal | None = None,
    sent: SentQueries | None = None,
) -> Result:
    """Runs a search to its end and returns its result.

    Example:
        >>> ledger = Ledger(torch.tensor([1]))
        >>> run(class_of(image), teacher, ledger)  # see db3kd.querying.search.Search
        3

    Args:
        search: The search to run.
        teacher: Answers the queries.
        ledger: Pays for the queries. A query that its account cannot afford is not asked, and its
            decision is `UNANSWERED`. Each answer is booked, even if the teacher fails afterwards.
        on_answers: Called with the number of answers that were booked, after each call of the
            teacher or part of a stream. Their sum is always what the ledger has spent, so the
            number is negative if answers were refunded.
        journal: Holds answers from an earlier run of the same search, which are booked but not
            sent again, and keeps all others. If the process is killed, at most the answers of one
            call of the teacher are lost, or those in flight if the teacher streams its answers.
        sent: Without a journal, counts the answers, and the queries that may have been paid for
            without one. By default, a warning is logged if there are any of these, and an error
            gets a note with both numbers.

    Raises:
        TeacherError: If the teacher fails, or does not return one class per image.
        OSError: If the journal cannot be written.
        ValueError: If the journal belongs to another search.
    """
    return run_until_complete(run_stepwise(search, teacher, ledger, on_answers, journal, sent))


def run_stepwise(
    search: Search[Result],
    teacher: Teacher,
    ledger: Ledger,
    on_answers: Callable[[int], None] | None = None,
    journal: AnswerJournal | None = None,
    sent: SentQueries | None = None,
) -> SearchTask[Result]:
    """Runs a search with pauses, in which other searches may run.

    The task pauses after each batch and, with a journal, while it waits for a call of the teacher.
    If it is closed at a pause, the answers that are in flight are booked and journaled first. The
    arguments are those of `run`.

    Returns:
        A task for `run_until_complete` or `db3kd.querying.concurrent.run_concurrently`.
    """
    if journal is not None:
        journaled = JournaledSession(teacher, ledger, journal, on_answers)
        return (yield from _steps(search, journaled, ledger))
    with counting(sent) as counter:
        session = QuerySession(teacher, ledger, on_answers, counter)
        return (yield from _steps(search, session, ledger))


def _steps(search: Search[Result], session: QuerySession, ledger: Ledger) -> SearchTask[Result]:
    """Runs a search in a session, which answers its queries."""
    decisions = None
    while True:
        try:
            query = next(search) if decisions is None else search.send(decisions)
        except StopIteration as finished:
            session.confirm_all()
            ledger.check()
            return finished.value
        session.confirm_done()
        decisions = yield from session.answer(query)
        del query  # its images make room for the next ones
        yield


def run_until_complete(task: SearchTask[Result]) -> Result:
    """Runs a task to its end and returns its result."""
    while True:
        try:
            next(task)
        except StopIteration as finished:
            return finished.value


def decide_all(
    teacher: Teacher,
    read: Callable[[Tensor], Tensor],
    index: Tensor,
    query_batch_size: int = 2048,
    *,
    on_answers: Callable[[int], None] | None = None,
    journal: AnswerJournal | None = None,
    check_first: Callable[[Tensor], None] | None = None,
    sent: SentQueries | None = None,
) -> Tensor:
    """Asks the teacher for the class of each image: exactly one query per image.

    Example:
        >>> decisions = decide_all(teacher, images.read, torch.arange(len(images)))

    Args:
        teacher: The teacher to query.
        read: Returns the images with the given numbers: [n] int64 to [n, *image_shape]
            float32. It is called once for each batch.
        index: The numbers of the images, [N] int64.
        query_batch_size: Maximum number of images in a batch, which also has at most 256 MiB.
        on_answers: See `run`.
        journal: See `run`.
        check_first: Called once with the first `FIRST_CHECKED` decisions, before more images are
            queried; not called if there are no more, or if the journal holds answers for some
            of them, because an earlier process then continued. It may raise an error. Batches are
            split after these decisions, and a journal replays batches as they were, so a run that
            may be resumed with another check always passes one.
        sent: See `run`.

    Returns:
        The classes in the order of `index`, [N] int64 on the CPU.

    Raises:
        TeacherError: If the teacher fails. `error.answered` covers the failed batch only.
    """
    size = fitting_batch_size(query_batch_size, teacher.image_shape)

    def decide(rows: Tensor) -> Search[Tensor]:
        accounts = torch.zeros_like(rows)
        return query_in_batches(lambda batch: read(rows[batch]), accounts, size, prepaid=True)

    def decide_and_check(check: Callable[[Tensor], None]) -> Search[Tensor]:
        first, others = index[:FIRST_CHECKED], index[FIRST_CHECKED:]
        decisions = yield from decide(first)
        if not len(others):
            return decisions
        if journal is None or not journal.has_more:
            check(decisions.cpu())
        return torch.cat([decisions, (yield from decide(others))])

    search = decide(index) if check_first is None else decide_and_check(check_first)
    budget = Ledger(torch.tensor([len(index)]))
    return run(search, teacher, budget, on_answers, journal, sent).cpu()
