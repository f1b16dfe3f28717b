"""Map-style data sets of PyTorch and Hugging Face as image sets."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from db3kd.data.arrays import ArrayLayout, array_digest, stack_digests, tensor_as_array
from db3kd.data.class_labels import as_labels
from db3kd.data.files.image_decoding import DecodeOptions, ImageConverter, check_mode
from db3kd.data.files.image_files import EncodedPixels, TableImages
from db3kd.data.files.image_tables import image_column, label_column, stored_cells
from db3kd.data.image_set import ImageSet
from db3kd.errors import ArgumentError, ArgumentTypeError

_BLOCK_ROWS = 256

_NAME = "images"
"""What messages call images that have no name of their own."""


class HuggingFaceDataset(Protocol):
    """The part of `datasets.Dataset` that is used: an image column and an optional label column."""

    @property
    def features(self) -> Any:
        """The type of each column, by its name."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any) -> Any: ...


class DatasetPixels:
    """The images of a map-style data set, which are read on demand.

    An item is a PIL image, which `ImageConverter` converts, or an array or tensor of uint8 or of
    floats in [0, 1]; see `ImageSet.from_arrays`. All items must have the type and shape of the
    first one.

    Args:
        image_at: Returns the image at an index; always the same one for the same index.
        count: The number of images.
        name: Name of the data set in error messages.

    Raises:
        TypeError: If the first item is not an image.
        ValueError: If the shape, dtype or mode of the first item is not supported.
    """

    def __init__(self, image_at: Callable[[int], Any], count: int, name: str) -> None:
        self._image_at, self._count, self._name = image_at, count, name
        self.reading: Mapping[str, Any] = {}
        first = image_at(0)
        self._converter: ImageConverter | None = None
        if _is_pillow(first):
            check_mode(first, f"{name}: item 0")
            self._converter = ImageConverter(first, DecodeOptions())
            self._image_shape = self._converter.image_shape
        else:
            array = self._as_array(first, 0)
            self._stored = array.shape, array.dtype
            self._layout = ArrayLayout(*self._stored, name)
            self._image_shape = self._layout.image_shape

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, channels first."""
        return self._image_shape

    def __len__(self) -> int:
        return self._count

    def read(self, rows: np.ndarray) -> Tensor:
        """Reads the images at `rows`, [n] int64, as [n, *image_shape] float32 in [0, 1].

        Raises:
            TypeError: If an item is not an image.
            ValueError: If an image does not fit the first one, or has values outside [0, 1].
        """
        if len(rows) == 0:
            return torch.empty(0, *self.image_shape, dtype=torch.float32)
        if self._converter is not None:
            return torch.stack([self._converted(row) for row in rows.tolist()])
        return self._layout.to_images(np.stack([self._array(row) for row in rows.tolist()]), rows)

    def check(self, rows: np.ndarray) -> None:
        """Raises ValueError or TypeError, naming the item, unless all `rows` can be read."""
        for start in range(0, len(rows), _BLOCK_ROWS):
            self.read(rows[start : start + _BLOCK_ROWS])

    def digests(self, rows: np.ndarray, check: bool) -> np.ndarray:
        """Returns [n, DIGEST_BYTES] uint8; see `PixelSource.digests`."""
        digests = []
        for row in rows.tolist():
            if self._converter is not None:
                digests.append(array_digest(self._converted(row).numpy()))
                continue
            array = self._array(row)
            if check:
                self._layout.to_images(array[None], np.array([row]))
            digests.append(array_digest(array))
        return stack_digests(digests)

    def name_of(self, row: int) -> str:
        """Returns what error messages call the image at `row`."""
        return f"item {row}"

    def _converted(self, row: int) -> Tensor:
        image, where = self._image_at(row), f"{self._name}: item {row}"
        if self._converter is None or not _is_pillow(image):
            raise ArgumentTypeError(
                where, f"expected a PIL image as the first item is, got {type(image).__name__}"
            )
        check_mode(image, where)
        return self._converter.to_tensor(image, where)

    def _array(self, row: int) -> np.ndarray:
        array = self._as_array(self._image_at(row), row)
        if (array.shape, array.dtype) != self._stored:
            shape, dtype = self._stored
            raise ArgumentError(
                self._name,
                f"item {row}: expected {list(shape)} {dtype} as the first item is, got "
                f"{list(array.shape)} {array.dtype}; all items need the same shape and dtype",
            )
        return array

    def _as_array(self, image: Any, row: int) -> np.ndarray:
        if isinstance(image, Tensor):
            return tensor_as_array(image, f"{self._name}: item {row}")
        if isinstance(image, np.ndarray):
            return image
        raise ArgumentTypeError(
            self._name,
            f"item {row}: expected an image (a tensor, an array or a PIL image) or a pair (image, "
            f"label), got {type(image).__name__}",
        )


def dataset_image_set(dataset: Dataset[Any], with_labels: bool = True) -> ImageSet:
    """Makes an image set of a map-style PyTorch data set.

    Its items are images or pairs (image, label), read by index whenever they are needed. The labels
    are taken from the attribute `targets`, as torchvision's data sets have it. Without this
    attribute, each item is read once for its label. Class names are taken from `classes`.

    Args:
        dataset: The data set.
        with_labels: Whether to read the labels too.

    Raises:
        TypeError: If the data set has no length or index, or if its items are not images.
        ValueError: If it is empty, or if images or labels do not fit.
    """
    name = _NAME
    if not hasattr(dataset, "__len__"):
        raise ArgumentTypeError(
            name,
            "expected a data set with __len__ and __getitem__, got "
            f"{type(dataset).__name__}, which can only be iterated; collect its items and use "
            "db3kd.ImageSet.from_arrays(images, labels)",
        )
    count = len(dataset)
    if count == 0:
        raise ArgumentError(name, "the data set is empty, expected at least one image")
    first = dataset[0]
    if not isinstance(first, tuple | list):
        return ImageSet(DatasetPixels(dataset.__getitem__, count, name), None, None, name)
    pixels = DatasetPixels(lambda row: dataset[row][0], count, name)
    if len(first) < 2 or not with_labels:
        return ImageSet(pixels, None, None, name)
    stored = _targets(dataset)
    if stored is None:
        stored = [_plain_label(dataset[row][1]) for row in range(count)]
    labels, names = as_labels(stored, f"{name} labels", _class_names(dataset))
    return ImageSet(pixels, labels, None, name, class_names=names)


def hugging_face_image_set(dataset: HuggingFaceDataset, with_labels: bool = True) -> ImageSet:
    """Makes an image set of a `datasets.Dataset`.

    The first column of images is used, or a column called image; and the first column of class
    labels, or one called label. If the data set has a transform, the images are those that it
    returns, as image or pixel_values.

    Args:
        dataset: The data set.
        with_labels: Whether to read the labels too.

    Raises:
        TypeError: If an item is not an image.
        ValueError: If the data set is empty or has no column of images, or if images or labels do
            not fit.
    """
    name = _NAME
    if len(dataset) == 0:
        raise ArgumentError(name, "the data set is empty, expected at least one image")
    table: Any = dataset
    column = image_column(table, name)
    transformed = table.format["type"] == "custom"
    pixels: EncodedPixels | DatasetPixels
    if not transformed and type(table.features[column]).__name__ == "Image":
        # The caller loaded this table, so its cells may name any file of this machine.
        images = TableImages(table.with_format(None), column, [Path(Path.cwd().anchor)])
        pixels = EncodedPixels(images, name)
    else:
        items = table if transformed else table.select_columns([column]).with_format("numpy")
        dtype = None if transformed else getattr(table.features[column], "dtype", None)
        pixels = DatasetPixels(lambda row: _image_of(items[row], column, dtype), len(table), name)
    labels, names, label = None, None, label_column(table)
    if label is not None and with_labels:
        names = getattr(table.features[label], "names", None)
        labels, names = as_labels(stored_cells(table, label), f"{name}, column {label!r}", names)
    return ImageSet(pixels, labels, None, name, class_names=names)


def _image_of(item: Any, column: str, dtype: str | None) -> Any:
    image = item[column] if column in item else item.get("pixel_values")
    return image if dtype is None else np.asarray(image, dtype)


def _targets(dataset: Any) -> Any:
    """Returns the labels that a data set holds beside its items, or None."""
    if isinstance(dataset, Subset):
        targets = _targets(dataset.dataset)
        return None if targets is None else np.asarray(targets)[list(dataset.indices)]
    targets = getattr(dataset, "targets", None)
    if not isinstance(targets, Sequence | np.ndarray | Tensor) or len(targets) != len(dataset):
        return None
    return None if getattr(dataset, "target_transform", None) is not None else targets


def _class_names(dataset: Any) -> Sequence[str] | None:
    if isinstance(dataset, Subset):
        return _class_names(dataset.dataset)
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return names


def _plain_label(label: Any) -> Any:
    return label.item() if isinstance(label, Tensor | np.generic) and label.ndim == 0 else label


def _is_pillow(image: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)
