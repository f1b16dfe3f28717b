"""Keeps what a guide chose in the run folder; once the run is done, its checksum alone."""

import io
import zlib
from pathlib import Path

import numpy as np
import torch

from db3kd.storage.filesystem import truncate, write_atomically
from db3kd.synthesis.acquisition import AcquiredBatch


class FolderAcquisitionLog:
    """An `AcquisitionLog` in a run folder: a file for each round, named with its CRC-32."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, round_number: int) -> AcquiredBatch | None:
        """What was chosen for the round; None where nothing was yet, or it is kept no more.

        Raises ValueError for a file whose bytes are not those that were written.
        """
        files = self._files(f"{round_number:03d}")
        if not files or not files[0].stat().st_size:
            return None
        content = files[0].read_bytes()
        if files[0].stem.rpartition("-")[2] != f"{zlib.crc32(content):08x}":
            raise ValueError(
                f"{files[0]}: damaged: its checksum is {zlib.crc32(content):08x}; put back a copy, "
                "or make the run anew"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return AcquiredBatch(
                torch.from_numpy(arrays["start"]), torch.from_numpy(arrays["pixels"])
            )

    def save(self, round_number: int, chosen: AcquiredBatch) -> None:
        """Once this returns the choice outlives a crash.

        Raises ValueError where another was made, and answered, before its file was emptied.
        """
        buffer = io.BytesIO()
        np.savez(buffer, start=chosen.start.numpy(), pixels=chosen.pixels.numpy())
        content = buffer.getvalue()
        name = f"_round-{round_number:03d}-{zlib.crc32(content):08x}.npz"
        if any(file.name != name for file in self._files(f"{round_number:03d}")):
            raise ValueError(
                f"{self._folder}: students trained here choose other images than those that were "
                "asked about: put back a copy of the missing shard, resume where the run was made, "
                "or make it anew"
            )
        write_atomically(self._folder / name, content)

    def empty(self) -> None:
        """Keeps the names of the files, and so their checksums; the shards hold the images."""
        for file in self._files("*"):
            truncate(file, 0)

    def _files(self, round_number: str) -> list[Path]:
        return sorted(self._folder.glob(f"_round-{round_number}-*.npz"))
