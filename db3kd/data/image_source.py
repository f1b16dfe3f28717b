"""Images that are read by index, from a tensor or an image set."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from db3kd.data.arrays import array_digest, images_fingerprint, stack_digests

RESIDENT_BYTES = 640 << 20
"""Image sets up to this size are held on the training device as a tensor.

CIFAR-10 in float32 fits. Larger sets are read batch by batch.
"""

_READ_BATCH_SIZE = 4096


class ImageSource(Protocol):
    """Images that are read by index."""

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Tensor:
        """Reads the images at `indices`, [n] int64, as [n, *image_shape] float32."""
        ...


class NamedImages(ImageSource, Protocol):
    """An image source that a run can name and identify: an `ImageSet` or `TensorImages`.

    Attributes:
        name: What messages call the images.
        labels: [N] int64, or None.
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


@dataclass(frozen=True)
class SelectedImages:
    """Some images of a source, in a given order.

    Attributes:
        images: N images.
        numbers: [n] int64, the numbers of the selected ones.
    """

    images: ImageSource
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, indices: Tensor) -> Tensor:
        """Reads the selected images at `indices`, [m] int64, as [m, *image_shape] float32."""
        return self.images.read(self.numbers[indices])


@dataclass(frozen=True)
class ImagesWithPoints:
    """The images of a source, followed by more images held in memory.

    Attributes:
        images: N images.
        points: [M, *image_shape] float32.
    """

    images: ImageSource
    points: Tensor

    def __len__(self) -> int:
        return len(self.images) + len(self.points)

    def read(self, indices: Tensor) -> Tensor:
        """Reads the images at `indices`, [n] int64, as [n, *image_shape] float32."""
        further = indices >= len(self.images)
        read = self.points.new_empty(len(indices), *self.points.shape[1:])
        read[further] = self.points[indices[further] - len(self.images)]
        if not bool(further.all()):
            read[~further] = self.images.read(indices[~further])
        return read


class TensorImages:
    """The images of a tensor.

    Unlike those of an `ImageSet`, they may have any bounds.

    Args:
        images: [N, *image_shape] float32.

    Attributes:
        tensor: The images, on their device.
    """

    name: str = "images"
    labels: Tensor | None = None

    def __init__(self, images: Tensor) -> None:
        self.tensor = images
        self.image_shape: tuple[int, ...] = tuple(images.shape[1:])

    def __len__(self) -> int:
        return len(self.tensor)

    def read(self, indices: Tensor) -> Tensor:
        """Returns the images at `indices`, [n] int64, as [n, *image_shape] float32 on the CPU."""
        return self.tensor[indices.to(self.tensor.device)].cpu()

    def fingerprint(self) -> str:
        """Returns the SHA-256, in hex, of the images: that of an `ImageSet` of the same tensor."""
        return _tensor_fingerprint(self)


def fingerprint_in_run(images: NamedImages, found: str, stored: object) -> str:
    """Returns the fingerprint by which a stored run knows images, to compare it with the run's.

    A run that was started with a tensor may be continued with an image set of the same images,
    although this may store them otherwise.

    Args:
        images: The images.
        found: Their fingerprint.
        stored: The fingerprint in the manifest of the run; None without a run.

    Returns:
        `stored` if the run was started with a tensor of the same images, otherwise `found`.
    """
    if stored is None or found == stored or images.labels is not None:
        return found
    of_tensor = _tensor_fingerprint(images)
    return of_tensor if stored == of_tensor else found


def _tensor_fingerprint(images: NamedImages) -> str:
    """Returns the fingerprint of images without labels that are stored as float32."""
    numbers = torch.arange(len(images)).split(_READ_BATCH_SIZE)
    digests = [array_digest(image) for part in numbers for image in images.read(part).numpy()]
    return images_fingerprint(stack_digests(digests), None, images.image_shape, None)
