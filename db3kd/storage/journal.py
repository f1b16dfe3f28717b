"""Journals: append-only logs of a teacher's answers, which survive the process that paid for them.

A search is deterministic, so its answers restore its state: a search that is run again from the
start and answered from the journal reaches the point at which it was stopped, and continues.

The journal of a search is one file. Its header holds a magic number, the bytes per answer and a
digest of the run. Each call of the teacher adds two records. The first one is written before the
call: the number of queries and a digest of their accounts. The second one is written before the
next call: the number of answers, the answers in 1, 2 or 4 bytes each, and a CRC-32. A kill
therefore costs at most the call in flight, which is repeated, and the first record tells how many
queries may be paid twice. Once a second, at the end of a batch, the file is flushed to disk, so a
power cut costs at most the answers of a second and a batch.

Each CRC-32 continues the one before it, and the first one continues the header's. A record that is
removed, repeated, moved, or taken from another journal therefore fails the check.

Incomplete bytes at the end, from a crash, are truncated. Any other mismatch is an error.
"""

import hashlib
import os
import struct
import time
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from db3kd.storage.filesystem import named, open_no_follow, sync_folder

SYNC_SECONDS = 1.0
"""Minimum time between two flushes; each takes milliseconds, as long as a fast teacher's call."""

_MAGIC = b"db3kd journal 2\n"
_HEAD = struct.Struct("<16sB8sI")  # magic, bytes per answer, digest of the run, CRC-32
_ASKED = struct.Struct("<III")  # queries, digest of their accounts, CRC-32
_ANSWERED = struct.Struct("<II")  # answers, CRC-32
_CHECK = struct.Struct("<I")  # CRC-32 of the preceding answers


class Call(NamedTuple):
    """One call of the teacher.

    Attributes:
        asked: Number of queries.
        digest: Digest of their accounts.
        answers: [n] unsigned integers, the answers to the first n queries; n is less than `asked`
            if the teacher failed.
    """

    asked: int
    digest: int
    answers: np.ndarray


class Contents(NamedTuple):
    """Content of a journal.

    Attributes:
        calls: Calls in order.
        end: Bytes up to the end of the last call; 0 without calls.
        in_flight: Queries that were asked when the process ended and have no answer.
        check: CRC-32 of the last record, which the next record continues.
    """

    calls: list[Call]
    end: int
    in_flight: int
    check: int


class _Place(NamedTuple):
    """Position in the file: its end in bytes, the last CRC-32, and answers written so far."""

    end: int
    check: int
    written: int


class Journal:
    """The journal of one search: known answers are taken first, new ones are appended.

    Args:
        path: File, created by the first write.
        classes: Number of classes of the teacher, which determines the bytes per answer.
        run: Identifies the run and the search.

    Raises:
        ValueError: The file is not a journal, is damaged, or belongs to another run.
    """

    def __init__(self, path: Path, classes: int, run: str) -> None:
        self._path = path
        self._width = next(width for width in (1, 2, 4) if classes <= 256**width)
        self._head = _head(self._width, run)
        calls, end, _, check = read_journal(path, run)
        if calls and calls[0].answers.itemsize != self._width:
            raise ValueError(
                f"{path}: expected answers for {classes} classes, got those of a teacher with "
                "a different number of classes"
            )
        # An interrupt may come between any two statements: one assignment updates everything.
        self._place = self._before = _Place(end, check, 0)
        self._waiting = deque(calls)
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
            ValueError: The journal continues with answers to other queries.
        """
        return take_answers(self._waiting, accounts, str(self._path))

    def ask(self, accounts: Tensor) -> None:
        """Records that these queries, [B] int64 accounts, are about to be asked.

        A call of `answer` must follow.
        """
        self._before = self._place
        if len(accounts):
            self._write([_asking(accounts)], self._place.written)

    def answer(self, answers: Tensor, asked: Tensor | None = None) -> None:
        """Records the answers to the first n of the queries that were asked.

        Args:
            answers: [n] int64.
            asked: [B] int64, accounts of the queries that are asked next; recorded in the same
                write, as by `ask`.

        Raises:
            OSError: The answers could not be written; the queries remain recorded as asked.
        """
        if not len(answers):
            self._discard_asked()
            if asked is not None:
                self.ask(asked)
            return
        body = answers.cpu().numpy().astype(f"<u{self._width}").tobytes()
        records = [struct.pack("<I", len(answers)), body]
        written = self._place.written + len(answers)
        if asked is None or not len(asked):
            self._write(records, written)
            return
        self._write([*records, _asking(asked)], written, also_asked=True)

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
        os.ftruncate(self._file, self._place.end)
        if not self._place.end:
            self.close()
            self._path.unlink()

    def _write(self, records: list[bytes], written: int, *, also_asked: bool = False) -> None:
        """Writes all records with their checks, or none if it raises OSError.

        Args:
            records: The records.
            written: Answers written so far, these included.
            also_asked: Whether the last record announces the next queries, and can be discarded
                alone.
        """
        if not self._place.end:
            records = [self._head, *records]
        content, check = b"", self._place.check
        before = place = self._place
        for record in records:
            before = place
            check = zlib.crc32(record, check)
            content += record + _CHECK.pack(check)
            place = _Place(self._place.end + len(content), check, written)
        if not also_asked:
            before = self._before
        try:
            if self._file is None:
                self._file = self._open()
            elif os.fstat(self._file).st_size != self._place.end:  # after an interrupt
                os.ftruncate(self._file, self._place.end)
            left = memoryview(content)
            while left:
                left = left[os.write(self._file, left) :]
            self._unsynced, self._before, self._place = True, before, place
        except BaseException as error:
            if self._file is not None:
                os.ftruncate(self._file, self._place.end)
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
            raise ValueError(
                f"{where}: expected the journal of the same search, got one that continues with "
                f"{call.asked} other queries than the {len(rest)} of this search; if another "
                "version of db3kd or torch wrote it, resume with that version, or remove the file "
                "to pay for its answers again"
            )
        taken.append(waiting.popleft().answers.astype(np.int64))
        rest = rest[len(taken[-1]) :]
    return torch.from_numpy(np.concatenate(taken)).to(accounts.device)


def read_journal(path: Path, run: str) -> Contents:
    """Reads a journal; a missing file is an empty journal.

    Args:
        path: File of the journal.
        run: Identifies the run and the search.

    Raises:
        ValueError: See `Journal`.
    """
    content = path.read_bytes() if path.exists() else b""
    if len(content) < _HEAD.size:
        return Contents([], 0, 0, 0)
    width, check = _check_head(path, content, run)
    calls: list[Call] = []
    end = _HEAD.size
    while (asked := _read_asked(path, content, end, check)) is not None:
        answered = _read_answers(path, content, end + _ASKED.size, width, asked)
        if answered is None:
            return Contents(calls, end, asked.count, check) if calls else _begun(asked.count)
        answers, check = answered
        calls.append(Call(asked.count, asked.digest, answers))
        end += _ASKED.size + _ANSWERED.size + answers.nbytes + _CHECK.size
    return Contents(calls, end, 0, check) if calls else _begun(0)


@dataclass(frozen=True)
class _Asked:
    """Number of queries of a call, the digest of their accounts, and the CRC-32 of the record."""

    count: int
    digest: int
    check: int


def _begun(in_flight: int) -> Contents:
    """Content of a journal without a complete call, which is rewritten from its header."""
    return Contents([], 0, in_flight, 0)


def _read_asked(path: Path, content: bytes, start: int, before: int) -> _Asked | None:
    """Reads the first record of a call; None if there is none.

    Args:
        path: File, for errors.
        content: Its bytes.
        start: Position of the record.
        before: CRC-32 of the preceding record.
    """
    if len(content) - start < _ASKED.size:
        return None
    asked = _Asked(*_ASKED.unpack_from(content, start))
    last = start + _ASKED.size
    if asked.check == zlib.crc32(content[start : last - _CHECK.size], before):
        return asked
    if any(content[last:]):
        raise _damaged(path, start)
    return None


def _read_answers(
    path: Path, content: bytes, start: int, width: int, asked: _Asked
) -> tuple[np.ndarray, int] | None:
    """Reads the answers to a call and their CRC-32; None if they are incomplete.

    Incomplete answers were in flight, and end the file.
    """
    first = start + _ANSWERED.size
    if len(content) < first:
        return None
    count, check = _ANSWERED.unpack_from(content, start)
    if check != zlib.crc32(content[start : first - _CHECK.size], asked.check):
        if len(content) > first + asked.count * width + _CHECK.size:
            raise _damaged(path, start)
        return None
    last = first + count * width
    end = last + _CHECK.size
    if end > len(content):
        return None
    (stored,) = _CHECK.unpack_from(content, last)
    if stored == zlib.crc32(content[first:last], check):
        return np.frombuffer(content[first:last], f"<u{width}"), stored
    if end < len(content):
        raise _damaged(path, first)
    return None


def _damaged(path: Path, place: int) -> ValueError:
    return ValueError(
        f"{path}: damaged at byte {place}, before further answers; restore a copy, or remove the "
        "file to pay for its answers again"
    )


def _check_head(path: Path, content: bytes, run: str) -> tuple[int, int]:
    """Checks the header and returns the bytes per answer and the CRC-32 of the header."""
    magic, width, digest, check = _HEAD.unpack_from(content)
    if magic != _MAGIC:
        raise ValueError(
            f"{path}: expected a journal ({_MAGIC.decode().strip()}), got another file"
        )
    if content[: _HEAD.size] != _checked(_head(width, run)):
        raise ValueError(
            f"{path}: damaged, or the journal of another run ({digest.hex()}); restore the right "
            "file, or remove this one to pay for its answers again"
        )
    return width, check


def _asking(accounts: Tensor) -> bytes:
    """Returns the record of queries that are about to be asked."""
    return struct.pack("<II", len(accounts), digest_of(accounts.cpu()))


def _head(width: int, run: str) -> bytes:
    digest = hashlib.sha256(run.encode()).digest()[:8]
    return struct.pack("<16sB8s", _MAGIC, width, digest)


def _checked(content: bytes) -> bytes:
    return content + _CHECK.pack(zlib.crc32(content))


def digest_of(accounts: Tensor) -> int:
    """Returns the CRC-32 of the accounts of a call, [B] int64 on the CPU."""
    return zlib.crc32(accounts.contiguous().numpy().data)
