"""The numbers by which a run stores its images: those in the data set that has further ones."""

from pathlib import Path

import numpy as np

from db3kd.errors import InputError
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.run_folder import RunFolder

_NAME = "image-numbers"


def keep_numbers(run: RunFolder, numbers: np.ndarray) -> np.ndarray:
    """Returns the numbers by which a run stores its images, and keeps them in its folder.

    They stay the same whenever the run is resumed, also if the images are then passed as a set of
    their own. A run stores positions, which are not kept, if they equal the numbers, if an image
    occurs twice, or if its first shards were written without numbers.

    Args:
        run: The run, opened for writing.
        numbers: [N] int64, the number of each image of the run in its data set.

    Returns:
        [N] int64.
    """
    stored = stored_numbers(run.path)
    if stored is not None:
        return stored
    positions = np.arange(len(numbers))
    if (
        run.has_shards
        or np.array_equal(numbers, positions)
        or len(np.unique(numbers)) < len(numbers)
    ):
        return positions
    ChoiceLog(run.path, _NAME).save(0, {"numbers": numbers})
    return numbers


def stored_numbers(path: str | Path) -> np.ndarray | None:
    """Returns the numbers that `keep_numbers` keeps in a run folder, [N] int64; None without any.

    Raises:
        ValueError: If their file is damaged.
    """
    stored = ChoiceLog(Path(path), _NAME).load(0)
    return None if stored is None else stored["numbers"]


def positions_of(images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Returns the positions of images in a run, by the numbers that it stores.

    Args:
        images: [n] int64, the numbers to look up.
        numbers: [N] int64, from `keep_numbers`.

    Returns:
        [n] int64.

    Raises:
        ValueError: If the run has no image of a number.
    """
    order = np.argsort(numbers)
    place = np.searchsorted(numbers, images, sorter=order).clip(max=len(numbers) - 1)
    positions = order[place]
    unknown = images[numbers[positions] != images]
    if len(unknown):
        raise InputError(f"column image: expected images of the run, got number {unknown[0]}")
    return positions
