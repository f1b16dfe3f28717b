"""Folders of IDX files, the format of MNIST."""

import gzip
import math
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch

from db3kd.data.arrays import ArrayPixels, MappedArray, StoredArray
from db3kd.data.class_labels import class_count
from db3kd.data.files.decompression import check_decompressed_size
from db3kd.data.files.splits import require_split, split_set_name
from db3kd.data.image_set import ImageSet
from db3kd.errors import InputError
from db3kd.wording import counted

_PREFIXES = {"train": ("train",), "test": ("t10k", "test")}


def holds_idx(folder: Path) -> bool:
    """Returns whether there are IDX files of images in the folder."""
    return any(folder.glob("*-images*idx3*"))


def load_idx_folder(folder: Path, split: str, classes: int | None) -> ImageSet:
    """Loads a split of the IDX files in a folder; see `db3kd.load_data`.

    Raises:
        ValueError: If the folder has no such split, or if its files are broken or inconsistent.
    """
    parts = {
        part: files for part, prefixes in _PREFIXES.items() if (files := _find(folder, prefixes))
    }
    require_split(split, parts, folder)
    labels = {part: _read_labels(files[1]) for part, files in parts.items() if files[1]}
    images = read_idx(parts[split][0], 3)
    split_labels = labels.get(split)
    if split_labels is not None and len(split_labels) != images.shape[0]:
        raise InputError(
            f"{folder}: expected one label for each image of {split}, got "
            f"{counted(images.shape[0], 'image')} and {counted(len(split_labels), 'label')}"
        )
    name = split_set_name(folder.resolve().name, split, parts)
    return ImageSet(
        ArrayPixels(images, name),
        None if split_labels is None else torch.from_numpy(split_labels),
        classes or class_count(list(labels.values())),
        name,
    )


def read_idx(path: Path, dimensions: int) -> StoredArray:
    """Reads the uint8 array of an IDX file.

    A raw file is mapped; a gzipped one is decompressed into memory.

    Raises:
        ValueError: If the file is not an IDX file of bytes, if it is incomplete, or if it takes
            more than `max_decompressed_bytes()` once decompressed.
    """
    length = 4 + 4 * dimensions
    if path.suffix != ".gz":
        with path.open("rb") as file:
            header = file.read(length)
        shape = _parse_shape(path, header, dimensions)
        _check_size(path, shape, length, path.stat().st_size)
        if 0 in shape:
            return np.empty(shape, np.uint8)
        return MappedArray(partial(np.memmap, path.absolute(), np.uint8, "r", length, shape))
    try:
        with gzip.open(path) as stream:
            header = stream.read(length)
            shape = _parse_shape(path, header, dimensions)
            size = math.prod(shape)
            check_decompressed_size(path, str(list(shape)), size)
            content = stream.read(size + 1)  # One more byte, to detect a longer file.
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected a valid gzipped IDX file: {error}") from error
    _check_size(path, shape, length, length + len(content))
    return np.frombuffer(content, np.uint8).reshape(shape)


def _find(folder: Path, prefixes: tuple[str, ...]) -> tuple[Path, Path | None] | None:
    """Returns the files of a split's images and labels; raw files are preferred to gzipped ones."""
    for prefix in prefixes:
        images, labels = (
            sorted(folder.glob(f"{prefix}-{kind}"), key=lambda path: path.suffix == ".gz")
            for kind in ("images*idx3*", "labels*idx1*")
        )
        if images:
            return images[0], labels[0] if labels else None
    return None


def _read_labels(path: Path) -> np.ndarray:
    labels = read_idx(path, 1)
    return np.array(labels[np.arange(labels.shape[0])])


def _parse_shape(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < 4 + 4 * dimensions:
        raise InputError(
            f"{path}: expected an IDX file of bytes in {dimensions} dimensions, got the header "
            f"{header[:4].hex()}"
        )
    return tuple(int(size) for size in np.frombuffer(header, ">u4", dimensions, offset=4))


def _check_size(path: Path, shape: tuple[int, ...], header: int, size: int) -> None:
    expected = header + math.prod(shape)
    if size != expected:
        actual = "more" if size > expected and path.suffix == ".gz" else str(size)
        raise InputError(
            f"{path}: expected {expected} bytes for {list(shape)}, got {actual}; the file is "
            "truncated, or has extra bytes at its end"
        )
