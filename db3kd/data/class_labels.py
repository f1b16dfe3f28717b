"""Class labels as data sets give them: numbers of any integer type, or names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from db3kd.data.image_set import ImageSet


def true_classes(images: "ImageSet") -> tuple[Tensor, int]:
    """Returns the labels, [N] int64, and the number of classes of images that must have them.

    Raises:
        ValueError: If the images have no labels.
    """
    if images.labels is None or images.classes is None:
        raise ValueError(f"data: expected images with true classes, got none in {images.name}")
    return images.labels, images.classes


def as_labels(
    labels: Any, name: str, class_names: Sequence[str] | None = None
) -> tuple[Tensor, tuple[str, ...] | None]:
    """Class labels as numbers, and the names of the classes.

    Numbers of any integer type and byte order, and columns [N, 1], are converted. Names get their
    place in `class_names`, or in their own sorted order.

    Args:
        labels: N labels: an array, tensor or sequence of integers or strings.
        name: what errors call them.
        class_names: the name of each class, or None.

    Returns:
        int64 [N], and the names, or None if there are none.

    Raises:
        TypeError: the labels are neither integers nor strings.
        ValueError: they are no list, a number does not fit into 64 bits, or a name is unknown.
    """
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    names = None if class_names is None else tuple(class_names)
    if values.ndim != 1:
        hint = "; take argmax(1) of one-hot rows" if values.ndim == 2 else ""
        raise ValueError(
            f"{name}: expected one label an image, got the shape {list(values.shape)}{hint}"
        )
    if values.dtype.kind in "USO" and all(
        isinstance(each, str | bytes) for each in values.tolist()
    ):
        texts = [each.decode() if isinstance(each, bytes) else each for each in values.tolist()]
        return _numbered(texts, names, name)
    if values.dtype.kind not in "iu":
        raise TypeError(
            f"{name}: expected names, or class numbers as int64, got {values.dtype}; use "
            "labels.astype(int) if they are class numbers"
        )
    if values.dtype.kind == "u" and values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: expected class numbers below 2^63, got {values.max()}")
    return torch.from_numpy(values.astype(np.int64)), names


def _numbered(
    texts: list[str], names: tuple[str, ...] | None, name: str
) -> tuple[Tensor, tuple[str, ...]]:
    texts = [text.strip() for text in texts]
    names = tuple(sorted(set(texts))) if names is None else names
    number = {each.strip(): place for place, each in enumerate(names)}
    unknown = sorted(set(texts) - number.keys())
    if unknown:
        raise ValueError(
            f"{name}: expected names among {', '.join(map(repr, names[:10]))}"
            f"{' …' if len(names) > 10 else ''}, got {unknown[0]!r}"
        )
    return torch.tensor([number[text] for text in texts], dtype=torch.int64), names
