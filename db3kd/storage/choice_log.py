"""Keeps what networks chose in a run folder, and only the checksums once the run is finished."""

import io
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from db3kd.errors import InputError
from db3kd.storage.filesystem import truncate, write_atomically


def choice_files(folder: Path) -> list[Path]:
    """Returns the files of all choices in a run folder."""
    return sorted(folder.glob("_*-[0-9][0-9][0-9]-*.npz"))


class ChoiceLog:
    """The choices of a run, one file per round, with its CRC-32 in its name.

    Training is bit-identical only on equal hardware with an equal number of threads. So a run that
    is resumed elsewhere must not choose the images of a started round again.

    Example:
        >>> log = ChoiceLog(run.path)
        >>> log.save(0, {"sample": samples, "number": numbers})
        >>> log.load(0)["sample"]

    Args:
        folder: The run folder.
        name: What is chosen, the beginning of the names of the files.
    """

    def __init__(self, folder: Path, name: str = "round") -> None:
        self._folder = folder
        self._name = name

    def holds(self, round_number: int) -> bool:
        """Returns whether images were chosen for a round, even if its file was emptied."""
        return bool(self._files(f"{round_number:03d}"))

    def load(self, round_number: int) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a round, or None if there are none or their file was emptied.

        Raises:
            ValueError: If the file is damaged.
        """
        files = self._files(f"{round_number:03d}")
        if not files or not files[0].stat().st_size:
            return None
        content = files[0].read_bytes()
        if files[0].stem.rpartition("-")[2] != f"{zlib.crc32(content):08x}":
            raise InputError(
                f"{files[0]}: expected the checksum in its name, got {zlib.crc32(content):08x}; "
                "restore the file from a copy, or start a new run"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    def save(self, round_number: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the arrays of a round, which then survive a crash.

        Raises:
            ValueError: If others were chosen in an earlier process.
        """
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        content = buffer.getvalue()
        name = f"_{self._name}-{round_number:03d}-{zlib.crc32(content):08x}.npz"
        if any(file.name != name for file in self._files(f"{round_number:03d}")):
            raise InputError(
                f"{self._folder}: expected to choose the images that were already sent to the "
                f"teacher in round {round_number}, got others, because networks trained on this "
                "machine differ; restore the missing shard from a copy, resume on the machine that "
                "started the run, or start a new one"
            )
        write_atomically(self._folder / name, content)

    def remove_from(self, round_number: int) -> None:
        """Removes what was chosen for a round and those after it, before anything was sent."""
        for file in self._files("*"):
            if int(file.name.rsplit("-", 2)[1]) >= round_number:
                file.unlink()

    def empty(self) -> None:
        """Empties the files, but keeps their names, which hold the checksums."""
        for file in self._files("*"):
            truncate(file, 0)

    def _files(self, round_number: str) -> list[Path]:
        return sorted(self._folder.glob(f"_{self._name}-{round_number}-*.npz"))
