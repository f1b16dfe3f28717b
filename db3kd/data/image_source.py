"""Images by index, wherever they are held: a tensor, or an image set that reads them when asked."""

import hashlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from db3kd.querying.search import fitting_batch_size
from db3kd.validation import check_image_shape, check_images

# Image sets up to this size (CIFAR-10 in float32 fits) are held on the training device as a tensor;
# larger ones are read batch by batch.
RESIDENT_BYTES = 640 << 20

_READ_ROWS = 4096
_BOUNDS = (0.0, 1.0)


class ImageSource(Protocol):
    """Images that are read by index: `read(indices [n] int64) -> [n, *shape] float32 in [0, 1]`."""

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Tensor: ...


class NamedImages(ImageSource, Protocol):
    """An ImageSet, or a tensor in the guise of one."""

    name: str
    labels: Tensor | None

    def fingerprint(self) -> str: ...

    @property
    def image_shape(self) -> tuple[int, ...]: ...


class TensorImages:
    """A checked tensor as an image source; unlike in an ImageSet its bounds may be any."""

    name: str = "images"
    labels: Tensor | None = None

    def __init__(self, images: Tensor) -> None:
        self._images = images.cpu()
        self.image_shape: tuple[int, ...] = tuple(images.shape[1:])

    def __len__(self) -> int:
        return len(self._images)

    def read(self, indices: Tensor) -> Tensor:
        return self._images[indices]

    def fingerprint(self) -> str:
        """SHA-256 hex of the images."""
        digest = hashlib.sha256(f"{tuple(self._images.shape)}\n".encode())
        for part in self._images.split(_READ_ROWS):
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()


Images = Tensor | ImageSource


def image_reader(images: Images, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """A function from indices [n] int64 to images [n, *shape] float32 on the device.

    Sets up to `RESIDENT_BYTES` move there once, so that a batch costs one gather.

    Raises ValueError for an empty set, and TypeError or ValueError for images that are not float32
    in [0, 1]: of an image set too large to be held, when the batch they are in is read.
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
    held_already = isinstance(images, Tensor)
    first = images[:1] if held_already else images.read(torch.zeros(1, dtype=torch.int64))
    shape = check_image_shape(tuple(first.shape[1:]), "images, the shape of one")
    if not held_already:
        if len(images) * first.nbytes > RESIDENT_BYTES:
            return lambda index: check_images(images.read(index.cpu()), shape, _BOUNDS).to(device)
        images = _read_all(images, first)
    check_images(images, shape, _BOUNDS)
    held = images.to(device) if images.nbytes <= RESIDENT_BYTES else images
    return lambda index: held[index.to(held.device)].to(device)


def _read_all(images: ImageSource, first: Tensor) -> Tensor:
    everything = first.new_empty(len(images), *first.shape[1:])
    for part in torch.arange(len(images)).split(fitting_batch_size(_READ_ROWS, first.shape[1:])):
        everything[part[0] : part[-1] + 1] = images.read(part)
    return everything
