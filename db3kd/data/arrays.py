"""Images in an array, in memory or in a mapped file."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.images import UNIT_BOUNDS, check_dense, check_images
from db3kd.errors import ArgumentError, ArgumentTypeError

DIGEST_BYTES = 16
"""Bytes of the SHA-256 of an image that are kept."""

_BLOCK_BYTES = 2**24
_CHANNELS = (1, 3, 4)


class PixelSource(Protocol):
    """The images behind an `ImageSet`, read by row.

    Attributes:
        image_shape: Shape of one image.
        reading: See `ImageSet.reading`.
    """

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        ...

    @property
    def reading(self) -> Mapping[str, Any]:
        """See `ImageSet.reading`."""
        ...

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> Tensor:
        """Reads the images at `rows`, [n] int64, as [n, *image_shape] float32 in [0, 1]."""
        ...

    def check(self, rows: np.ndarray) -> None:
        """Raises ValueError, naming the image, unless all images at `rows` can be read."""
        ...

    def digests(self, rows: np.ndarray, check: bool) -> np.ndarray:
        """Returns a digest of each image as it is stored.

        Args:
            rows: [n] int64.
            check: Whether to do in the same pass what `check` does.

        Returns:
            [n, DIGEST_BYTES] uint8.
        """
        ...

    def name_of(self, row: int) -> str:
        """Returns what error messages call the image at `row`."""
        ...


class MappedArray:
    """A memory-mapped array.

    Each read maps the file again, so the pages it touched can leave memory.

    Args:
        map_file: Opens the file as a memory-mapped array.
    """

    def __init__(self, map_file: Callable[[], np.ndarray]) -> None:
        array = map_file()
        self.shape, self.dtype = array.shape, array.dtype
        self._map_file = map_file

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.array(self._map_file()[rows])


StoredArray = np.ndarray | MappedArray
"""An array that is indexed by rows."""


class ArrayLayout:
    """How the images of an array are converted to float32 images with the channels first.

    Args:
        shape: Shape of one stored image: [C, H, W], [H, W, C], [H, W] or [D].
        dtype: uint8, or floats in [0, 1].
        name: What error messages call the image set.

    Attributes:
        image_shape: Shape of one converted image.

    Raises:
        TypeError: If images of this dtype are not read.
        ValueError: If images of this shape are not read.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
        if dtype != np.uint8 and dtype.kind != "f":
            raise ArgumentTypeError(name, f"expected uint8 or floats in [0, 1], got {dtype}")
        if len(shape) not in (1, 2, 3) or 0 in shape:
            raise ArgumentError(
                name,
                f"expected [N, C, H, W], [N, H, W] or [N, D] with sizes of at least 1, got "
                f"[N{''.join(f', {size}' for size in shape)}]",
            )
        self._channels_last = (
            len(shape) == 3 and shape[2] in _CHANNELS and shape[0] not in _CHANNELS
        )
        if self._channels_last:
            shape = (shape[2], *shape[:2])
        self.image_shape = (1, *shape) if len(shape) == 2 else shape
        self._name = name

    def to_images(self, stored: np.ndarray, rows: np.ndarray) -> Tensor:
        """Converts stored images.

        Args:
            stored: [n, *shape] of the layout's dtype.
            rows: [n] int64, what error messages call the images.

        Returns:
            [n, *image_shape] float32 in [0, 1].

        Raises:
            ValueError: If floats lie outside [0, 1]; the message names the row.
        """
        if stored.dtype == np.uint8:
            images = torch.from_numpy(np.ascontiguousarray(stored)).float().div_(255)
        else:
            with np.errstate(over="ignore"):  # The check below refuses values that overflow.
                images = torch.from_numpy(np.ascontiguousarray(stored, np.float32))
        if self._channels_last:
            images = images.permute(0, 3, 1, 2).contiguous()
        images = images.reshape(len(rows), *self.image_shape)
        if stored.dtype != np.uint8:
            check_images(images, self.image_shape, UNIT_BOUNDS, self._name, rows.tolist())
        return images


class ArrayPixels:
    """The images of an array.

    Args:
        array: [N, C, H, W], [N, H, W, C], [N, H, W] or [N, D], uint8 or floats in [0, 1].
        name: What error messages call the image set.
        reading: See `ImageSet.reading`.

    Raises:
        TypeError: See `ArrayLayout`.
        ValueError: See `ArrayLayout`.
    """

    def __init__(
        self, array: StoredArray, name: str, reading: Mapping[str, Any] | None = None
    ) -> None:
        self._layout = ArrayLayout(tuple(array.shape[1:]), array.dtype, name)
        self._array = array
        self.reading = {} if reading is None else reading

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self._layout.image_shape

    def __len__(self) -> int:
        return self._array.shape[0]

    def read(self, rows: np.ndarray) -> Tensor:
        """Reads the images at `rows`, [n] int64, as [n, *image_shape] float32 in [0, 1]."""
        return self._layout.to_images(self._array[rows], rows)

    def check(self, rows: np.ndarray) -> None:
        """Raises ValueError, naming the row, if a float lies outside [0, 1]."""
        if self._array.dtype != np.uint8:  # Every uint8 value is valid.
            for block in self._blocks(rows):
                self.read(block)

    def digests(self, rows: np.ndarray, check: bool) -> np.ndarray:
        """Returns [n, DIGEST_BYTES] uint8; see `PixelSource.digests`."""
        digests = []
        for block in self._blocks(rows):
            stored = np.ascontiguousarray(self._array[block])
            if check and stored.dtype != np.uint8:
                self._layout.to_images(stored, block)
            digests += [array_digest(image) for image in stored]
        return stack_digests(digests)

    def name_of(self, row: int) -> str:
        """Returns what error messages call the image at `row`."""
        return f"row {row}"

    def _blocks(self, rows: np.ndarray) -> list[np.ndarray]:
        """Splits `rows` into blocks whose images take little memory."""
        size = max(1, _BLOCK_BYTES // max(1, 4 * math.prod(self.image_shape)))
        return [rows[start : start + size] for start in range(0, len(rows), size)]


def array_digest(stored: np.ndarray) -> bytes:
    """Returns the digest of one image: of its dtype, shape and values."""
    digest = _digest_of_header(stored.dtype, stored.shape).copy()
    digest.update(np.ascontiguousarray(stored).data)
    return digest.digest()[:DIGEST_BYTES]


@lru_cache
def _digest_of_header(dtype: np.dtype, shape: tuple[int, ...]) -> "hashlib._Hash":
    return hashlib.sha256(f"{dtype} {shape}\n".encode())


def stack_digests(digests: list[bytes]) -> np.ndarray:
    """Returns digests as [n, DIGEST_BYTES] uint8."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), DIGEST_BYTES)


def images_fingerprint(
    digests: np.ndarray, labels: Tensor | None, image_shape: Sequence[int], classes: int | None
) -> str:
    """Returns the SHA-256, in hex, of images in their order and of their labels.

    Args:
        digests: [n, DIGEST_BYTES] uint8, the digest of each image.
        labels: [n] int64; None without labels.
        image_shape: Shape of one image.
        classes: Number of classes, or None.
    """
    if labels is not None:
        numbers = labels.numpy().astype("<i8").view(np.uint8).reshape(len(digests), 8)
        digests = np.concatenate([digests, numbers], 1)
    count, width = digests.shape
    head = f"db3kd images 1\n{tuple(image_shape)} {classes} {count} {width}\n"
    return hashlib.sha256(head.encode() + digests.tobytes()).hexdigest()


def tensor_as_array(images: Tensor, name: str) -> np.ndarray:
    """Returns a tensor of images as an array.

    NumPy has no bfloat16 or narrower floats, so these become float32.

    Raises:
        TypeError: If the tensor does not hold a real number for each pixel.
    """
    check_dense(images, name)
    if images.is_floating_point() and images.element_size() <= 2 and images.dtype != torch.float16:
        images = images.float()
    return images.numpy(force=True)


def scale_to_unit(images: np.ndarray, bounds: tuple[float, float], name: str) -> np.ndarray:
    """Maps images from `bounds` to [0, 1].

    Returns:
        float32 of the same shape; uint8 images in [0, 255] are returned unchanged.

    Raises:
        ValueError: If a value lies outside the bounds.
    """
    if images.dtype == np.uint8 and bounds == (0.0, 255.0):
        return images
    lower, upper = bounds
    if images.dtype.kind not in "fiu" or not ((images >= lower) & (images <= upper)).all():
        raise ArgumentError(name, f"expected all values within bounds={bounds}, got other values")
    return ((images.astype(np.float64) - lower) / (upper - lower)).astype(np.float32)
