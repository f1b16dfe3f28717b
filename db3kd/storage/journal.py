"""An append-only log of a teacher's answers: what was paid for outlives its process.

A search is deterministic, so the answers it has had are all there is to know of it: run again from
the start and answered from the log it reaches the point where it was stopped, and goes on.

The log of a search is one file. It begins with a head: magic, bytes an answer, a digest of the run.
Then, for each call of the teacher: how many queries, and a digest of their accounts, written before
it is asked; and how many answers came, these in 1, 2 or 4 bytes each, and a CRC-32, written before
it is asked again. So a kill costs at most the call in flight, which is made again; and as its
beginning is in the log, it is known how many queries that may have cost twice. Once a second, at
the end of a batch of the search, the log is put on disk, so a power cut costs the answers of a
second and of a batch at most.

Each CRC-32 starts from the one before it, and the first from the head's. So a record that is
removed, repeated, moved, or taken from another journal does not fit the records around it.

Bytes that a crash cut short at the end are cut off. Anything else that does not fit is an error.
"""

import hashlib
import os
import struct
import time
import zlib
from collections import deque
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from db3kd.storage.filesystem import named, open_no_follow, sync_folder

SYNC_SECONDS = 1.0
"""Least time between two syncs: each takes milliseconds, as long as a fast teacher's call."""

_MAGIC = b"db3kd journal 2\n"
_HEAD = struct.Struct("<16sB8sI")  # magic, bytes an answer, digest of the run, CRC-32
_ASKED = struct.Struct("<III")  # queries, digest of their accounts, CRC-32
_ANSWERED = struct.Struct("<II")  # answers, CRC-32
_CHECK = struct.Struct("<I")  # CRC-32 of the answers that come before it


class Call(NamedTuple):
    """Answers to the first of the queries that were asked at once: to all, unless a teacher failed.

    asked: queries. digest: of their accounts. answers: [n] of unsigned integers, n at most `asked`.
    """

    asked: int
    digest: int
    answers: np.ndarray


class Contents(NamedTuple):
    """What a journal holds.

    calls: in the order they were made. end: bytes up to the end of the last of them, 0 for a
    file without any. in_flight: queries that were asked when the process ended, whose answers are
    not there. check: the CRC-32 of the last call's last record, from which the next record's
    starts.
    """

    calls: list[Call]
    end: int
    in_flight: int
    check: int


class _Place(NamedTuple):
    """Its end in bytes, the CRC-32 of its last record, and the answers written by this process."""

    end: int
    check: int
    written: int


class Journal:
    """The log of one search, to be read from the start and then written on.

    path: of the file; made when there is something to write. classes: of the teacher; tells how
    many bytes an answer takes. run: what tells this run, and this search of it, from others.

    Raises:
        ValueError: the file is no journal, is damaged in its middle, or belongs to another run.
    """

    def __init__(self, path: Path, classes: int, run: str) -> None:
        self._path = path
        self._width = next(width for width in (1, 2, 4) if classes <= 256**width)
        self._head = _head(self._width, run)
        calls, end, _, check = read_journal(path, run)
        if calls and calls[0].answers.itemsize != self._width:
            raise ValueError(
                f"{path}: expected answers for {classes} classes; the teacher it was written for "
                "has other classes"
            )
        # An interrupt may come between any two calls: one assignment changes all of it.
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
        """Answers that `answer` has written since the journal was opened."""
        return self._place.written

    def close(self) -> None:
        if self._file is None:
            return
        try:
            self.sync(at_once=True)
        finally:
            os.close(self._file)
            self._file = None

    def take(self, accounts: Tensor) -> Tensor:
        """The answers that are there already to the first of these queries.

        accounts: int64 [B], who pays for them -> int64 [n], n from 0 to B, on their device.

        Raises:
            ValueError: the journal goes on with the answers to other queries.
        """
        return take_answers(self._waiting, accounts, str(self._path))

    def ask(self, accounts: Tensor) -> None:
        """Notes that these queries are about to be asked, int64 [B]; `answer` must follow."""
        self._before = self._place
        if len(accounts):
            self._write([_asking(accounts)], self._place.written)

    def answer(self, answers: Tensor, asked: Tensor | None = None) -> None:
        """Keeps the answers to the first of them, int64 [n], for whatever may end this process.

        asked: int64 [B], the accounts of the queries that are asked, or about to be, behind these
            answers; they are noted in the same write, as by `ask`.

        Raises:
            OSError: they could not be written; the queries remain noted as asked.
        """
        if not len(answers):
            self._take_back()
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
        """Keeps what was written for a power cut too; by default at most once a second."""
        now = time.monotonic()
        if self._unsynced and (at_once or now - self._synced_at >= SYNC_SECONDS):
            self._unsynced, self._synced_at = False, now
            try:
                os.fsync(self._file)
            except OSError as error:
                raise named(error, self._path) from error

    def _take_back(self) -> None:
        """Forgets a call that brought no answer; without any other, the file goes."""
        self._place = self._before
        if self._file is None:
            return
        os.ftruncate(self._file, self._place.end)
        if not self._place.end:
            self.close()
            self._path.unlink()

    def _write(self, records: list[bytes], written: int, *, also_asked: bool = False) -> None:
        """Writes all records, each with its check, or nothing and raises OSError.

        also_asked: the last record notes what is asked next, and is taken back alone.
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
            elif os.fstat(self._file).st_size != self._place.end:  # an interrupt left it so
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
    """As `Journal.take`, from calls that are taken out of `waiting`. where: for the error."""
    if not waiting:  # which is nearly always, and the accounts may be on a GPU
        return accounts.new_empty(0)
    taken = [np.empty(0, np.int64)]
    rest = accounts.cpu()
    while len(rest) and waiting:
        call = waiting[0]
        if call.asked > len(rest) or call.digest != digest_of(rest[: call.asked]):
            raise ValueError(
                f"{where}: goes on with {call.asked} queries where this search asks {len(rest)} "
                "others: expected the journal of the same search; if another version of db3kd or "
                "torch began it, go on with that one, or remove the file to ask for its answers "
                "again"
            )
        taken.append(waiting.popleft().answers.astype(np.int64))
        rest = rest[len(taken[-1]) :]
    return torch.from_numpy(np.concatenate(taken)).to(accounts.device)


def read_journal(path: Path, run: str) -> Contents:
    """What the journal at `path` holds; nothing where there is no file.

    Raises:
        ValueError: as `Journal`.
    """
    content = path.read_bytes() if path.exists() else b""
    if len(content) < _HEAD.size:
        return Contents([], 0, 0, 0)
    width, check = _check_head(path, content, run)
    calls, end = [], _HEAD.size
    while (asked := _read_asked(path, content, end, check)) is not None:
        answered = _read_answers(path, content, end + _ASKED.size, width, asked)
        if answered is None:
            return Contents(calls, end, asked.count, check) if calls else _begun(asked.count)
        answers, check = answered
        calls.append(Call(asked.count, asked.digest, answers))
        end += _ASKED.size + _ANSWERED.size + answers.nbytes + _CHECK.size
    return Contents(calls, end, 0, check) if calls else _begun(0)


class _Asked(NamedTuple):
    """How many queries a call asks, the digest of their accounts, and the record's CRC-32."""

    count: int
    digest: int
    check: int


def _begun(in_flight: int) -> Contents:
    """A journal without a finished call, which is written anew from its head."""
    return Contents([], 0, in_flight, 0)


def _read_asked(path: Path, content: bytes, start: int, before: int) -> _Asked | None:
    """The record of a call that begins at `start`; None where none does.

    before: the CRC-32 of the record before it.
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
    """The answers to a call, and their CRC-32.

    None where they are not all there: they were in flight, and are the last in the file.
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
        f"{path}: damaged at byte {place}, with answers behind it; put back a copy, or remove the "
        "file to ask for its answers again"
    )


def _check_head(path: Path, content: bytes, run: str) -> tuple[int, int]:
    """Bytes an answer takes, and the head's CRC-32."""
    magic, width, digest, check = _HEAD.unpack_from(content)
    if magic != _MAGIC:
        raise ValueError(
            f"{path}: expected a journal ({_MAGIC.decode().strip()}), got another file"
        )
    if content[: _HEAD.size] != _checked(_head(width, run)):
        raise ValueError(
            f"{path}: damaged, or the journal of another run ({digest.hex()}); put back the right "
            "file, or remove this one to ask for its answers again"
        )
    return width, check


def _asking(accounts: Tensor) -> bytes:
    """The record of queries that are about to be asked."""
    return struct.pack("<II", len(accounts), digest_of(accounts.cpu()))


def _head(width: int, run: str) -> bytes:
    digest = hashlib.sha256(run.encode()).digest()[:8]
    return struct.pack("<16sB8s", _MAGIC, width, digest)


def _checked(content: bytes) -> bytes:
    return content + _CHECK.pack(zlib.crc32(content))


def digest_of(accounts: Tensor) -> int:
    """CRC-32 of the accounts, int64 [B] on the CPU, that pay for a call's queries."""
    return zlib.crc32(accounts.contiguous().numpy())
