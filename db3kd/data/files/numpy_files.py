"""Image sets in `.npz` and `.npy` files."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np

from db3kd.data.arrays import ArrayPixels, MappedArray
from db3kd.data.class_labels import class_count
from db3kd.data.files.decompression import check_decompressed_size
from db3kd.data.files.splits import require_split, split_set_name
from db3kd.data.image_set import ImageSet
from db3kd.errors import InputError

_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_npz(path: Path, split: str, classes: int | None) -> ImageSet:
    """Loads one split of a `.npz` file; see `db3kd.load_data`.

    Args:
        path: A file with the arrays `images` and optionally `labels`, or with a single array of
            images of any name, which has one split, "train"; or with the arrays `x_SPLIT` and
            optionally `y_SPLIT` for each split.
        split: Name of the split.
        classes: Number of classes; None to count the labels of all splits.

    Raises:
        ValueError: If the file is invalid, or has no images or no such split.
    """
    with open_npz(path) as archive:
        keys = archive.files
        if "images" in keys:
            require_split(split, ("train",), path)
            labels = archive["labels"] if "labels" in keys else None
            return ImageSet.from_arrays(archive["images"], labels, path.stem, classes)
        if len(keys) == 1 and not keys[0].startswith("x_"):
            require_split(split, ("train",), path)
            return ImageSet.from_arrays(archive[keys[0]], None, path.stem, classes)
        splits = [key.removeprefix("x_") for key in keys if key.startswith("x_")]
        if not splits:
            found = ", ".join(keys) or "nothing"
            raise InputError(
                f"{path}: expected images and labels, or x_train and y_train, got {found}"
            )
        require_split(split, splits, path)
        parts = {part: archive[f"y_{part}"] for part in splits if f"y_{part}" in keys}
        names = None
        if any(labels.dtype.kind in "US" for labels in parts.values()):
            names = sorted({str(label) for labels in parts.values() for label in labels.ravel()})
        return ImageSet.from_arrays(
            archive[f"x_{split}"],
            parts.get(split),
            split_set_name(path.stem, split, splits),
            classes or class_count(list(parts.values())),
            names,
        )


def load_npy(path: Path, classes: int | None) -> ImageSet:
    """Loads the images of a `.npy` file, which has no labels, without reading them into memory.

    Raises:
        ValueError: If the file is broken.
    """
    try:
        array = MappedArray(partial(np.lib.format.open_memmap, path.absolute(), mode="r"))
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{path}: expected an array of images, which numpy could not read: {error}"
        ) from error
    return ImageSet(ArrayPixels(array, path.stem), None, classes, path.stem)


class NpzArrays:
    """The arrays of an open `.npz` file, each read when it is asked for.

    Args:
        path: The file, for error messages.
        archive: The file as NumPy opened it.

    Attributes:
        files: The names of the arrays.
    """

    def __init__(self, path: Path, archive: np.lib.npyio.NpzFile) -> None:
        self._path, self._archive = path, archive
        self.files: list[str] = archive.files

    def __getitem__(self, key: str) -> np.ndarray:
        with _explain_errors(self._path):
            file = self._archive.zip
            if file is None:
                raise InputError("the archive is closed")
            member = next(
                entry for entry in file.infolist() if entry.filename.removesuffix(".npy") == key
            )
        check_decompressed_size(self._path, f"the array {key}", member.file_size)
        with _explain_errors(self._path):
            _check_npy_size(file, member)
            return self._archive[key]


@contextmanager
def open_npz(path: Path) -> Iterator[NpzArrays]:
    """Opens a `.npz` file.

    Raises:
        ValueError: If the file is broken, if it holds anything but plain arrays, or if an array
            that is read takes more than `max_decompressed_bytes()`.
    """
    # numpy would leave a broken archive open, so the file is opened here.
    with path.open("rb") as file:
        with _explain_errors(path):
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError("it is a single array, which belongs in a .npy file")
        with archive:
            yield NpzArrays(path, archive)


def _check_npy_size(archive: ZipFile, member: ZipInfo) -> None:
    """Checks that an array's header declares as many bytes as the archive holds.

    NumPy allocates what the header declares before it reads any data.
    """
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _NPY_HEADERS:
            raise InputError(f"{member.filename} has the format {version}")
        shape, _, dtype = _NPY_HEADERS[version](stream)
        expected = stream.tell() + math.prod(shape) * dtype.itemsize
    if expected != member.file_size and not dtype.hasobject:  # NumPy refuses objects itself.
        raise InputError(
            f"{member.filename} has {member.file_size} bytes, expected {expected} for "
            f"{list(shape)} {dtype}"
        )


@contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # zipfile, zlib and numpy raise many types for a broken archive.
        raise InputError(
            f"{path}: expected plain arrays, which numpy could not read: {error}"
        ) from error
