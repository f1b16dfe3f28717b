"""Where images lie: in an array or a mapped file. Read by row, never held."""

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from zipfile import ZipFile, ZipInfo

import numpy as np
import torch
from torch import Tensor

from db3kd.storage.image_digests import DIGEST_BYTES
from db3kd.validation import check_images

_BLOCK_BYTES = 2**24
_MAX_INFLATED = "DB3KD_MAX_INFLATED_GIB"
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Pixels(Protocol):
    """Where images lie: read by row number, never held."""

    image_shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> Tensor:
        """rows int64 [n] -> float32 [n, *image_shape] in [0, 1]."""
        ...

    def check(self, rows: np.ndarray) -> None:
        """Raises ValueError, naming the image, unless all images at `rows` can be read."""
        ...

    def digests(self, rows: np.ndarray, check: bool) -> np.ndarray:
        """[n, DIGEST_BYTES] uint8: a digest of each image at `rows` as it is stored.

        check: whether to do what `check` does in the same pass.
        """
        ...

    def name_of(self, row: int) -> str:
        """What errors call the image at `row`."""
        ...


class ArrayPixels:
    """Images in an array or a `MappedArray`."""

    def __init__(self, array: Any, name: str) -> None:
        if array.dtype != np.uint8 and array.dtype.kind != "f":
            raise TypeError(f"{name} images: expected uint8 or floats in [0, 1], got {array.dtype}")
        if array.ndim not in (2, 3, 4):
            raise ValueError(
                f"{name} images: expected [N, C, H, W], [N, H, W] or [N, D], got "
                f"{list(array.shape)}"
            )
        sizes = tuple(array.shape[1:])
        self._channels_last = (
            len(sizes) == 3 and sizes[2] in (1, 3, 4) and sizes[0] not in (1, 3, 4)
        )
        if self._channels_last:
            sizes = (sizes[2], *sizes[:2])
        self.image_shape = (1, *sizes) if len(sizes) == 2 else sizes
        self._array = array
        self._name = name

    def __len__(self) -> int:
        return self._array.shape[0]

    def read(self, rows: np.ndarray) -> Tensor:
        return self._as_images(self._array[rows], rows)

    def check(self, rows: np.ndarray) -> None:
        if self._array.dtype != np.uint8:  # of which every value is right
            for part in self._parts(rows):
                self.read(part)

    def digests(self, rows: np.ndarray, check: bool) -> np.ndarray:
        start = hashlib.sha256(f"{self._array.dtype} {self._array.shape[1:]}\n".encode())
        digests = []
        for part in self._parts(rows):
            block = np.ascontiguousarray(self._array[part])
            if check and block.dtype != np.uint8:
                self._as_images(block, part)
            for stored in block:
                digest = start.copy()
                digest.update(stored)
                digests.append(digest.digest()[:DIGEST_BYTES])
        return as_rows(digests)

    def name_of(self, row: int) -> str:
        return f"row {row}"

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """`rows` in parts whose images take little memory."""
        size = max(1, _BLOCK_BYTES // max(1, 4 * math.prod(self.image_shape)))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _as_images(self, stored: np.ndarray, rows: np.ndarray) -> Tensor:
        if stored.dtype == np.uint8:
            images = torch.from_numpy(np.ascontiguousarray(stored)).float().div_(255)
        else:
            with np.errstate(over="ignore"):  # what overflows is refused below
                images = torch.from_numpy(np.ascontiguousarray(stored, np.float32))
        if self._channels_last:
            images = images.permute(0, 3, 1, 2).contiguous()
        images = images.reshape(len(rows), *self.image_shape)
        if stored.dtype != np.uint8:
            check_images(images, self.image_shape, (0.0, 1.0), f"{self._name} images", rows)
        return images


def as_rows(digests: list[bytes]) -> np.ndarray:
    """Digests as [n, DIGEST_BYTES] uint8."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), DIGEST_BYTES)


class MappedArray:
    """An array in a file, mapped anew for each read, so that pages once read do not pile up."""

    def __init__(self, map_file: Callable[[], np.ndarray]) -> None:
        array = map_file()
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self._map_file = map_file

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.array(self._map_file()[rows])


def most_inflated() -> int:
    """The most bytes that a compressed file may become in memory.

    4 GiB, or as many GiB as the environment variable DB3KD_MAX_INFLATED_GIB says.
    """
    text = os.environ.get(_MAX_INFLATED, "4")
    try:
        return int(float(text) * 2**30)
    except (ValueError, OverflowError):
        raise ValueError(f"{_MAX_INFLATED}: expected a number of GiB, got {text!r}") from None


def check_inflated(path: Path, what: str, size: int) -> None:
    """Raises ValueError if `what`, in the file at `path`, takes more than `most_inflated` bytes."""
    if size > most_inflated():
        raise ValueError(
            f"{path}: expected at most {most_inflated() / 2**30:.3g} GiB once decompressed, got "
            f"{size / 2**30:.3g} GiB for {what}; store it uncompressed (.npy or raw IDX), or set "
            f"{_MAX_INFLATED} to as many GiB if you trust it"
        )


class NpzArrays:
    """The arrays of a .npz file, read one by one when they are asked for."""

    def __init__(self, path: Path, archive: Any) -> None:
        self._path, self._archive = path, archive
        self.files: list[str] = archive.files

    def __getitem__(self, key: str) -> np.ndarray:
        with _readable(self._path):
            member = next(
                entry
                for entry in self._archive.zip.infolist()
                if entry.filename.removesuffix(".npy") == key
            )
        check_inflated(self._path, f"the array {key}", member.file_size)
        with _readable(self._path):
            _check_npy_size(self._archive.zip, member)
            return self._archive[key]


def _check_npy_size(archive: ZipFile, member: ZipInfo) -> None:
    """Raises ValueError unless an array's header speaks of as many bytes as the archive has of it.

    NumPy takes memory for what the header says, before it reads any of it.
    """
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _NPY_HEADERS:
            raise ValueError(f"{member.filename} has the format {version}")
        shape, _, dtype = _NPY_HEADERS[version](stream)
        expected = stream.tell() + math.prod(shape) * dtype.itemsize
    if expected != member.file_size and not dtype.hasobject:  # which NumPy refuses
        raise ValueError(
            f"{member.filename} has {member.file_size} bytes, expected {expected} for "
            f"{list(shape)} {dtype}"
        )


@contextmanager
def open_npz(path: Path) -> Iterator[NpzArrays]:
    """The arrays of the .npz file at `path`.

    Raises:
        ValueError: it is broken, holds other things than plain arrays, or one that is asked for
            would take more than `most_inflated` bytes.
    """
    # Opened here, because numpy leaves a broken archive open.
    with path.open("rb") as file:
        with _readable(path):
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array, which belongs into a .npy file")
        with archive:
            yield NpzArrays(path, archive)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a broken archive raises whatever zipfile, zlib and numpy do
        raise ValueError(
            f"{path}: expected plain arrays, which numpy could not read: {error}"
        ) from error


def read_idx(path: Path, dimensions: int) -> Any:
    """The uint8 array of an IDX file: mapped where raw, in memory where gzipped.

    Raises:
        ValueError: the file is no IDX file of bytes, is incomplete, or would take more than
            `most_inflated` bytes once decompressed.
    """
    length = 4 + 4 * dimensions
    if path.suffix != ".gz":
        with path.open("rb") as file:
            header = file.read(length)
        shape = _idx_shape(path, header, dimensions)
        _check_idx_size(path, shape, length, path.stat().st_size)
        if 0 in shape:
            return np.empty(shape, np.uint8)
        return MappedArray(partial(np.memmap, path, np.uint8, "r", length, shape))
    try:
        with gzip.open(path) as file:
            header = file.read(length)
            shape = _idx_shape(path, header, dimensions)
            size = math.prod(shape)
            check_inflated(path, str(list(shape)), size)
            content = file.read(size + 1)  # one byte more than there should be
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path}: expected a gzipped IDX file, got a broken one: {error}"
        ) from error
    _check_idx_size(path, shape, length, length + len(content))
    return np.frombuffer(content, np.uint8).reshape(shape)


def _idx_shape(path: Path, header: bytes, dimensions: int) -> tuple[int, ...]:
    if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < 4 + 4 * dimensions:
        raise ValueError(
            f"{path}: expected an IDX file of bytes in {dimensions} dimensions, got the header "
            f"{header[:4].hex()}"
        )
    return tuple(int(size) for size in np.frombuffer(header, ">u4", dimensions, offset=4))


def _check_idx_size(path: Path, shape: tuple[int, ...], header: int, size: int) -> None:
    expected = header + math.prod(shape)
    if size != expected:
        came = "more" if size > expected and path.suffix == ".gz" else str(size)
        raise ValueError(
            f"{path}: expected {expected} bytes for {list(shape)}, got {came}; the file is "
            "incomplete or has something behind its end"
        )


def optional_package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise ImportError(
            f"this data needs the package {error.name}: pip install db3kd[data]"
        ) from error


def between_0_and_1(images: np.ndarray, bounds: tuple[float, float], name: str) -> np.ndarray:
    """float32: images whose values lie in the bounds, mapped to [0, 1]."""
    if images.dtype == np.uint8 and bounds == (0.0, 255.0):
        return images
    lower, upper = bounds
    if images.dtype.kind not in "fiu" or not ((images >= lower) & (images <= upper)).all():
        raise ValueError(f"{name}: expected numbers in bounds={bounds}, got others")
    return ((images.astype(np.float64) - lower) / (upper - lower)).astype(np.float32)
