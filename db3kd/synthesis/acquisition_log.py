"""Keeps the images that students chose in the run folder."""

from pathlib import Path

import torch

from db3kd.storage.choice_log import ChoiceLog
from db3kd.synthesis.acquisition import AcquiredBatch


class FolderAcquisitionLog:
    """An `AcquisitionLog` in a run folder.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._log = ChoiceLog(folder)

    def load(self, round_number: int) -> AcquiredBatch | None:
        """Returns the images of a round; see `ChoiceLog.load`."""
        arrays = self._log.load(round_number)
        if arrays is None:
            return None
        return AcquiredBatch(torch.from_numpy(arrays["start"]), torch.from_numpy(arrays["pixels"]))

    def save(self, round_number: int, chosen: AcquiredBatch) -> None:
        """Writes the images of a round; see `ChoiceLog.save`."""
        self._log.save(
            round_number, {"start": chosen.start.numpy(), "pixels": chosen.pixels.numpy()}
        )

    def empty(self) -> None:
        """Empties the files; see `ChoiceLog.empty`."""
        self._log.empty()
