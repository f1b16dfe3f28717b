"""`ImageSet`, the type of all images that db3kd labels, trains on and evaluates with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.data.arrays import ArrayPixels, Pixels, between_0_and_1
from db3kd.data.class_labels import as_labels
from db3kd.storage.image_digests import ImageDigests
from db3kd.validation import check_bounds, check_class_names, check_classes


@dataclass
class _State:
    """What is known of the images of a set, and of all its views with other labels."""

    checked: bool = False


class ImageSet:
    """Images in [0, 1] with or without labels; a view, so subsets cost their row numbers only.

    labels       int64 [N], or None
    classes      number of classes, or None where there are no labels to tell
    class_names  the name of each class, or None where they have none
    image_shape  shape of one image, channels first
    bounds       lowest and highest value of an image: always (0, 1); a teacher of other bounds is
                 asked through db3kd.RescaledTeacher
    """

    bounds = (0.0, 1.0)

    def __init__(
        self,
        pixels: Pixels,
        labels: Tensor | None,
        classes: int | None,
        name: str,
        rows: np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        if class_names is not None:
            class_names = check_class_names(class_names, classes, name)
            classes = len(class_names)
        self._pixels = pixels
        self._rows = np.arange(len(pixels)) if rows is None else rows
        if len(self._rows) == 0:
            raise ValueError(f"{name}: the set is empty, expected at least one image")
        if labels is not None:
            classes = int(labels.max()) + 1 if classes is None else classes
            labels = check_classes(labels, len(self._rows), classes, f"{name} labels")
        self.labels = labels
        self.classes = classes
        self.class_names = class_names
        self.name = name
        self._state = _State()

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray | Tensor,
        labels: Any = None,
        name: str = "arrays",
        classes: int | None = None,
        class_names: Sequence[str] | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> "ImageSet":
        """A set over an array or tensor, which is not copied unless `bounds` are given.

        images   uint8, divided by 255 when read, or floats in [0, 1]: [N, H, W], [N, C, H, W] or
                 [N, D]; also [N, H, W, C], where the last size alone can be channels (1, 3, 4)
        labels   N class numbers, or None
        classes  by default the highest label plus one, or the number of names
        class_names  the name of each class; by default those of labels that are names, sorted
        bounds   what black and white are in `images`, if not 0 and 1, nor 0 and 255 of uint8; the
                 values are mapped to [0, 1]
        """
        array = np.asarray(images)
        if check_bounds(bounds) != cls.bounds:
            array = between_0_and_1(array, check_bounds(bounds), name)
        pixels = ArrayPixels(array, name)
        if labels is not None:
            labels, class_names = as_labels(labels, f"{name} labels", class_names)
        return cls(pixels, labels, classes, name, class_names=class_names)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self._pixels.image_shape

    def read(self, indices: Sequence[int] | Tensor | np.ndarray) -> Tensor:
        """The images at `indices`, in that order -> float32 [n, *image_shape] in [0, 1]."""
        return self._pixels.read(self._rows[self._checked(indices)])

    def check(self) -> None:
        """Reads every image once, in little memory, so that a bad one is found before a run begins.

        A set that was checked is not read again, nor is a subset of it.

        Raises:
            ValueError: an image cannot be decoded, has values outside [0, 1], or does not have the
                shape of the first; the error names its file or row.
        """
        if not self._state.checked:
            self._pixels.check(np.unique(self._rows))
            self._state.checked = True

    def name_of(self, index: int) -> str:
        """What errors call the image at `index`: its file, or its row."""
        return self._pixels.name_of(int(self._rows[index]))

    def subset(self, indices: Sequence[int] | Tensor | np.ndarray) -> "ImageSet":
        """A view of the images at `indices`, in that order."""
        chosen = self._checked(indices)
        labels = None if self.labels is None else self.labels[torch.from_numpy(chosen)]
        rows = self._rows[chosen]
        part = ImageSet(self._pixels, labels, self.classes, self.name, rows, self.class_names)
        part._state = _State(self._state.checked)
        return part

    def with_labels(self, labels: Tensor, class_names: Sequence[str] | None) -> "ImageSet":
        """A view of the same images with other labels, int64 [N], of the classes so named."""
        view = ImageSet(self._pixels, labels, None, self.name, self._rows, class_names)
        view._state = self._state  # the same images: what one view has read, the other need not
        return view

    def digests(self, *, check: bool = False) -> ImageDigests:
        """A digest of each image as it is stored, and its label; reads all images once.

        Args:
            check: also do what `check` does, in the same pass.

        Raises:
            ValueError: as `check`.
        """
        digests = self._pixels.digests(self._rows, check and not self._state.checked)
        self._state.checked |= check
        return ImageDigests.of(digests, self.labels, self.image_shape, self.classes)

    def fingerprint(self) -> str:
        """SHA-256 hex of the images in their order, and of their labels; reads all."""
        return self.digests().fingerprint

    def _checked(self, indices: Sequence[int] | Tensor | np.ndarray) -> np.ndarray:
        chosen = np.asarray(indices)
        if chosen.size == 0:
            return np.empty(0, np.int64)
        if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
            raise TypeError(
                f"indices: expected integers [n], got {list(chosen.shape)} {chosen.dtype}"
            )
        wrong = chosen[(chosen < 0) | (chosen >= len(self))]
        if len(wrong):
            raise IndexError(f"indices: expected numbers in [0, {len(self)}), got {wrong[0]}")
        return chosen.astype(np.int64)
