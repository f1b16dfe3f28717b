"""Counts the queries of computations that keep no answers on disk."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from db3kd.wording import counted, paid_twice_text

_LOG = logging.getLogger("db3kd")


class SentQueries:
    """Counts answers, and queries that may have been paid for without an answer.

    An answer is lost if a request is sent again although it may have been paid for, or if a call
    of the teacher fails. The journals of a run folder count lost answers themselves.

    Example:
        >>> sent = SentQueries()
        >>> decisions = decide_all(teacher, images.read, rows, sent=sent)
        >>> sent.answered, sent.lost
        (100, 0)

    Attributes:
        answered: The number of answers.
    """

    def __init__(self) -> None:
        self.answered = 0
        self._lost = 0
        self._lock = threading.Lock()

    @property
    def lost(self) -> int:
        """At most how many queries were paid for without a usable answer."""
        return self._lost

    @property
    def begun(self) -> bool:
        """Whether any query was sent."""
        return self.answered + self.lost > 0

    def lose(self, queries: int) -> None:
        """Counts queries without an answer, in any thread."""
        with self._lock:
            self._lost += queries

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Adds a note with what may have been paid for to an error that ends the block."""
        try:
            yield
        except BaseException as error:
            if self.answered or self.lost:
                error.add_note(
                    f"{counted(self.answered, 'query')} had an answer, and up to {self.lost:,} "
                    "more may have been paid for without one; db3kd keeps none of these answers"
                )
            raise

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Does what `noted` does, and logs a warning if a block that succeeds lost answers."""
        try:
            with self.noted():
                yield
        except GeneratorExit:  # the caller of a generator stopped early, and sees no note
            self.warn()
            raise
        self.warn()

    def warn(self) -> None:
        """Logs a warning if answers were lost."""
        if self.lost:
            _LOG.warning("paid twice: %s", paid_twice_text(self.lost))


@contextmanager
def counting(sent: SentQueries | None = None) -> Iterator[SentQueries]:
    """Yields a counter for all searches of a block.

    Args:
        sent: The counter of the caller, which reports it; by default a new one, which is reported
            when the block ends.
    """
    if sent is not None:
        yield sent
        return
    sent = SentQueries()
    with sent.reported():
        yield sent
