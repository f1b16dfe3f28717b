"""Runs a search against a teacher, and keeps the ledger: the only place that spends queries."""

from collections.abc import Callable

import torch
from torch import Tensor

from db3kd.journal import Journal
from db3kd.search import UNANSWERED, Query, Result, Search
from db3kd.teachers.base import Teacher, TeacherError, decide_checked


class Ledger:
    """What each account may spend and has spent, in queries.

    limits: [A] int64, at least 0.
    """

    def __init__(self, limits: Tensor) -> None:
        if limits.ndim != 1 or limits.dtype != torch.int64:
            raise ValueError(f"limits: expected int64 [A], got {list(limits.shape)} {limits.dtype}")
        if limits.numel() and int(limits.min()) < 0:
            raise ValueError(f"limits: expected at least 0 queries, got {int(limits.min())}")
        self.limits = limits
        self.spent = torch.zeros_like(limits)

    @property
    def remaining(self) -> Tensor:
        """[A] int64, what each account may still spend."""
        return self.limits - self.spent

    def covers(self, accounts: Tensor) -> Tensor:
        """[B] bool: which queries, taken in order, the accounts can pay for."""
        wanted = torch.bincount(accounts, minlength=len(self.limits))
        remaining = self.remaining
        if bool((wanted <= remaining).all()):
            return torch.ones_like(accounts, dtype=torch.bool)
        # The rank of a query among its account's queries in this batch.
        order = torch.argsort(accounts, stable=True)
        first = wanted.cumsum(0) - wanted
        rank = torch.empty_like(accounts)
        rank[order] = torch.arange(len(accounts), device=accounts.device) - first[accounts[order]]
        return rank < remaining[accounts]

    def book(self, accounts: Tensor) -> None:
        """Counts one answered query for each entry of accounts."""
        self.spent += torch.bincount(accounts, minlength=len(self.limits))


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

    on_answers: called with the number of queries answered after each batch. journal: answers that
    were paid for before, which are booked but not asked again; all others are added to it. So a
    process that is killed loses the answers of one call of the teacher at most.

    Raises TeacherError where the teacher raises or answers anything but a class an image, and
    OSError or ValueError where the journal cannot be written, or is that of another search.
    """
    decisions = None
    while True:
        try:
            query = next(search) if decisions is None else search.send(decisions)
        except StopIteration as finished:
            return finished.value
        decisions = _answer(query, teacher, ledger, journal)
        if on_answers is not None:
            on_answers(int((decisions != UNANSWERED).sum()))


def _answer(query: Query, teacher: Teacher, ledger: Ledger, journal: Journal | None) -> Tensor:
    images = query.images.view(len(query.images), *teacher.image_shape)
    covered = ledger.covers(query.accounts)
    if bool(covered.all()):
        return _decide(images, query.accounts, teacher, ledger, journal)
    decisions = torch.full_like(query.accounts, UNANSWERED)
    decisions[covered] = _decide(images[covered], query.accounts[covered], teacher, ledger, journal)
    return decisions


def _decide(
    images: Tensor, accounts: Tensor, teacher: Teacher, ledger: Ledger, journal: Journal | None
) -> Tensor:
    """The answers to queries that are paid for: from the journal while it has any, then asked."""
    if journal is None:
        return _ask(images, accounts, teacher, ledger)
    known = journal.take(accounts)
    ledger.book(accounts[: len(known)])
    if len(known) == len(accounts):
        return known
    answers = [known]
    for start in range(len(known), len(accounts), teacher.max_batch):
        call = slice(start, start + teacher.max_batch)
        journal.ask(accounts[call])
        try:
            answers.append(_ask(images[call], accounts[call], teacher, ledger))
        except TeacherError as error:
            journal.answer(error.answered)
            raise
        journal.answer(answers[-1])
    journal.sync()
    return torch.cat(answers)


def _ask(images: Tensor, accounts: Tensor, teacher: Teacher, ledger: Ledger) -> Tensor:
    try:
        answers = decide_checked(teacher, images)
    except TeacherError as error:
        ledger.book(accounts[: len(error.answered)])
        raise
    ledger.book(accounts)
    return answers
