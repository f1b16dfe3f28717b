"""Journals: append-only logs of a teacher's answers, which survive the process that paid for them.

A search is deterministic, so its answers restore its state: a search that is run again from the
start and answered from the journal reaches the point at which it was stopped, and continues.

The journal of a search is one file (journal_format.py). A call of the teacher is recorded before it
is made, and its answers before the next call. A kill therefore costs at most the call in flight,
which is repeated, and its record tells how many queries may be paid twice. If a call fails, the
queries that it may have been paid for stay recorded as asked, as after a kill. Once a second, at
the end of a batch, the file is flushed to disk, so a power cut costs at most the answers of a
second and a batch.

A teacher behind a network repeats requests within a call. What the first attempts may have cost is
in a second file (lost_queries.py), because another thread writes it.
"""

import os
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from db3kd.errors import InputError
from db3kd.storage.filesystem import named, open_no_follow, sync_folder
from db3kd.storage.journal_format import (
    Call,
    answered_record,
    asked_record,
    check_of,
    digest_of,
    header,
    read_journal,
)
from db3kd.storage.lost_queries import add_lost, lost_file

SYNC_SECONDS = 1.0
"""Minimum time between two flushes; each takes milliseconds, as long as a fast teacher's call."""


class _Place(NamedTuple):
    """Position in the file: its end in bytes, the last CRC-32, and answers written so far."""

    end: int
    check: int
    written: int

    def after(self, record: bytes, answers: int = 0) -> "_Place":
        """Returns the position after a record of this many answers that is appended here."""
        return _Place(self.end + len(record), check_of(record), self.written + answers)


class Journal:
    """The journal of one search: known answers are taken first, new ones are appended.

    Args:
        path: File, created by the first write.
        classes: Number of classes of the teacher, which determines the bytes per answer.
        run: Identifies the run and the search.
        begins_run: Whether no other journal or shard of the run holds an answer.

    Raises:
        ValueError: If the file is not a journal, is damaged, or belongs to another run.
    """

    def __init__(self, path: Path, classes: int, run: str, *, begins_run: bool = False) -> None:
        self._path = path
        self._begins_run = begins_run
        self._width = next(width for width in (1, 2, 4) if classes <= 256**width)
        self._header = header(self._width, run)
        calls, end, _, check = read_journal(path, run)
        if calls and calls[0].answers.itemsize != self._width:
            raise InputError(
                f"{path}: expected answers for {classes} classes, got those of a teacher with "
                "a different number of classes"
            )
        # An interrupt may come between any two statements: one assignment updates everything.
        self._place = self._before = _Place(end, check, 0)
        self._begins_run &= not calls
        self._waiting = deque(calls)
        self._places = [self._place]  # since `ask`: after the answers of each record
        self._file: int | None = None
        self._unsynced = False
        self._synced_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def written(self) -> int:
        """Number of answers that `answer` has written since the journal was opened."""
        return self._place.written

    @property
    def has_more(self) -> bool:
        """Whether it holds answers that `take` has not returned yet."""
        return bool(self._waiting)

    @property
    def begins_run(self) -> bool:
        """Whether the run has no answer yet."""
        return self._begins_run and not self.written

    def close(self) -> None:
        """Flushes and closes the file."""
        if self._file is None:
            return
        try:
            self.sync(at_once=True)
        finally:
            os.close(self._file)
            self._file = None

    def take(self, accounts: Tensor) -> Tensor:
        """Takes the known answers to the first of these queries.

        Args:
            accounts: [B] int64, the accounts of the queries.

        Returns:
            [n] int64 with 0 <= n <= B, on the device of the accounts.

        Raises:
            ValueError: If the journal continues with answers to other queries.
        """
        return take_answers(self._waiting, accounts, str(self._path))

    def ask(self, accounts: Tensor) -> None:
        """Records that these queries, [B] int64 accounts, are about to be asked.

        A call of `answer` must follow.
        """
        self._before = self._place
        self._places = [self._place]
        if len(accounts):
            self._write(None, accounts)

    def answer(self, answers: Tensor, asked: Tensor | None = None) -> None:
        """Records the answers to the first n of the queries that were asked.

        Args:
            answers: [n] int64.
            asked: [B] int64, accounts of the queries that are asked next; recorded in the same
                write, as by `ask`.

        Raises:
            OSError: If the answers could not be written; the queries remain recorded as asked.
        """
        if not len(answers):
            self._discard_asked()
            if asked is not None:
                self.ask(asked)
            return
        self._write(answers, asked if asked is not None and len(asked) else None)

    def retract(self, answers: int) -> None:
        """Removes the last answers that were recorded since `ask`, and what was asked after them.

        They are removed in whole records, so maybe more of them than were requested: `written` says
        how many answers remain. A call of `ask` or `answer` without answers must follow.

        Args:
            answers: The least number of answers to remove.

        Raises:
            OSError: If the file could not be truncated.
        """
        remaining = self._place.written - answers
        place = next(each for each in reversed(self._places) if each.written <= remaining)
        self._place = self._before = place
        if self._file is not None:
            self._truncate(self._file)
            self._unsynced = True

    def lose(self, queries: int) -> None:
        """Records queries that may have been paid for and are sent again, in any thread.

        Raises:
            OSError: If they could not be recorded.
        """
        add_lost(lost_file(self._path), queries)

    def sync(self, *, at_once: bool = False) -> None:
        """Flushes the file to disk, by default at most once a second."""
        now = time.monotonic()
        if (
            self._file is not None
            and self._unsynced
            and (at_once or now - self._synced_at >= SYNC_SECONDS)
        ):
            self._unsynced, self._synced_at = False, now
            try:
                os.fsync(self._file)
            except OSError as error:
                raise named(error, self._path) from error

    def _discard_asked(self) -> None:
        """Removes the record of a call without answers, and a file without other records."""
        self._place = self._before
        if self._file is None:
            return
        self._truncate(self._file)
        if not self._place.end:
            self.close()
            self._path.unlink()

    def _truncate(self, file: int) -> None:
        """Removes the records after the current place."""
        try:
            os.ftruncate(file, self._place.end)
        except OSError as error:
            raise named(error, self._path) from error

    def _write(self, answers: Tensor | None, asked: Tensor | None) -> None:
        """Writes the records of answers and of the next queries, or none if it raises OSError."""
        content, place, before = b"", self._place, self._before
        if not place.end:
            content = self._header
            place = place.after(content)
        if answers is not None:
            record = answered_record(answers, self._width, place.check)
            content += record
            place = before = place.after(record, len(answers))
        if asked is not None:
            record = asked_record(asked, place.check)
            content += record
            place = place.after(record)
        try:
            if self._file is None:
                self._file = self._open()
            elif os.fstat(self._file).st_size != self._place.end:  # after an interrupt
                os.ftruncate(self._file, self._place.end)
            left = memoryview(content)
            while left:
                left = left[os.write(self._file, left) :]
            self._unsynced, self._before, self._place = True, before, place
            if answers is not None:
                self._places.append(before)
        except BaseException as error:
            if self._file is not None:
                self._truncate(self._file)
            if isinstance(error, OSError):
                raise named(error, self._path) from error
            raise

    def _open(self) -> int:
        new = not self._path.exists()
        file = open_no_follow(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.ftruncate(file, self._place.end)
        if new:
            sync_folder(self._path.parent)
        return file


def take_answers(waiting: deque[Call], accounts: Tensor, where: str) -> Tensor:
    """Implements `Journal.take` on a queue of calls.

    Args:
        waiting: Calls, of which the used ones are removed.
        accounts: [B] int64.
        where: Name for the error.
    """
    if not waiting:  # the common case, in which accounts need not be copied from a GPU
        return accounts.new_empty(0)
    taken = [np.empty(0, np.int64)]
    rest = accounts.cpu()
    while len(rest) and waiting:
        call = waiting[0]
        if call.asked > len(rest) or call.digest != digest_of(rest[: call.asked]):
            raise InputError(
                f"{where}: expected the journal of the same search, got one that continues with "
                f"{call.asked} other queries than the {len(rest)} of this search; if another "
                "version of db3kd or torch wrote it, resume with that version, or remove the file "
                "to pay for its answers again"
            )
        taken.append(waiting.popleft().answers.astype(np.int64))
        rest = rest[len(taken[-1]) :]
    return torch.from_numpy(np.concatenate(taken)).to(accounts.device)
