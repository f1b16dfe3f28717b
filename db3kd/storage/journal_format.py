"""The file of a journal: how its records are written, and how they are read and checked.

A header holds a magic number, the bytes per answer and a digest of the run. Each call of the
teacher adds two records. The first one is written before the call: the number of queries and a
digest of their accounts. The second one is written before the next call: the number of answers, the
answers in 1, 2 or 4 bytes each, and a CRC-32.

Each CRC-32 continues the one before it, and the first one continues the header's. A record that is
removed, repeated, moved, or taken from another journal therefore fails the check.

Incomplete bytes at the end, from a crash, are truncated. Any other mismatch is an error.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

_MAGIC = b"db3kd journal 2\n"
_HEAD = struct.Struct("<16sB8sI")  # magic, bytes per answer, digest of the run, CRC-32
_ASKED = struct.Struct("<III")  # queries, digest of their accounts, CRC-32
_ANSWERED = struct.Struct("<II")  # answers, CRC-32
CHECK = struct.Struct("<I")
"""A CRC-32, which follows the record that it checks."""


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
        end += _ASKED.size + _ANSWERED.size + answers.nbytes + CHECK.size
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
    if asked.check == zlib.crc32(content[start : last - CHECK.size], before):
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
    if check != zlib.crc32(content[start : first - CHECK.size], asked.check):
        if len(content) > first + asked.count * width + CHECK.size:
            raise _damaged(path, start)
        return None
    last = first + count * width
    end = last + CHECK.size
    if end > len(content):
        return None
    (stored,) = CHECK.unpack_from(content, last)
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
    if content[: _HEAD.size] != _checked(head(width, run)):
        raise ValueError(
            f"{path}: damaged, or the journal of another run ({digest.hex()}); restore the right "
            "file, or remove this one to pay for its answers again"
        )
    return width, check


def asking(accounts: Tensor) -> bytes:
    """Returns the record of queries, [B] int64 accounts, that are about to be asked."""
    return struct.pack("<II", len(accounts), digest_of(accounts.cpu()))


def head(width: int, run: str) -> bytes:
    """Returns the header of the journal of a search, without its CRC-32.

    Args:
        width: Bytes per answer.
        run: Identifies the run and the search.
    """
    digest = hashlib.sha256(run.encode()).digest()[:8]
    return struct.pack("<16sB8s", _MAGIC, width, digest)


def _checked(content: bytes) -> bytes:
    return content + CHECK.pack(zlib.crc32(content))


def digest_of(accounts: Tensor) -> int:
    """Returns the CRC-32 of the accounts of a call, [B] int64 on the CPU."""
    return zlib.crc32(accounts.contiguous().numpy().data)
