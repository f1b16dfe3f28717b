"""Asks a teacher the queries of one search, and records every answer that was paid for."""

from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from db3kd.progress.answers import AnswerCounter
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import UNANSWERED, Query, Result
from db3kd.querying.sent_queries import SentQueries
from db3kd.storage.journal import Journal
from db3kd.storage.memory_journal import MemoryJournal
from db3kd.teachers.base import PendingDecisions, Teacher, TeacherError, WrongCountError
from db3kd.teachers.decide import Declared, decide_async_checked, max_batch_of
from db3kd.teachers.decision_streams import open_stream

SearchTask = Generator[None, None, Result]
"""A search in progress: it pauses whenever another task may run, and returns the search's result.

See `db3kd.querying.driver.run_stepwise` and `db3kd.querying.concurrent`.
"""


AnswerJournal = Journal | MemoryJournal
"""What keeps the answers of a search, and supplies those of an earlier run of it."""


class JournalStore(Protocol):
    """A run folder, or what keeps answers in memory."""

    def journal(self, of: int | str, classes: int) -> AbstractContextManager[AnswerJournal | None]:
        """Opens the journal of a chunk, by position, or of a stage, by name."""
        ...


def open_journal(
    store: JournalStore | None, of: int | str, teacher: Teacher
) -> AbstractContextManager[AnswerJournal | None]:
    """Opens a journal of a store; yields None without a store."""
    return nullcontext() if store is None else store.journal(of, teacher.classes)


class QuerySession:
    """Answers the queries of one search without a journal.

    The first call that `sent` counts has one image, so that a teacher whose answers are invalid
    costs no more than that.

    A teacher on a GPU returns pending decisions: tensors that later work on the same stream may
    read, although they are not computed yet. The session passes them on at once, books them, and
    confirms later that each is a class. So the search waits for the device only when Python needs
    a value.

    Args:
        teacher: The teacher to query.
        ledger: Pays for the queries.
        on_answers: Called with the number of answers that were booked, so that their sum is what
            the ledger has spent, even if the search fails or is interrupted. The number is negative
            if answers turned out to be invalid and were refunded. An `AnswerCounter` counts
            answers from a journal apart.
        sent: Counts the answers, and the queries that may have been paid for without one. Those of
            an `AsyncTeacher`, a module in this process, cost nothing and are not counted.
    """

    def __init__(
        self,
        teacher: Teacher,
        ledger: Ledger,
        on_answers: Callable[[int], None] | None = None,
        sent: SentQueries | None = None,
    ) -> None:
        self._teacher = teacher
        self._declared = Declared.of(teacher)
        self._ledger = ledger
        self._on_answers = on_answers
        self._sent = SentQueries() if sent is None else sent
        self._is_free = hasattr(teacher, "decide_async")
        self._unconfirmed: deque[tuple[PendingDecisions, Tensor]] = deque()

    def answer(self, query: Query) -> SearchTask[Tensor]:
        """Asks the affordable queries of a batch.

        Returns:
            The decisions, [B] int64, and `UNANSWERED` for queries that were not affordable.
        """
        images = query.images.view(len(query.images), *self._declared.image_shape)
        rows = None if query.prepaid else self._ledger.affordable(query.accounts)
        if rows is None:
            return (yield from self._decide(images, query.accounts))
        decisions = torch.full_like(query.accounts, UNANSWERED)
        decisions[rows] = yield from self._decide(images[rows], query.accounts[rows])
        return decisions

    def confirm_done(self) -> None:
        """Confirms the decisions that are already computed, without waiting.

        Raises:
            TeacherError: If one of them is not a class. Its query is refunded, and so are all
                queries after it, including those of later batches.
        """
        while self._unconfirmed and self._unconfirmed[0][0].done():
            self._confirm_first()

    def confirm_all(self) -> None:
        """Waits for all decisions and confirms them.

        Raises:
            TeacherError: See `confirm_done`.
        """
        while self._unconfirmed:
            self._confirm_first()

    def _decide(self, images: Tensor, accounts: Tensor) -> SearchTask[Tensor]:
        """Asks about images that are paid for."""
        yield from ()  # a task that never pauses
        if self._is_free or self._sent.begun or len(accounts) <= 1:
            return self._decide_once(images, accounts)
        parts = slice(1), slice(1, None)
        return torch.cat([self._decide_once(images[part], accounts[part]) for part in parts])

    def _decide_once(self, images: Tensor, accounts: Tensor) -> Tensor:
        """Asks in one call of the session."""
        try:
            pending = self._ask_counting_lost(images, accounts)
            if pending.done():
                decisions = self._await_and_book(pending, accounts)
            else:
                self._ledger.book(accounts)
                self._unconfirmed.append((pending, accounts))
                decisions = pending.decisions
        except TeacherError as error:
            self._report(len(error.answered))
            raise
        self._report(len(decisions))
        return decisions

    def _ask_counting_lost(self, images: Tensor, accounts: Tensor) -> PendingDecisions:
        """Asks the teacher, and counts the answers that are lost, because nothing keeps them."""
        try:
            return self._ask(images, accounts, self._sent.lose)
        except BaseException as error:
            lost = len(accounts)  # for example, at an interrupt
            if isinstance(error, TeacherError):
                lost = _at_most(error.maybe_paid, lost - len(error.answered))
            if not self._is_free:
                self._sent.lose(lost)
            raise

    def _ask(
        self,
        images: Tensor,
        accounts: Tensor,
        on_lost: Callable[[int], None] | None = None,
    ) -> PendingDecisions:
        """Sends images to the teacher without waiting for its decisions."""
        try:
            return decide_async_checked(self._teacher, images, on_lost, self._declared)
        except TeacherError as error:
            self._ledger.book(accounts[: len(error.answered)])
            raise

    def _await_and_book(self, pending: PendingDecisions, accounts: Tensor) -> Tensor:
        """Waits for decisions and books the valid ones."""
        try:
            decisions = pending.result()
        except TeacherError as error:
            self._ledger.book(accounts[: len(error.answered)])
            raise
        self._ledger.book(accounts)
        return decisions

    def _confirm_first(self) -> None:
        """Waits for the first booked decisions, and refunds all from an invalid one on."""
        pending, accounts = self._unconfirmed.popleft()
        try:
            pending.result()
        except TeacherError as error:
            later = [unconfirmed for _, unconfirmed in self._unconfirmed]
            self._unconfirmed.clear()
            refunded = torch.cat([accounts[len(error.answered) :], *later])
            self._ledger.refund(refunded)
            self._report(-len(refunded))
            raise

    def _report(self, answers: int) -> None:
        if not self._is_free:
            self._sent.answered += answers
        if answers and self._on_answers is not None:
            self._on_answers(answers)


class JournaledSession(QuerySession):
    """Answers the queries of one search and keeps each answer in a journal.

    The journal has to hold an answer before the next call. So the session waits for
    each call of the teacher, and copies its decisions to the CPU once.

    If a call fails, the queries that may have been paid for stay noted as asked. The first call of
    a run has one image. (An `AsyncTeacher` is a module in this process: its calls cost nothing, and
    its answers are valid.)

    Args:
        teacher: The teacher to query.
        ledger: Pays for the queries.
        journal: Answers the first queries of the search, and keeps the answers to all others.
        on_answers: See `QuerySession`. It is called when the answers are in the journal.
    """

    def __init__(
        self,
        teacher: Teacher,
        ledger: Ledger,
        journal: AnswerJournal,
        on_answers: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(teacher, ledger, on_answers)
        self._journal = journal

    def _decide(self, images: Tensor, accounts: Tensor) -> SearchTask[Tensor]:
        """Takes answers from the journal, and asks the teacher for the rest."""
        known = self._journal.take(accounts)
        count = len(known)
        self._ledger.book(accounts[:count])
        self._report_known(count)
        if count == len(accounts):
            return known
        decisions = [known]
        if self._journal.begins_run and not self._is_free:
            first, count = slice(count, count + 1), count + 1
            decisions.append((yield from self._ask_about(images[first], accounts[first])))
        if count < len(accounts):
            decisions.append((yield from self._ask_about(images[count:], accounts[count:])))
        self._journal.sync()
        return torch.cat(decisions)

    def _report_known(self, answers: int) -> None:
        if answers and isinstance(self._on_answers, AnswerCounter):
            self._on_answers.known(answers)
        else:
            self._report(answers)

    def _ask_about(self, images: Tensor, accounts: Tensor) -> SearchTask[Tensor]:
        if hasattr(self._teacher, "stream"):
            return self._stream(images, accounts).to(accounts.device)
        return (yield from self._call(images, accounts))

    def _call(self, images: Tensor, accounts: Tensor) -> SearchTask[Tensor]:
        """Asks in calls of at most `max_batch` images, and keeps the answers to each call."""
        decisions = []
        while len(accounts):
            size = max_batch_of(self._teacher)
            decisions.append((yield from self._call_once(images[:size], accounts[:size])))
            images, accounts = images[size:], accounts[size:]
        return torch.cat(decisions)

    def _call_once(self, images: Tensor, accounts: Tensor) -> SearchTask[Tensor]:
        self._journal.ask(accounts)
        try:
            pending = self._ask(images, accounts)
            try:
                if not pending.done():
                    yield
            finally:  # the answers are paid for even if the task is closed at this pause
                decisions = self._await_and_book(pending, accounts)
                self._journal.answer(decisions)
                self._report(len(decisions))
        except TeacherError as error:
            rest = accounts[len(error.answered) :]
            error.maybe_paid = _at_most(error.maybe_paid, len(rest))
            self._journal.answer(error.answered, rest[: error.maybe_paid])
            self._report(len(error.answered))
            raise
        return decisions

    def _stream(self, images: Tensor, accounts: Tensor) -> Tensor:
        """Asks a teacher whose decisions arrive in parts, and keeps each part.

        The stream sends at most `window` images beyond those whose decisions are kept. If the
        stream ends early, the decisions that are still in flight are awaited and kept too.
        """
        self._declared.check(self._teacher)
        stream = open_stream(self._teacher, images, self._journal.lose)
        record = _StreamRecord(self._journal, self._ledger, self._report, accounts)
        parts = []
        try:
            self._journal.ask(accounts[: stream.window])
            while len(part := stream.next_part()):
                parts.append(part)
                record.keep(part, stream.window)
            return torch.cat(parts)
        except TeacherError as error:
            in_flight = len(accounts) - len(error.answered)
            if isinstance(error, WrongCountError):
                record.retract(len(error.answered))
            else:
                in_flight = min(stream.window, in_flight)
            error.maybe_paid = _at_most(error.maybe_paid, in_flight)
            record.finish(error.answered, error.maybe_paid)
            raise
        except BaseException:
            record.finish(stream.stop(), stream.maybe_paid)
            raise


class _StreamRecord:
    """Keeps the decisions of one stream in a journal, books them and reports them.

    Args:
        journal: Keeps the decisions; it has recorded that the first queries are asked.
        ledger: Pays for the queries.
        report: Called with the number of decisions that were booked; see `QuerySession`.
        accounts: [N] int64, the accounts of the stream's queries.
    """

    def __init__(
        self,
        journal: AnswerJournal,
        ledger: Ledger,
        report: Callable[[int], None],
        accounts: Tensor,
    ) -> None:
        self._journal, self._ledger, self._report = journal, ledger, report
        self._accounts = accounts
        self._written_before = journal.written
        self._booked = 0

    @property
    def _kept(self) -> int:
        """The number of decisions in the journal.

        An interrupt may come before or after any write, so only the journal knows it.
        """
        return self._journal.written - self._written_before

    def keep(self, part: Tensor, window: int) -> None:
        """Keeps the next decisions, and records that the `window` queries after them are asked."""
        end = self._kept + len(part)
        self._journal.answer(part, self._accounts[end : end + window])
        self._ledger.book(self._accounts[self._booked : self._booked + len(part)])
        self._booked += len(part)
        self._report(len(part))

    def retract(self, count: int) -> None:
        """Takes back all decisions but the first `count`, because they cannot be trusted."""
        withdrawn = self._kept - count
        if withdrawn > 0:
            self._journal.retract(withdrawn)
            if (kept := self._kept) < count:
                self._journal.ask(self._accounts[kept:count])
        self._ledger.refund(self._accounts[count : self._booked])
        self._report(min(0, count - self._booked))
        self._booked = min(self._booked, count)

    def finish(self, answered: Tensor, maybe_paid: int) -> None:
        """Keeps the decisions of a stream that ended early.

        Args:
            answered: [n] int64, all decisions of the stream up to the first gap.
            maybe_paid: How many of the queries after that may have been paid for.
        """
        kept, count = self._kept, len(answered)
        self._ledger.book(self._accounts[self._booked : count])
        self._journal.answer(answered[kept:], self._accounts[count : count + maybe_paid])
        self._report(count - self._booked)


def _at_most(maybe_paid: int | None, asked: int) -> int:
    """Returns how many of the unanswered queries of a failed call may have been paid for."""
    return asked if maybe_paid is None else min(maybe_paid, asked)
