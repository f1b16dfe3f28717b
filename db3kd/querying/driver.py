"""Runs a search against a teacher, and keeps the ledger: the only place that spends queries.

A teacher on a GPU answers while the search goes on: its decisions are a place in memory that what
is queued behind it may read. So a search without a journal waits for the device only where it must
know a number itself, and what the teacher says of its answers (that they are none, say) is heard
afterwards. A journal has to have each answer before the next is asked for: then the answers of each
call are waited for, and copied to the CPU, once.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from db3kd.querying.ledger import Ledger
from db3kd.querying.search import (
    UNANSWERED,
    Query,
    Result,
    Search,
    fitting_batch_size,
    query_in_batches,
)
from db3kd.storage.journal import Journal
from db3kd.teachers.base import (
    PendingDecisions,
    Teacher,
    TeacherError,
    decide_async_checked,
    open_stream,
)

StepwiseSearch = Generator[None, None, Result]
"""Pauses wherever others may go on, and returns a result; see db3kd.querying.concurrent."""


def run(
    search: Search[Result],
    teacher: Teacher,
    ledger: Ledger,
    on_answers: Callable[[int], None] | None = None,
    journal: Journal | None = None,
) -> Result:
    """Answers a search's queries by the teacher until the search returns.

    A query that its account cannot pay for is not asked; its decision is UNANSWERED. Whatever the
    teacher has answered is booked, also when it fails in the middle of a batch.

    on_answers: called with the number of queries answered after each batch, or each part of a
    stream. journal: answers that
    were paid for before, which are booked but not asked again; all others are added to it. So a
    process that is killed loses the answers of one call of the teacher at most, or of the requests
    in flight (`batch * in_flight`) if the teacher streams its answers.

    Raises TeacherError where the teacher raises or answers anything but a class an image, and
    OSError or ValueError where the journal cannot be written, or is that of another search.
    """
    return run_to_end(run_stepwise(search, teacher, ledger, on_answers, journal))


def decide_all(
    teacher: Teacher,
    read: Callable[[Tensor], Tensor],
    index: Tensor,
    query_batch_size: int = 2048,
    *,
    on_answers: Callable[[int], None] | None = None,
    journal: Journal | None = None,
) -> Tensor:
    """Asks the teacher for the class of each image: exactly one query an image.

    Example:
        >>> decisions = decide_all(teacher, images.read, torch.arange(len(images)))

    Args:
        teacher: The teacher to ask.
        read: Returns the images with the given numbers: `[n] int64` to `[n, *image_shape]`
            float32. It is called once for each batch.
        index: The numbers of the images, `[N] int64`.
        query_batch_size: The most images in a batch; fewer if they exceed 256 MiB.
        on_answers: See `run`.
        journal: See `run`.

    Returns:
        The classes in the order of `index`, `[N] int64` on the CPU.

    Raises:
        TeacherError: If the teacher fails. `error.answered` belongs to the failed batch alone.
    """
    size = fitting_batch_size(query_batch_size, teacher.image_shape)
    account, budget = torch.zeros_like(index), torch.tensor([len(index)])
    search = query_in_batches(lambda batch: read(index[batch]), account, size, prepaid=True)
    return run(search, teacher, Ledger(budget), on_answers, journal).cpu()


def run_to_end(flight: StepwiseSearch[Result]) -> Result:
    """What a flight returns, flown to its end."""
    while True:
        try:
            next(flight)
        except StopIteration as finished:
            return finished.value


def run_stepwise(
    search: Search[Result],
    teacher: Teacher,
    ledger: Ledger,
    on_answers: Callable[[int], None] | None = None,
    journal: Journal | None = None,
) -> StepwiseSearch[Result]:
    """As `run`, but pauses after each batch, with its answers there or under way.

    Closed before its end, it keeps the answers that are under way: they are booked, and in the
    journal.
    """
    session = _QuerySession(teacher, ledger, journal, on_answers)
    decisions = None
    while True:
        try:
            query = next(search) if decisions is None else search.send(decisions)
        except StopIteration as finished:
            session.collect_all()
            ledger.check()
            return finished.value
        session.collect_done()
        decisions, asked = yield from session.answer(query)
        if on_answers is not None:
            on_answers(asked - session.reported)
        session.reported = 0
        yield


@dataclass
class _QuerySession:
    """Where the queries of one search are answered and booked.

    dispatched: answers that were handed on before the teacher could say whether they are any, with
    the accounts that paid. told: queries of this batch that `on_answers` knows of.
    """

    teacher: Teacher
    ledger: Ledger
    journal: Journal | None
    on_answers: Callable[[int], None] | None = None
    reported: int = 0
    dispatched: list[tuple[PendingDecisions, Tensor]] = field(default_factory=list)

    def answer(self, query: Query) -> StepwiseSearch[tuple[Tensor, int]]:
        """The decisions, UNANSWERED where the budget refused, and how many it did not refuse."""
        images = query.images.view(len(query.images), *self.teacher.image_shape)
        rows = None if query.prepaid else self.ledger.affordable(query.accounts)
        if rows is None:
            return (yield from self._decide(images, query.accounts)), len(images)
        decisions = torch.full_like(query.accounts, UNANSWERED)
        decisions[rows] = yield from self._decide(images[rows], query.accounts[rows])
        return decisions, len(rows)

    def collect_done(self) -> None:
        """Hears of the answers that are there by now, in their order."""
        while self.dispatched and self.dispatched[0][0].done():
            self._confirm(*self.dispatched.pop(0))

    def collect_all(self) -> None:
        """Waits for all answers."""
        while self.dispatched:
            self._confirm(*self.dispatched.pop(0))

    def _decide(self, images: Tensor, accounts: Tensor) -> StepwiseSearch[Tensor]:
        """The answers to queries that are paid for, from the journal while it has any."""
        if self.journal is None:
            return self._dispatch(images, accounts)
        known = self.journal.take(accounts)
        self.ledger.book(accounts[: len(known)])
        if len(known) == len(accounts):
            return known
        if hasattr(self.teacher, "stream"):
            new = slice(len(known), None)
            answered = self._stream(images[new], accounts[new])
            self.journal.sync()
            return torch.cat([known, answered.to(known.device)])
        answers = [known]
        for start in range(len(known), len(accounts), self.teacher.max_batch):
            call = slice(start, start + self.teacher.max_batch)
            answers.append((yield from self._record_call(images[call], accounts[call])))
        self.journal.sync()
        return torch.cat(answers)

    def _dispatch(self, images: Tensor, accounts: Tensor) -> Tensor:
        answers = self._launch(images, accounts)
        if answers.done():
            return self._collect(answers, accounts)
        self.ledger.book(accounts)
        self.dispatched.append((answers, accounts))
        return answers.decisions

    def _record_call(self, images: Tensor, accounts: Tensor) -> StepwiseSearch[Tensor]:
        """Asks one call's worth, and keeps what comes in the journal."""
        self.journal.ask(accounts)
        try:
            answers = self._launch(images, accounts)
            try:
                if not answers.done():
                    yield
            finally:  # also where the flight ends here: the answers are paid for
                decisions = self._collect(answers, accounts)
                self.journal.answer(decisions)
        except TeacherError as error:
            self.journal.answer(error.answered)
            raise
        return decisions

    def _stream(self, images: Tensor, accounts: Tensor) -> Tensor:
        """Keeps each decision in the journal before anything is asked beyond the window.

        Whatever ends it, what is in flight is waited for and kept as well.
        """
        stream = open_stream(self.teacher, images)
        written = self.journal.written
        parts = []
        try:
            self.journal.ask(accounts[: stream.window])
            while len(part := stream.next_part()):
                parts.append(part)
                done = self.journal.written - written + len(part)
                self.journal.answer(part, accounts[done : done + stream.window])
                if self.on_answers is not None:
                    self.reported += len(part)
                    self.on_answers(len(part))
            self.ledger.book(accounts)
            return torch.cat(parts)
        except TeacherError as error:
            self._keep_rest(error.answered, error.maybe_paid, accounts, written)
            raise
        except BaseException:
            self._keep_rest(stream.stop(), stream.maybe_paid, accounts, written)
            raise

    def _keep_rest(self, answered: Tensor, maybe_paid: int, accounts: Tensor, written: int) -> None:
        """Keeps what a stream had answered when it ended, and notes what may be paid for besides.

        answered: int64 [n], the decisions from the first of its images on. written: `written` of
        the journal when the stream began: an interrupt may come before or after any write.
        """
        done, count = self.journal.written - written, len(answered)
        self.ledger.book(accounts[:count])
        self.journal.answer(answered[done:], accounts[count : count + maybe_paid])

    def _launch(self, images: Tensor, accounts: Tensor) -> PendingDecisions:
        try:
            return decide_async_checked(self.teacher, images)
        except TeacherError as error:
            self.ledger.book(accounts[: len(error.answered)])
            raise

    def _collect(self, answers: PendingDecisions, accounts: Tensor) -> Tensor:
        """Waits for answers, and books them."""
        try:
            decisions = answers.result()
        except TeacherError as error:
            self.ledger.book(accounts[: len(error.answered)])
            raise
        self.ledger.book(accounts)
        return decisions

    def _confirm(self, answers: PendingDecisions, accounts: Tensor) -> None:
        """What the teacher says of answers that are booked already."""
        try:
            answers.result()
        except TeacherError as error:
            self.ledger.refund(accounts[len(error.answered) :])
            raise
