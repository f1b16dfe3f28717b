"""A temporary file of decoded images: decoding a JPEG takes much longer than reading its pixels."""

import math
import os
import tempfile
import weakref
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

MOST_BYTES = 2**31
"""The file holds the first images of a set, as many as fit into this size."""


class DecodedImages:
    """Keeps 8-bit images, so that each is decoded once.

    An image whose encoded bytes changed is not the one that was kept.

    The file has no name, so that it disappears with the process. It is not mapped into memory: if
    the disk is full, writing fails with an error instead of a signal, and images are decoded again.

    Example:
        >>> decoded = DecodedImages(2_000, (3, 224, 224))
        >>> decoded.put(7, digest, pixels)
        >>> decoded.get(7, digest)

    Args:
        count: The number of images in the set.
        image_shape: Shape of one image.
    """

    def __init__(self, count: int, image_shape: tuple[int, ...]) -> None:
        self._image_shape = image_shape
        self._image_bytes = math.prod(image_shape)
        self._capacity = min(count, MOST_BYTES // self._image_bytes)
        self._open()

    def get(self, row: int, digest: bytes) -> Tensor | None:
        """Returns the pixels at `row`; None if the file does not hold those of this content.

        Args:
            row: The row.
            digest: The digest of the encoded image as it is now.

        Returns:
            [*image_shape] uint8.
        """
        if self._file is None or self._digests.get(row) != digest:
            return None
        content = os.pread(self._file, self._image_bytes, row * self._image_bytes)
        return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(self._image_shape)

    def put(self, row: int, digest: bytes, pixels: Tensor) -> None:
        """Writes the pixels at `row`, unless they are floats, or the disk is full."""
        if self._file is None or row >= self._capacity or pixels.dtype != torch.uint8:
            return
        content = pixels.contiguous().numpy().tobytes()
        self._digests.pop(row, None)  # another thread must not take what is half written
        with suppress(OSError):
            if os.pwrite(self._file, content, row * self._image_bytes) == len(content):
                self._digests[row] = digest

    def _open(self) -> None:
        self._digests: dict[int, bytes] = {}
        self._file: int | None = None
        with suppress(OSError):  # without a place for temporary files
            self._file, name = tempfile.mkstemp()
            os.unlink(name)
            weakref.finalize(self, os.close, self._file)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_digests": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()  # a process that receives the images decodes for itself
