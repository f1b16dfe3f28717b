"""Images by index, wherever they are held: a tensor, or an image set that reads them when asked."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

# Image sets up to this size (CIFAR-10 in float32 fits) are held on the training device as a tensor;
# larger ones are read batch by batch.
RESIDENT_BYTES = 640 << 20

_READ_ROWS = 4096


class ImageSource(Protocol):
    """Images that are read by index: `read(indices [n] int64) -> [n, *shape] float32 in [0, 1]`."""

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Tensor: ...


Images = Tensor | ImageSource


def image_reader(images: Images, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """A function from indices [n] int64 to images [n, *shape] float32 on the device.

    Raises ValueError for an empty set, and for images held as one tensor that are not float32 in
    [0, 1]. Sets up to `RESIDENT_BYTES` move there once, so that a batch costs one gather.
    """
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")
    if not isinstance(images, Tensor):
        first = images.read(torch.zeros(1, dtype=torch.int64))
        if len(images) * first.nbytes > RESIDENT_BYTES:
            return lambda index: images.read(index.cpu()).to(device)
        images = _read_all(images, first)
    _check_images(images)
    held = images.to(device) if images.nbytes <= RESIDENT_BYTES else images
    return lambda index: held[index.to(held.device)].to(device)


def _read_all(images: ImageSource, first: Tensor) -> Tensor:
    everything = first.new_empty(len(images), *first.shape[1:])
    for part in torch.arange(len(images)).split(_READ_ROWS):
        everything[part[0] : part[-1] + 1] = images.read(part)
    return everything


def _check_images(images: Tensor) -> None:
    wanted = "images: expected [N, *shape] float32 in [0, 1]"
    if images.ndim < 2 or images.dtype != torch.float32:
        dtype = str(images.dtype).removeprefix("torch.")
        hint = "; divide by 255" if images.dtype == torch.uint8 else ""
        raise ValueError(f"{wanted}, got {list(images.shape)} {dtype}{hint}")
    low, high = (bound.item() for bound in images.aminmax())
    if not (low >= 0 and high <= 1):  # also where they are NaN
        raise ValueError(f"{wanted}, got values from {low:g} to {high:g}")
