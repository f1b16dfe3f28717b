"""Encoded images (PNG, JPEG, TIFF …), in files or in the cells of a table."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.data.arrays import DIGEST_BYTES, stack_digests
from db3kd.data.files.decoded_images import DecodedImages
from db3kd.data.files.extras import import_data_package
from db3kd.data.files.image_decoding import DecodeOptions, ImageConverter, as_unit, decode_image
from db3kd.errors import InputError
from db3kd.tables.places import TableSource


class ImageFiles:
    """Images in files of their own.

    Args:
        root: The folder of the set; names in error messages are relative to it.
        paths: The files.
    """

    def __init__(self, root: Path, paths: Sequence[Path]) -> None:
        self._root, self._paths = root, paths
        self._base = Path.cwd()  # a teacher may change the working directory

    def __len__(self) -> int:
        return len(self._paths)

    def content(self, row: int) -> bytes:
        """Returns the encoded image at `row`."""
        return (self._base / self._paths[row]).read_bytes()

    def name(self, row: int) -> str:
        """Returns the path of the image at `row`, relative to the root."""
        return self._paths[row].relative_to(self._root).as_posix()


class TableImages:
    """Images in a column of a `datasets.Dataset`, as bytes.

    A cell may hold the name of a file or an address instead. A table of unknown origin must not
    decide which files are read or which hosts are contacted, so such a cell is refused unless its
    file lies in a trusted folder.

    Args:
        dataset: The table.
        column: The column.
        trusted: Folders whose files may be read, such as the cache of the library.
        source: What error messages call the rows.
    """

    def __init__(
        self,
        dataset: Any,
        column: str,
        trusted: Sequence[Path] = (),
        source: TableSource | None = None,
    ) -> None:
        datasets = import_data_package("datasets")
        self._dataset = dataset.select_columns([column]).cast_column(
            column, datasets.Image(decode=False)
        )
        self._column, self._trusted = column, [folder.resolve() for folder in trusted]
        self._source = TableSource() if source is None else source

    def __len__(self) -> int:
        return len(self._dataset)

    def content(self, row: int) -> bytes:
        """Returns the encoded image at `row`.

        Raises:
            ValueError: If the cell is empty, or if it names a file outside the trusted folders.
        """
        cell = self._dataset[row][self._column]
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise InputError(
                f"column {self._column!r}: expected the bytes of an image, got none in "
                f"{self._source.row(row)}"
            )
        if cell["bytes"] is not None:
            return cell["bytes"]
        path = Path(cell["path"]).resolve()
        if path.is_file() and any(path.is_relative_to(folder) for folder in self._trusted):
            return path.read_bytes()
        raise InputError(
            f"column {self._column!r}: expected the bytes of an image, got the name of a file or "
            f"an address ({cell['path']}) in {self._source.row(row)}, which is not opened; write "
            "the images' bytes into the table (datasets: dataset.to_parquet embeds them)"
        )

    def name(self, row: int) -> str:
        """Returns what error messages call the image at `row`."""
        return f"image in {self._source.row(row)}"


class EncodedPixels:
    """Encoded images that Pillow decodes when they are read, converted as by `ImageConverter`.

    Args:
        images: The encoded images.
        name: What error messages call the set.
        options: Size and channels, if they are not those of the first image.

    Raises:
        ValueError: If the first image cannot be decoded.
    """

    def __init__(
        self, images: ImageFiles | TableImages, name: str, options: DecodeOptions | None = None
    ) -> None:
        self._images, self._name = images, name
        options = DecodeOptions() if options is None else options
        self.reading = asdict(options)
        first, _ = self._read(0)
        self._converter = ImageConverter(self._decode(first, 0), options)
        self._decoded = DecodedImages(len(images), self._converter.image_shape)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, (channels, height, width)."""
        return self._converter.image_shape

    def __len__(self) -> int:
        return len(self._images)

    def read(self, rows: np.ndarray) -> Tensor:
        """Reads the images at `rows`, [n] int64, as [n, *image_shape] float32 in [0, 1].

        Raises:
            ValueError: If an image cannot be decoded, or if it does not fit the first one; the
                message names it.
        """
        images = torch.empty(len(rows), *self.image_shape, dtype=torch.float32)
        for image, row in zip(images, rows.tolist(), strict=True):
            image.copy_(as_unit(self._pixels(row, *self._read(row))))
        return images

    def check(self, rows: np.ndarray) -> None:
        """Raises ValueError, naming the image, unless all images at `rows` can be read."""
        for row in rows.tolist():
            self._pixels(row, *self._read(row))

    def digests(self, rows: np.ndarray, check: bool) -> np.ndarray:
        """Returns a digest of each image's encoded bytes; see `PixelSource.digests`."""
        digests = []
        for row in rows.tolist():
            content, digest = self._read(row)
            digests.append(digest)
            if check:
                self._pixels(row, content, digest)
        return stack_digests(digests)

    def name_of(self, row: int) -> str:
        """Returns what error messages call the image at `row`: its file, or its row in a table."""
        return self._images.name(row)

    def _read(self, row: int) -> tuple[bytes, bytes]:
        """Returns the encoded image at `row`, and its digest."""
        try:
            content = self._images.content(row)
        except ValueError as error:
            raise InputError(f"{self._name}: {error}") from error
        return content, hashlib.sha256(content).digest()[:DIGEST_BYTES]

    def _decode(self, content: bytes, row: int) -> Any:
        return decode_image(content, self._where(row))

    def _pixels(self, row: int, content: bytes, digest: bytes) -> Tensor:
        """Returns the pixels of an encoded image, which is decoded once."""
        pixels = self._decoded.get(row, digest)
        if pixels is None:
            pixels = self._converter.to_pixels(self._decode(content, row), self._where(row))
            self._decoded.put(row, digest, pixels)
        return pixels

    def _where(self, row: int) -> str:
        return f"{self._name}: {self._images.name(row)}"
