"""The journal of a search that keeps nothing on disk."""

from collections import deque
from typing import Self

import numpy as np
from torch import Tensor

from db3kd.storage.journal import take_answers
from db3kd.storage.journal_format import Call, digest_of


class MemoryJournal:
    """The answers to one search, in memory. It has the methods of `Journal`.

    Args:
        classes: Number of classes of the teacher, for the size of an answer.

    Attributes:
        begins_run: See `Journal.begins_run`.
    """

    def __init__(self, classes: int) -> None:
        self.begins_run = False
        self._lost = self._unanswered = 0
        self._dtype = np.min_scalar_type(classes)
        self._calls: list[tuple[Call, int]] = []  # with the number of answers up to its end
        self._asked: tuple[int, int] = (0, 0)
        self.open()

    def open(self) -> Self:
        """Starts again from the first answer."""
        self.lose(self._unanswered)
        self._unanswered = 0
        self._waiting = deque(call for call, _ in self._calls)
        self._known = self.answers
        return self

    @property
    def answers(self) -> int:
        """The number of answers."""
        return self._calls[-1][1] if self._calls else 0

    @property
    def maybe_paid(self) -> int:
        """The number of queries that were sent without a usable answer."""
        return self._lost + self._unanswered

    @property
    def written(self) -> int:
        """The number of answers added since `open`, as `Journal.written`."""
        return self.answers - self._known

    @property
    def has_more(self) -> bool:
        """Whether it holds more answers, as `Journal.has_more`."""
        return bool(self._waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def take(self, accounts: Tensor) -> Tensor:
        """Returns the known answers to queries, as `Journal.take`."""
        return take_answers(self._waiting, accounts, "recovered")

    def ask(self, accounts: Tensor) -> None:
        """Records which queries are sent next, as `Journal.ask`."""
        self._asked = len(accounts), digest_of(accounts.cpu())
        self._unanswered = len(accounts)

    def answer(self, answers: Tensor, asked: Tensor | None = None) -> None:
        """Adds answers, as `Journal.answer`."""
        if len(answers):
            self.begins_run = False
            call = Call(*self._asked, answers.cpu().numpy().astype(self._dtype))
            self._calls.append((call, self.answers + len(answers)))
        self._unanswered = 0
        if asked is not None:
            self.ask(asked)

    def retract(self, answers: int) -> None:
        """Removes the last answers, as `Journal.retract`."""
        remaining = self.answers - answers
        while self.answers > remaining:
            self._calls.pop()
        self._unanswered = 0

    def lose(self, queries: int) -> None:
        """Counts queries that are sent again, as `Journal.lose`."""
        self._lost += queries

    def sync(self) -> None:
        """Does nothing, as there is no disk to write to."""
