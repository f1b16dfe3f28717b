"""`ImageSet`, the type of all images that db3kd labels, trains on and evaluates with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, SupportsIndex, overload

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.arrays import IntegersLike, as_classes, as_index, as_number
from db3kd.arguments.images import UNIT_BOUNDS, check_bounds, check_class_names
from db3kd.data.arrays import (
    ArrayPixels,
    PixelSource,
    images_fingerprint,
    scale_to_unit,
    tensor_as_array,
)
from db3kd.data.class_labels import as_labels, as_table_labels
from db3kd.errors import ArgumentError
from db3kd.tables import Features, Table
from db3kd.tables.checks import InvalidValueError
from db3kd.tables.places import naming
from db3kd.wording import counted, input_noun

Item = Tensor | tuple[Tensor, int]
"""An image [C, H, W] or an encoded row [D], with its label if the set has labels."""


@dataclass
class _State:
    """What is known of the images of a set, shared by views of the same images."""

    checked: bool = False


@dataclass(frozen=True, eq=False)
class Selection:
    """Which images of the original set a view holds.

    Attributes:
        numbers: [N] int64, their numbers in that set.
        total: The number of images in that set.
        how: How they were chosen, if the caller said so; otherwise empty.
        positions: For each set that it is a view of, from the nearest to the original one, [N]
            int64, their numbers in that set.
    """

    numbers: np.ndarray
    total: int
    how: str = ""
    positions: tuple[np.ndarray, ...] = ()


class ImageSet:
    """Images in [0, 1] with or without labels, read when they are needed.

    An image set is a sequence. `images[3]` is one image, [C, H, W] float32, or the pair (image,
    label) if the set has labels; `images[10:20]` is a view of ten images. So a
    `torch.utils.data.DataLoader` takes an image set. Subsets share the pixels of their set.

    Rows of a table, encoded as vectors in [0, 1], are images of shape (D,); see `from_table`.

    Example:
        >>> images = db3kd.ImageSet.from_arrays(pixels, labels, class_names=["cat", "dog"])
        >>> images
        ImageSet('arrays': 100 images of shape (3, 32, 32), 2 classes)
        >>> image, label = images[0]
        >>> loader = torch.utils.data.DataLoader(images, batch_size=32, shuffle=True)

    Args:
        pixels: The images.
        labels: [N] int64, the class numbers, or None.
        classes: The number of classes; None for the highest label plus one.
        name: What messages call the set.
        rows: [N] int64, the rows of `pixels` that are in the set; None for all.
        class_names: The name of each class, or None.
        features: The features of a table, by which its rows were encoded, or None.

    Attributes:
        features: See above.
        labels: [N] int64, or None.
        classes: The number of classes; None if it is unknown.
        class_names: The name of each class, or None.
        name: What messages call the set.
        selection: Which images of the original set this one holds: all, unless it is a subset.
        loaded_with: The arguments of `db3kd.load_data` that load the original set, apart from its
            features; None if it was not loaded with these alone.
        bounds: Lowest and highest value of an image, always (0, 1). A teacher with other bounds is
            asked through `db3kd.RescaledTeacher`.

    Raises:
        ValueError: If the set is empty, or if labels or class names do not fit.
    """

    bounds = UNIT_BOUNDS

    def __init__(
        self,
        pixels: PixelSource,
        labels: Tensor | None,
        classes: int | None,
        name: str,
        rows: np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
        features: Features | None = None,
    ) -> None:
        names = None
        if class_names is not None:
            names = check_class_names(class_names, classes, name)
            classes = len(names)
        self._pixels = pixels
        self._rows = np.arange(len(pixels)) if rows is None else rows
        if len(self._rows) == 0:
            raise ArgumentError(
                name, f"the set is empty, expected at least one {input_noun(pixels.image_shape)}"
            )
        if labels is not None:
            classes = int(labels.max()) + 1 if classes is None else classes
            labels = as_classes(labels, len(self._rows), f"{name} labels", classes)
        self.labels = labels
        self.classes = classes
        self.class_names: tuple[str, ...] | None = names
        self.name = name
        self.features = features
        self.selection = Selection(np.arange(len(self._rows)), len(self._rows))
        self._state = _State()
        self.loaded_with: Mapping[str, Any] | None = None

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray | Tensor,
        labels: Any = None,
        name: str = "arrays",
        classes: int | None = None,
        class_names: Sequence[str] | None = None,
        bounds: tuple[float, float] = UNIT_BOUNDS,
    ) -> Self:
        """Makes a set of an array or tensor, which is not copied unless `bounds` are given.

        Args:
            images: [N, C, H, W], [N, H, W] or [N, D], uint8 (divided by 255 when read) or floats in
                [0, 1]. [N, H, W, C] is recognised if only its last size can be channels (1, 3, 4).
            labels: N class numbers or class names, or None.
            name: What messages call the set.
            classes: The number of classes; by default the highest label plus one, or the number of
                class names.
            class_names: The name of each class; by default, if the labels are names, these names
                in sorted order.
            bounds: The values of black and white in `images`, if they are not 0 and 1, or 0 and 255
                of uint8. The values are mapped to [0, 1].

        Raises:
            TypeError: If the images are neither uint8 nor floats, or if the labels are neither
                integers nor names.
            ValueError: If shapes, values or labels do not fit. The values of a `numpy.memmap` are
                checked when they are read.
        """
        if isinstance(images, Tensor):
            images = tensor_as_array(images, name)
        array = images if isinstance(images, np.memmap) else np.asarray(images)
        if check_bounds(bounds) != cls.bounds:
            array = scale_to_unit(array, check_bounds(bounds), name)
        pixels = ArrayPixels(array, name)
        if not isinstance(array, np.memmap):  # a mapped file is checked when it is read
            pixels.check(np.arange(len(pixels)))
        if labels is not None:
            labels, class_names = as_labels(labels, f"{name} labels", class_names)
        return cls(pixels, labels, classes, name, class_names=class_names)

    @classmethod
    def from_table(
        cls,
        table: Table,
        labels: Any = None,
        features: Features | None = None,
        name: str = "table",
        classes: int | None = None,
        class_names: Sequence[str] | None = None,
        *,
        clip: bool = False,
    ) -> Self:
        """Makes a set of the rows of a table, encoded by its features.

        Example:
            >>> rows = db3kd.ImageSet.from_table(frame, frame["colour"])
            >>> teacher = db3kd.TabularTeacher(forest, rows.features)

        Args:
            table: A pandas DataFrame, a NumPy array [N, F], or a scikit-learn Bunch.
            labels: N class labels of any kind, or None. Strings and booleans, and numbers that do
                not start at 0, are class names.
            features: The features of the table; by default `Features.infer(table)`.
            name: What messages call the set.
            classes: The number of classes; by default the highest label plus one, or the number of
                class names.
            class_names: The name of each class; by default as the labels say.
            clip: Whether numbers that the features do not allow are moved to the nearest valid one,
                as by `Features.encode`.

        Raises:
            TypeError: See `Features.infer` and `Features.encode`.
            ValueError: See `Features.infer` and `Features.encode`, or if the labels do not fit.
        """
        if features is None:
            with naming(name):
                features = Features.infer(table)
        try:
            with naming(name):
                encoded = features.encode(table, clip=clip)
        except InvalidValueError as error:
            raise error.advising("pass features= that declare {}") from None
        pixels = ArrayPixels(encoded.numpy(), name, {"clip": clip})
        if labels is not None:
            labels, class_names = as_table_labels(labels, f"{name} labels", class_names)
        return cls(pixels, labels, classes, name, class_names=class_names, features=features)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> "ImageSet": ...

    def __getitem__(self, index: SupportsIndex | slice) -> "Item | ImageSet":
        if isinstance(index, slice):
            return self.subset(np.arange(len(self))[index])
        advice = "for several images, pass a slice, or use subset(indices)"
        return self.__getitems__([as_number(index, len(self), advice=advice)])[0]

    def __getitems__(self, indices: list[int]) -> list[Item]:
        """Reads the items of a batch at once; a `DataLoader` calls this."""
        images = self.read(indices)
        if self.labels is None:
            return list(images)
        return list(zip(images, self.labels[indices].tolist(), strict=True))

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        classes = "no labels" if self.labels is None else f"{self.classes} classes"
        inputs = counted(len(self), input_noun(self.image_shape))
        return f"ImageSet({self.name!r}: {inputs} of shape {self.image_shape}, {classes})"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, channels first, or (D,) of an encoded row."""
        return self._pixels.image_shape

    @property
    def reading(self) -> Mapping[str, Any]:
        """The arguments of `load_data` by which files are read as those of this set were.

        Only sets of image files have `size` and `channels`, and only tables have `clip`. Features
        are not among them: see `features`.
        """
        return self._pixels.reading

    def read(self, indices: Sequence[int] | Tensor | np.ndarray) -> Tensor:
        """Reads the images at `indices`, in that order, as [n, *image_shape] float32 in [0, 1].

        Raises:
            IndexError: If an index is negative, or too high.
            ValueError: If an image that is read is invalid; see `check`.
        """
        return self._pixels.read(self._rows[self._checked(indices)])

    def check(self) -> None:
        """Reads every image once, in little memory, to find an invalid one before a run begins.

        A set that was checked is not read again, and neither is a subset of it.

        Raises:
            ValueError: If an image cannot be decoded, has values outside [0, 1], or has another
                shape than the first; the message names its file or row.
        """
        if not self._state.checked:
            self._pixels.check(np.unique(self._rows))
            self._state.checked = True

    def name_of(self, index: int) -> str:
        """Returns what error messages call the image at `index`: its file, or its row."""
        return self._pixels.name_of(int(self._rows[index]))

    def subset(self, indices: Sequence[int] | Tensor | np.ndarray, how: str = "") -> "ImageSet":
        """Returns a view of the images at `indices`, in that order.

        Args:
            indices: Their numbers in this set.
            how: How they were chosen, in a few words for the report of a run.
        """
        chosen = self._checked(indices)
        labels = None if self.labels is None else self.labels[torch.from_numpy(chosen)]
        rows = self._rows[chosen]
        part = ImageSet(
            self._pixels, labels, self.classes, self.name, rows, self.class_names, self.features
        )
        before = self.selection
        positions = (chosen, *(each[chosen] for each in before.positions))
        part.selection = Selection(before.numbers[chosen], before.total, how, positions)
        part._state = _State(self._state.checked)
        part.loaded_with = self.loaded_with
        return part

    def with_labels(
        self, labels: Tensor | None, class_names: Sequence[str] | None = None
    ) -> "ImageSet":
        """Returns a view of the same images with other labels.

        Args:
            labels: [N] int64; None for no labels.
            class_names: The name of each class, or None.
        """
        view = ImageSet(
            self._pixels, labels, None, self.name, self._rows, class_names, self.features
        )
        view.selection = self.selection
        view._state = self._state  # The views share their images, so one check is enough.
        view.loaded_with = self.loaded_with
        return view

    def fingerprint(self, *, check: bool = False) -> str:
        """Returns the SHA-256, in hex, of all images in their order and of their labels.

        All images are read once.

        Args:
            check: Whether to do in the same pass what `check` does.

        Raises:
            ValueError: See `check`.
        """
        digests = self._pixels.digests(self._rows, check and not self._state.checked)
        self._state.checked |= check
        return images_fingerprint(digests, self.labels, self.image_shape, self.classes)

    def _checked(self, indices: IntegersLike) -> np.ndarray:
        return as_index(indices, len(self), "indices").numpy()


def true_classes(images: ImageSet) -> tuple[Tensor, int]:
    """Returns the labels, [N] int64, and the number of classes of images that must have them.

    Raises:
        ValueError: If the images have no labels.
    """
    if images.labels is None or images.classes is None:
        raise ArgumentError("data", f"expected images with true classes, got none in {images.name}")
    return images.labels, images.classes
