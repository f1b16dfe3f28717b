"""Class labels as data sets hold them: numbers of any integer type, or names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.tables.checks import first_missing
from db3kd.tables.places import row_numbered
from db3kd.wording import did_you_mean, shortened


def as_labels(
    labels: Any, name: str, class_names: Sequence[str] | None = None
) -> tuple[Tensor, tuple[str, ...] | None]:
    """Converts class labels to numbers.

    Numbers may have any integer type and byte order, and the shape [N] or [N, 1]. Names are
    numbered by their place in `class_names`, or in sorted order if there is no `class_names`.

    Args:
        labels: N labels: an array, tensor or sequence of integers or strings.
        name: What error messages call them.
        class_names: The name of each class, or None.

    Returns:
        [N] int64, and the class names, or None if there are none.

    Raises:
        TypeError: If the labels are neither integers nor strings.
        ValueError: If there is more than one label per image, if a number does not fit into 64
            bits, or if a name is unknown.
    """
    values = _as_array(labels, name)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    names = None if class_names is None else tuple(class_names)
    if values.ndim != 1:
        hint = "; take argmax(1) of one-hot rows" if values.ndim == 2 else ""
        raise ArgumentError(
            name, f"expected one label per image, got shape {list(values.shape)}{hint}"
        )
    if values.dtype.kind in "USO" and all(
        isinstance(label, str | bytes) for label in values.tolist()
    ):
        texts = [label.decode() if isinstance(label, bytes) else label for label in values.tolist()]
        return _number_names(texts, names, name)
    if values.dtype.kind not in "iu":
        raise ArgumentTypeError(
            name,
            f"expected class names, or class numbers as int64, got {values.dtype}; use "
            "labels.astype(int) if they are class numbers",
        )
    if values.dtype.kind == "u" and values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise ArgumentError(name, f"expected class numbers below 2^63, got {values.max()}")
    return torch.from_numpy(values.astype(np.int64)), names


def as_table_labels(
    labels: Any, name: str, class_names: Sequence[str] | None = None
) -> tuple[Tensor, tuple[str, ...] | None]:
    """Converts the class labels of a table to numbers.

    Whole numbers that start at 0 are class numbers. Other numbers and booleans are class names, as
    `TabularTeacher` names the classes of a model that was fitted on such labels. Strings are class
    names too, as for `as_labels`.

    Args:
        labels: N labels: an array, tensor, Series or sequence.
        name: See `as_labels`.
        class_names: See `as_labels`; numbers are then class numbers.

    Returns:
        See `as_labels`.

    Raises:
        TypeError: See `as_labels`.
        ValueError: See `as_labels`.
    """
    values = _as_array(labels, name)
    whole = values.dtype.kind == "f" and np.array_equal(values, np.rint(values))
    if whole or (values.dtype.kind == "b" and class_names is not None):
        values = values.astype(np.int64)
    named = values.ndim == 1 and values.size > 0 and class_names is None
    if not (named and (values.dtype.kind == "b" or (values.dtype.kind in "iu" and values.min()))):
        return as_labels(values, name, class_names)
    distinct, places = np.unique(values, return_inverse=True)
    return torch.from_numpy(places), tuple(str(value) for value in distinct.tolist())


def _as_array(labels: Any, name: str) -> np.ndarray:
    """Returns labels as an array, after checking that none is missing."""
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    row = _first_without_class(labels, values)
    if row is not None:
        raise ArgumentError(
            name,
            f"expected a class in each row, got none in {row_numbered(row)}; remove the "
            "row, or pass no labels if you need none",
        )
    return values


def _first_without_class(labels: Any, values: np.ndarray) -> int | None:
    """Returns the first row whose label is masked, missing or an empty text, if any."""
    rows = []
    if isinstance(labels, np.ma.MaskedArray):
        rows += np.argwhere(np.ma.getmaskarray(labels))[:1, :1].flatten().tolist()
    if values.ndim == 1 and values.dtype.kind in "fUSO":
        several = values.tolist()
        empty = (row for row, each in enumerate(several) if _is_empty(each))
        rows += [row for row in (first_missing(several), next(empty, None)) if row is not None]
    return min(rows, default=None)


def _is_empty(label: Any) -> bool:
    return isinstance(label, str | bytes) and not label.strip()


def class_count(labels: Sequence[np.ndarray]) -> int | None:
    """Returns the highest label of all splits plus one, or None if there are no class numbers.

    A class that occurs in one split only is counted too.
    """
    highest = [int(part.max()) for part in labels if part.size and part.dtype.kind in "iu"]
    return max(highest) + 1 if highest else None


def _number_names(
    texts: list[str], names: tuple[str, ...] | None, name: str
) -> tuple[Tensor, tuple[str, ...]]:
    texts = [text.strip() for text in texts]
    names = tuple(sorted(set(texts))) if names is None else names
    number_of = {each.strip(): number for number, each in enumerate(names)}
    unknown = sorted(set(texts) - number_of.keys())
    if unknown:
        raise ArgumentError(
            name,
            f"expected one of the class names {shortened(map(repr, names))}, got {unknown[0]!r}"
            f"{did_you_mean(unknown[0], names)}",
        )
    return torch.tensor([number_of[text] for text in texts], dtype=torch.int64), names
