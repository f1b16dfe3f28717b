"""The file of a journal: how its records are written, and how they are read and checked.

A header holds a magic number, the bytes per answer, a digest of the run and a CRC-32. Each call of
the teacher adds two records. The first one is written before the call: the number of queries, a
digest of their accounts, and a CRC-32. The second one is written before the next call: the number
of answers and a CRC-32, then the answers in 1, 2 or 4 bytes each and a CRC-32.

Each CRC-32 continues the one before it, and the first one continues the header's. A record that is
removed, repeated, moved, or taken from another journal therefore fails the check.

Incomplete bytes at the end, from a crash, are truncated. Any other mismatch is an error.
"""

import hashlib
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from db3kd.errors import InputError

_MAGIC = b"db3kd journal 2\n"
_HEAD = struct.Struct("<16sB8sI")  # magic, bytes per answer, digest of the run, CRC-32
_ASKED = struct.Struct("<III")  # queries, digest of their accounts, CRC-32
_ANSWERED = struct.Struct("<II")  # answers, CRC-32
_CHECK = struct.Struct("<I")  # CRC-32, which follows what it checks


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

    Raises:
        ValueError: See `Journal`.
    """
    content = path.read_bytes() if path.exists() else b""
    if len(content) < _HEAD.size:
        return Contents([], 0, 0, 0)
    width, check = _check_head(path, content, run)
    calls: list[Call] = []
    end, in_flight = _HEAD.size, 0
    while (asked := _read_asked(path, content, end, check)) is not None:
        answered = _read_answers(path, content, end + _ASKED.size, width, asked)
        if answered is None:
            in_flight = asked.queries
            break
        answers, check = answered
        calls.append(Call(asked.queries, asked.digest, answers))
        end += _ASKED.size + _ANSWERED.size + answers.nbytes + _CHECK.size
    if not calls:  # the journal is rewritten from its header
        return Contents([], 0, in_flight, 0)
    return Contents(calls, end, in_flight, check)


class _Asked(NamedTuple):
    """Number of queries of a call, the digest of their accounts, and the CRC-32 of the record."""

    queries: int
    digest: int
    check: int


def _read_asked(path: Path, content: bytes, start: int, before: int) -> _Asked | None:
    """Reads the first record of a call, whose CRC-32 continues `before`; None if there is none."""
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
        if len(content) > first + asked.queries * width + _CHECK.size:
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


def holds_answers(path: Path) -> bool:
    """Returns, from its size alone, whether a journal may hold answers."""
    return path.stat().st_size > _HEAD.size + _ASKED.size


def _damaged(path: Path, place: int) -> ValueError:
    return InputError(
        f"{path}: damaged at byte {place}, before further answers; restore a copy, or remove the "
        "file to pay for its answers again"
    )


def _check_head(path: Path, content: bytes, run: str) -> tuple[int, int]:
    """Checks the header and returns the bytes per answer and the CRC-32 of the header."""
    magic, width, digest, check = _HEAD.unpack_from(content)
    if magic != _MAGIC:
        raise InputError(
            f"{path}: expected a journal ({_MAGIC.decode().strip()}), got another file"
        )
    if content[: _HEAD.size] != header(width, run):
        raise InputError(
            f"{path}: damaged, or the journal of another run ({digest.hex()}); restore the right "
            "file, or remove this one to pay for its answers again"
        )
    return width, check


def header(width: int, run: str) -> bytes:
    """Returns the header of the journal of a search."""
    digest = hashlib.sha256(run.encode()).digest()[:8]
    return _with_check(struct.pack("<16sB8s", _MAGIC, width, digest), 0)


def asked_record(accounts: Tensor, check: int) -> bytes:
    """Returns the record of queries that are about to be asked.

    Args:
        accounts: [B] int64.
        check: CRC-32 of the preceding record or header.
    """
    return _with_check(struct.pack("<II", len(accounts), digest_of(accounts.cpu())), check)


def answered_record(answers: Tensor, width: int, check: int) -> bytes:
    """Returns the record of answers.

    Args:
        answers: [n] int64.
        width: Bytes per answer.
        check: CRC-32 of the preceding record.
    """
    count = _with_check(struct.pack("<I", len(answers)), check)
    body = answers.cpu().numpy().astype(f"<u{width}").tobytes()
    return count + _with_check(body, check_of(count))


def check_of(record: bytes) -> int:
    """Returns the CRC-32 at the end of a record or header."""
    return int(_CHECK.unpack(record[-_CHECK.size :])[0])


def _with_check(content: bytes, check: int) -> bytes:
    """Returns the content and its CRC-32, which continues another one."""
    return content + _CHECK.pack(zlib.crc32(content, check))


def digest_of(accounts: Tensor) -> int:
    """Returns the CRC-32 of the accounts of a call, [B] int64 on the CPU."""
    return zlib.crc32(accounts.contiguous().numpy().data)
