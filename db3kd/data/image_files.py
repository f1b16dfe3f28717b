"""Encoded images (PNG, JPEG, TIFF …) as tensors: which modes are read, and how they are scaled."""

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from db3kd.data.arrays import as_rows, optional_package
from db3kd.storage.image_digests import DIGEST_BYTES
from db3kd.validation import number_text

_GREY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
_FLOAT = ("F",)


class EncodedImages(Protocol):
    """Where encoded images lie: in files, or in the cells of a table."""

    def __len__(self) -> int: ...

    def content(self, row: int) -> bytes:
        """The encoded image at `row`."""
        ...

    def name(self, row: int) -> str:
        """What errors call the image at `row`: a path below the root, or a row."""
        ...


class ImageFiles:
    """Images that are files of their own."""

    def __init__(self, root: Path, paths: Sequence[Path]) -> None:
        self._root, self._paths = root, paths

    def __len__(self) -> int:
        return len(self._paths)

    def content(self, row: int) -> bytes:
        return self._paths[row].read_bytes()

    def name(self, row: int) -> str:
        return self._paths[row].relative_to(self._root).as_posix()


class TableImages:
    """Images in a column of a `datasets.Dataset`, as bytes.

    A cell may name a file or an address instead, and such a cell is refused: what a table of
    somebody else says must not decide which files are read or which hosts are asked. Only files in
    the folders of `trusted`, where the library itself has put what it fetched, are read.
    """

    def __init__(self, dataset: Any, column: str, trusted: Sequence[Path] = ()) -> None:
        datasets = optional_package("datasets")
        self._dataset = dataset.select_columns([column]).cast_column(
            column, datasets.Image(decode=False)
        )
        self._column, self._trusted = column, [folder.resolve() for folder in trusted]

    def __len__(self) -> int:
        return len(self._dataset)

    def content(self, row: int) -> bytes:
        cell = self._dataset[row][self._column]
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise ValueError(
                f"row {row}, column {self._column}: expected the bytes of an image, got none"
            )
        if cell["bytes"] is not None:
            return cell["bytes"]
        path = Path(cell["path"]).resolve()
        if path.is_file() and any(path.is_relative_to(folder) for folder in self._trusted):
            return path.read_bytes()
        raise ValueError(
            f"row {row}, column {self._column}: expected the bytes of an image, got the name of a "
            f"file or an address ({cell['path']}), which is not opened; write the images' bytes "
            "into the table (datasets: dataset.to_parquet embeds them)"
        )

    def name(self, row: int) -> str:
        return f"image {row}"


class EncodedPixels:
    """Encoded images, decoded by Pillow when they are read.

    The first image says whether all are grey or coloured, and which size they have, unless
    `channels` and `size` do. Values of 8 bits are divided by 255, values of 16 bits by 65535;
    floats must lie in [0, 1] already. Transparency is dropped.

    Args:
        images: where they lie.
        name: of the set, for errors.
        size: the shorter side is resized to it and the central square kept; None for no resizing.
        channels: 1 or 3, or None for those of the first image.

    Raises:
        ValueError: `channels` is neither, or the first image cannot be read.
    """

    def __init__(
        self, images: EncodedImages, name: str, size: int | None, channels: int | None
    ) -> None:
        if channels not in (None, 1, 3):
            raise ValueError(f"channels: expected 1 or 3, got {channels}")
        self._images, self._name, self._size = images, name, size
        self._convert = channels is not None
        first = self._open(0)
        self._channels = channels or (1 if _is_grey(first) else 3)
        height, width = (size, size) if size else (first.height, first.width)
        self.image_shape = (self._channels, height, width)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, rows: np.ndarray) -> Tensor:
        """rows int64 [n] -> float32 [n, *image_shape] in [0, 1].

        Raises:
            ValueError: an image cannot be decoded or does not fit the others; the error names it.
        """
        images = torch.empty(len(rows), *self.image_shape)
        for slot, row in zip(images, rows.tolist(), strict=True):
            slot.copy_(self._tensor(self._open(row), row))
        return images

    def check(self, rows: np.ndarray) -> None:
        """Raises ValueError, naming the image, unless all images at `rows` can be read."""
        for row in rows.tolist():
            self._tensor(self._open(row), row)

    def digests(self, rows: np.ndarray, check: bool) -> np.ndarray:
        """[n, DIGEST_BYTES] uint8: a digest of each image at `rows` as it is encoded.

        Raises:
            ValueError: with `check`, as that does.
        """
        digests = []
        for row in rows.tolist():
            content = self._content(row)
            digests.append(hashlib.sha256(content).digest()[:DIGEST_BYTES])
            if check:
                self._tensor(self._decode(content, row), row)
        return as_rows(digests)

    def name_of(self, row: int) -> str:
        """What errors call the image at `row`: its file, or its row in a table."""
        return self._images.name(row)

    def _content(self, row: int) -> bytes:
        try:
            return self._images.content(row)
        except ValueError as error:
            raise ValueError(f"{self._name}: {error}") from error

    def _open(self, row: int) -> Any:
        return self._decode(self._content(row), row)

    def _decode(self, content: bytes, row: int) -> Any:
        """The image at `row`, decoded, in a mode that is read."""
        pillow = optional_package("PIL.Image")
        where = f"{self._name}: {self._images.name(row)}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is odd about a file it can read all the same
                image = pillow.open(io.BytesIO(content))
                image.load()
        except ImportError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever they meet
            raise ValueError(
                f"{where}: expected an image, which Pillow could not decode: {error}"
            ) from error
        read = (*_GREY, *_COLOUR, *_GREY_16, *_FLOAT)
        if image.mode not in read and not _is_sixteen_bit(image):
            raise ValueError(
                f"{where}: expected an image of 8 or 16 bits or of floats in [0, 1], got the mode "
                f"{image.mode} ({image.format}); convert it"
            )
        return image

    def _tensor(self, image: Any, row: int) -> Tensor:
        where = f"{self._name}: {self._images.name(row)}"
        grey = _is_grey(image)
        if self._channels == 1 and not grey and not self._convert:
            raise ValueError(
                f"{where} is coloured ({image.mode}) and the first is grey; "
                "give channels=1 or channels=3"
            )
        if image.mode in _FLOAT or _is_sixteen_bit(image):
            image = self._as_fractions(image, where)
        else:
            image = _as_bytes(image, "L" if self._channels == 1 else "RGB")
        if self._size:
            image = _resize(image, self._size)
        if (image.height, image.width) != self.image_shape[1:]:
            raise ValueError(
                f"{where} is {image.height}x{image.width} and the first is "
                f"{self.image_shape[1]}x{self.image_shape[2]}; give size="
            )
        values = torch.from_numpy(np.array(image))
        if values.dtype == torch.uint8:
            values = values.float() / 255
        values = values.clamp(0, 1).reshape(image.height, image.width, -1).permute(2, 0, 1)
        return values.expand(self.image_shape)

    def _as_fractions(self, image: Any, where: str) -> Any:
        """A grey image of 16 bits or of floats, as floats in [0, 1]."""
        pillow = optional_package("PIL.Image")
        values = np.array(image).astype(np.float32)
        if _is_sixteen_bit(image):
            values = values / np.float32(65535)
        if not (values.min() >= 0 and values.max() <= 1):  # which NaN is not either
            raise ValueError(
                f"{where}: expected floats in [0, 1], got values from "
                f"{number_text(values.min())} to {number_text(values.max())}; divide by "
                "the largest value that a pixel can have"
            )
        return pillow.fromarray(values)


def _is_sixteen_bit(image: Any) -> bool:
    """Whether it is grey with 16 bits; a PGM file of 16 bits is opened as one of 32."""
    return image.mode in _GREY_16 or (image.mode == "I" and image.format in ("PPM", "PNG"))


def _is_grey(image: Any) -> bool:
    return image.mode in _GREY or image.mode in _FLOAT or _is_sixteen_bit(image)


def _as_bytes(image: Any, mode: str) -> Any:
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow would warn that it drops the transparency
    return image.convert(mode)


def _resize(image: Any, size: int) -> Any:
    """The shorter side to `size`, then the central square."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height)).crop((left, top, left + size, top + size))
