"""Images that are read by index, from a tensor or an image set."""

import hashlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from db3kd.querying.search import fitting_batch_size
from db3kd.validation import UNIT_BOUNDS, check_image_shape, check_images

RESIDENT_BYTES = 640 << 20
"""Image sets up to this size are held on the training device as a tensor.

CIFAR-10 in float32 fits. Larger sets are read batch by batch.
"""

_READ_BATCH_SIZE = 4096


class ImageSource(Protocol):
    """Images that are read by index."""

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Tensor:
        """Reads the images at `indices`, int64 [n], as [n, *image_shape] float32."""
        ...


class NamedImages(ImageSource, Protocol):
    """An image source that a run can name and identify: an `ImageSet` or `TensorImages`.

    Attributes:
        name: What messages call the images.
        labels: int64 [N], or None.
    """

    name: str
    labels: Tensor | None

    def fingerprint(self) -> str:
        """Returns a SHA-256, in hex, of the images and labels."""
        ...

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        ...


class TensorImages:
    """The images of a tensor.

    Unlike those of an `ImageSet`, they may have any bounds.

    Args:
        images: [N, *image_shape] float32.
    """

    name: str = "images"
    labels: Tensor | None = None

    def __init__(self, images: Tensor) -> None:
        self._images = images.cpu()
        self.image_shape: tuple[int, ...] = tuple(images.shape[1:])

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images at `indices`, int64 [n], as [n, *image_shape] float32."""
        return self._images[indices]

    def fingerprint(self) -> str:
        """Returns the SHA-256, in hex, of the images."""
        digest = hashlib.sha256(f"{tuple(self._images.shape)}\n".encode())
        for part in self._images.split(_READ_BATCH_SIZE):
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()


Images = Tensor | ImageSource
"""A tensor [N, *image_shape] float32 in [0, 1], or an image source of such images."""


def image_reader(images: Images, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """Returns a function that reads a batch of images onto a device.

    Sets up to `RESIDENT_BYTES` are moved to the device once, so that a batch costs one gather.

    Args:
        images: N images of one shape.
        device: The device of the batches.

    Returns:
        A function from indices, int64 [n], to images, [n, *image_shape] float32.

    Raises:
        TypeError: If the images are not float32.
        ValueError: If there are none, or if values lie outside [0, 1]. The images of a larger set
            are checked when their batch is read.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind == "f":
        images = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    if not isinstance(images, Tensor) and not hasattr(images, "read"):
        raise TypeError(
            f"images: expected an ImageSet, or a tensor [N, C, H, W], got {type(images).__name__}; "
            "make one with db3kd.ImageSet.from_arrays(array, labels)"
        )
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")
    if isinstance(images, Tensor):
        first = images[:1]
    else:
        first = images.read(torch.zeros(1, dtype=torch.int64))
    shape = check_image_shape(tuple(first.shape[1:]), "images, the shape of one")
    if isinstance(images, Tensor):
        everything = images
    elif len(images) * first.nbytes <= RESIDENT_BYTES:
        everything = _read_all(images, first)
    else:
        read = images.read
        return lambda index: check_images(read(index.cpu()), shape, UNIT_BOUNDS).to(device)
    check_images(everything, shape, UNIT_BOUNDS)
    held = everything.to(device) if everything.nbytes <= RESIDENT_BYTES else everything
    return lambda index: held[index.to(held.device)].to(device)


def _read_all(images: ImageSource, first: Tensor) -> Tensor:
    everything = first.new_empty(len(images), *first.shape[1:])
    for part in torch.arange(len(images)).split(
        fitting_batch_size(_READ_BATCH_SIZE, first.shape[1:])
    ):
        everything[part[0] : part[-1] + 1] = images.read(part)
    return everything
