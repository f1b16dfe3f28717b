"""Keeps what a guide chose in the run folder, until the run is done."""

import io
import zlib
from pathlib import Path

import numpy as np
import torch

from db3kd.disk import write_atomically
from db3kd.synthesis.guided import Chosen


class FolderChoices:
    """`Choices` as files in a run folder, each named by its round and the CRC-32 of its bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, round_number: int) -> Chosen | None:
        """What was chosen for the round; None where nothing was yet.

        Raises ValueError for a file whose bytes are not those that were written.
        """
        files = sorted(self._folder.glob(f"round-{round_number:03d}-*.npz"))
        if not files:
            return None
        content = files[0].read_bytes()
        if files[0].stem.rpartition("-")[2] != f"{zlib.crc32(content):08x}":
            raise ValueError(
                f"{files[0]}: damaged: its checksum is {zlib.crc32(content):08x}; put back a copy, "
                "or make the run anew"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return Chosen(torch.from_numpy(arrays["start"]), torch.from_numpy(arrays["levels"]))

    def save(self, round_number: int, chosen: Chosen) -> None:
        """Once this returns the choice outlives a crash."""
        buffer = io.BytesIO()
        np.savez(buffer, start=chosen.start.numpy(), levels=chosen.levels.numpy())
        content = buffer.getvalue()
        name = f"round-{round_number:03d}-{zlib.crc32(content):08x}.npz"
        write_atomically(self._folder / name, content)

    def clear(self) -> None:
        """Takes the files away; the shards hold the same images."""
        for file in self._folder.glob("round-*.npz"):
            file.unlink()
