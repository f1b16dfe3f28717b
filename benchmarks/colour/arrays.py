"""Images and class names of both splits, and the file that `db3kd.load_data` reads them from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Height and width of every image."""


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        images: [N, SIDE, SIDE, 3] uint8.
        labels: [N] the class name of each image.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.str_]

    def shuffled(self) -> "Split":
        """Returns the same images in an order that is fixed for each number of images."""
        order = np.random.RandomState(0).permutation(len(self.images))
        return Split(self.images[order], self.labels[order])


def write(file: Path, train: Split, test: Split) -> None:
    """Writes a data set as `x_train`, `y_train`, `x_test` and `y_test`, whole or not at all."""
    part = file.with_name(f".{file.stem}.part.npz")
    np.savez(
        part,
        x_train=train.images,
        y_train=train.labels,
        x_test=test.images,
        y_test=test.labels,
    )
    part.replace(file)
