"""Where images lie: in an array, a mapped file or a `datasets` table. Read by row, never held."""

import gzip
import hashlib
import zlib
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from db3kd.validation import check_images

_HASHED_ROWS = 1024
_GREY_MODES = ("1", "L", "I", "I;16")


class Pixels(Protocol):
    """Where images lie: read by row number, never held."""

    image_shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> Tensor:
        """rows int64 [n] -> float32 [n, *image_shape] in [0, 1]."""
        ...

    def hash_into(self, digest: Any) -> None:
        """Feeds what is stored, all of it, to a hashlib digest."""
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
        stored = torch.from_numpy(np.ascontiguousarray(self._array[rows]))
        images = stored.float().div_(255) if stored.dtype == torch.uint8 else stored.float()
        if self._channels_last:
            images = images.permute(0, 3, 1, 2).contiguous()
        images = images.reshape(len(rows), *self.image_shape)
        if stored.dtype != torch.uint8:
            check_images(images, self.image_shape, (0.0, 1.0), f"{self._name} images")
        return images

    def hash_into(self, digest: Any) -> None:
        digest.update(f"{self._array.dtype} {self._array.shape}\n".encode())
        for start in range(0, len(self), _HASHED_ROWS):
            rows = np.arange(start, min(start + _HASHED_ROWS, len(self)))
            digest.update(np.ascontiguousarray(self._array[rows]).tobytes())


class MappedArray:
    """An array in a file, mapped anew for each read, so that pages once read do not pile up."""

    def __init__(self, map_file: Callable[[], np.ndarray]) -> None:
        array = map_file()
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self._map_file = map_file

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.array(self._map_file()[rows])


class DatasetPixels:
    """Images of a `datasets.Dataset`, decoded when read."""

    def __init__(
        self, dataset: Any, column: str, name: str, size: int | None, channels: int | None
    ) -> None:
        if channels not in (None, 1, 3):
            raise ValueError(f"channels: expected 1 or 3, got {channels}")
        self._dataset, self._column, self._name, self._size = dataset, column, name, size
        first = dataset[0][column]
        self._channels = channels or (1 if first.mode in _GREY_MODES else 3)
        self._convert = channels is not None
        height, width = (size, size) if size else (first.height, first.width)
        self.image_shape = (self._channels, height, width)

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, rows: np.ndarray) -> Tensor:
        images = torch.empty(len(rows), *self.image_shape)
        if len(rows):
            for slot, row, image in zip(
                images, rows, self._dataset[rows.tolist()][self._column], strict=True
            ):
                slot.copy_(self._decode(image, int(row)))
        return images

    def hash_into(self, digest: Any) -> None:
        datasets = optional_package("datasets")
        digest.update(f"{self.image_shape}\n".encode())
        for row in self._dataset.cast_column(self._column, datasets.Image(decode=False)):
            stored = row[self._column]
            content = stored["bytes"] or Path(stored["path"]).read_bytes()
            digest.update(hashlib.sha256(content).digest())

    def _decode(self, image: Any, row: int) -> Tensor:
        grey = image.mode in _GREY_MODES
        if self._channels == 1 and not grey and not self._convert:
            raise ValueError(
                f"{self._name}: image {row} is coloured ({image.mode}) and the first is grey; "
                "give channels=1 or channels=3"
            )
        if image.mode.startswith("I"):
            # 16 bits a pixel, which convert() alone would clip rather than scale.
            image = image.point(lambda value: value / 257).convert("L")
        image = image.convert("L" if self._channels == 1 else "RGB")
        if self._size:
            image = _resize(image, self._size)
        if (image.height, image.width) != self.image_shape[1:]:
            raise ValueError(
                f"{self._name}: image {row} is {image.height}x{image.width} and the first is "
                f"{self.image_shape[1]}x{self.image_shape[2]}; give size="
            )
        pixels = torch.from_numpy(np.array(image)).reshape(
            image.height, image.width, self._channels
        )
        return pixels.permute(2, 0, 1).float() / 255


def _resize(image: Any, size: int) -> Any:
    """The shorter side to `size`, then the central square."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height)).crop((left, top, left + size, top + size))


def read_idx(path: Path, dimensions: int) -> Any:
    """The uint8 array of an IDX file: mapped where raw, in memory where gzipped."""
    content = None
    try:
        if path.suffix == ".gz":
            content = gzip.decompress(path.read_bytes())
            header = content[: 4 + 4 * dimensions]
        else:
            with path.open("rb") as file:
                header = file.read(4 + 4 * dimensions)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path}: expected a gzipped IDX file, got a broken one: {error}"
        ) from error
    if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < 4 + 4 * dimensions:
        raise ValueError(
            f"{path}: expected an IDX file of bytes in {dimensions} dimensions, got the header "
            f"{header[:4].hex()}"
        )
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4", dimensions, offset=4))
    expected = len(header) + int(np.prod(shape, dtype=np.int64))
    size = path.stat().st_size if content is None else len(content)
    if size != expected:
        raise ValueError(
            f"{path}: expected {expected} bytes for {list(shape)}, got {size}; the file is "
            "incomplete"
        )
    if content is not None:
        return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
    if 0 in shape:
        return np.empty(shape, np.uint8)
    return MappedArray(partial(np.memmap, path, np.uint8, "r", len(header), shape))


def optional_package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise ImportError(
            f"this data needs the package {error.name}: pip install db3kd[data]"
        ) from error
