"""Reading batches of images onto a device, for training and evaluation."""

from collections.abc import Callable

import torch
from torch import Tensor

from db3kd.arguments.images import UNIT_BOUNDS, check_image_shape, check_images
from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.data.image_source import RESIDENT_BYTES, ImageSource, TensorImages
from db3kd.errors import ArgumentError
from db3kd.querying.search import fitting_batch_size

_READ_BATCH_SIZE = 4096


def image_reader(images: ImagesLike, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """Returns a function that reads a batch of images onto a device.

    Sets up to `RESIDENT_BYTES` are moved to the device once, so that a batch costs one gather.

    Example:
        >>> from db3kd.data.image_reader import image_reader
        >>> read = image_reader(db3kd.load_data("mnist5k"), "cpu")
        >>> read(torch.tensor([3, 1])).shape
        torch.Size([2, 1, 28, 28])

    Args:
        images: N images of one shape, in [0, 1].
        device: The device of the batches.

    Returns:
        A function from indices, [n] int64, to images, [n, *image_shape] float32.

    Raises:
        TypeError: See `db3kd.data.arguments.as_images`.
        ValueError: If there are none, or if values lie outside [0, 1]. The images of a larger set
            are checked when their batch is read.
    """
    source = as_image_source(images)
    if len(source) == 0:
        raise ArgumentError("images", "expected at least one image, got none")
    first = source.read(torch.zeros(1, dtype=torch.int64))
    shape = check_image_shape(tuple(first.shape[1:]), "images, the shape of one")
    if isinstance(source, TensorImages):
        everything = source.tensor
    elif len(source) * first.nbytes <= RESIDENT_BYTES:
        everything = _read_all(source, first)
    else:
        read = source.read
        return lambda index: check_images(read(index.cpu()), shape, UNIT_BOUNDS).to(device)
    check_images(everything, shape, UNIT_BOUNDS)
    held = everything.to(device) if everything.nbytes <= RESIDENT_BYTES else everything
    return lambda index: held[index.to(held.device)].to(device)


def _read_all(source: ImageSource, first: Tensor) -> Tensor:
    everything = first.new_empty(len(source), *first.shape[1:])
    batch_size = fitting_batch_size(_READ_BATCH_SIZE, tuple(first.shape[1:]))
    for part in torch.arange(len(source)).split(batch_size):
        everything[part[0] : part[-1] + 1] = source.read(part)
    return everything
