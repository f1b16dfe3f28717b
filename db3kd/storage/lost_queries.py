"""Counts queries that were sent again because their answers, which may be paid for, were lost.

Beside a journal, `NAME.lost` has a line for each repeated request: its number of queries. The line
is on disk before the request is sent again, so the sum is a bound after a kill too. When the run is
resumed or finished, its manifest takes over the sum, and the file is removed.

A part of a run, in a subfolder, is removed if it has no answer; it leaves such a file in the run.
"""

import errno
import os
from pathlib import Path
from typing import Any

from db3kd.errors import InputError
from db3kd.storage.filesystem import named, open_no_follow
from db3kd.storage.manifest import LOST

_SUFFIX = ".lost"


def lost_file(journal: Path) -> Path:
    """Returns the file of lost queries that belongs to a journal."""
    return journal.with_suffix(_SUFFIX)


def lost_files(folder: Path) -> list[Path]:
    """Returns all files of lost queries in a run folder."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def add_lost(file: Path, queries: int) -> None:
    """Adds a line to a file, which survives a crash as soon as this returns.

    Raises:
        OSError: If the disk is full or not writable; the error names the file.
    """
    line = f"{queries}\n".encode()
    try:
        descriptor = open_no_follow(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            before = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise named(error, file) from error


def count_lost(folder: Path) -> int:
    """Returns the number of lost queries that the files of a run folder record.

    Raises:
        ValueError: If a file is damaged.
    """
    return sum(map(_sum_of, lost_files(folder)))


def take_over_lost(folder: Path, manifest: dict[str, Any], now: str) -> None:
    """Adds the lost queries to a manifest, which must be written before `remove_lost` is called."""
    queries = count_lost(folder)
    if queries:
        manifest[LOST] = [*manifest.get(LOST, []), {"at": now, "queries": queries}]


def remove_lost(folder: Path) -> None:
    """Removes the files of lost queries from a run folder."""
    for file in lost_files(folder):
        file.unlink()


def note_lost(error: BaseException, queries: int, kept: bool) -> None:
    """Notes on the error that ends a run how many queries may have been paid for nothing."""
    if queries:
        which = "the run counts them" if kept else "no answer was received, so no run is kept"
        error.add_note(
            f"up to {queries:,} of the queries that were sent may have been paid for without an "
            f"answer; {which}"
        )


def _sum_of(file: Path) -> int:
    *lines, _ = file.read_bytes().split(b"\n")  # a crash may have cut off the last line
    if not all(line.isdigit() for line in lines):
        raise InputError(
            f"{file}: expected a number of queries in each line, got a damaged file; restore a "
            "copy, or remove the file, which counts queries that may have been paid twice"
        )
    return sum(map(int, lines))
