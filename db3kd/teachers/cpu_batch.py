"""The batch size of a model on a CPU.

A batch of 256 suits small images. At 224x224 it takes gigabytes, does not fit in the caches, and
is two to three times slower per image than a batch of 4. The rule uses sizes only and measures no
time, so the batch size is the same on every machine and after every restart.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from db3kd.models.random_state import kept_random_state

CPU_BATCH = 256
"""Maximum number of images per forward pass. LeNet-5 on one thread takes 0.06 ms per image in
batches of 64 and 256, 0.10 ms at 512 and 0.11 ms at 2048. Smaller batches cost more calls."""

_WORKING_BYTES = 48 * 2**20
"""Bytes that one operation may read and write for a batch, without the weights. ResNet-18 and
networks of depthwise convolutions are fastest with 20 to 60 MiB."""

_WORKING_FACTOR = 16
"""The assumed bytes per image in the largest operation of a model that cannot be inspected, as a
multiple of the image's float32 size. It is 16 for EfficientNet-lite0 and 11 for ResNet-18 at
224x224."""

_CALL_BYTES = 16 * 2**20
"""Bytes that the images of one call of a function may take. A call may have a cost of its own."""


def batch_for_bytes(
    bytes_per_image: int, max_bytes: int = _WORKING_BYTES, most: int = CPU_BATCH
) -> int:
    """Returns the largest power of two of images, from 1 to `most`, that fit in `max_bytes`.

    Other sizes are avoided because torch rounds differently in them: scores from a batch of 1 or 7
    images often differ in the last bit from those of a batch of 4, 8 or 256.
    """
    fitting = max_bytes // max(1, bytes_per_image)
    return 2 ** (max(1, min(most, fitting)).bit_length() - 1)


def batch_for_module(
    network: nn.Module, forward: Callable[[Tensor], Any], image_shape: Sequence[int], image: Tensor
) -> int:
    """Returns the batch size of a torch network, from its largest operation's bytes per image.

    If the network fails on `image` or runs no torch operation, the size of the images is used.

    Args:
        network: The network. Its weights are not counted.
        forward: Runs the network on [1, *image_shape].
        image_shape: Shape of one image.
        image: [1, *image_shape], in the network's dtype and on its device.
    """
    with kept_random_state():
        bytes_per_image = _working_bytes(network, lambda: forward(image))
    if not bytes_per_image:
        return batch_for_images(image_shape)
    return batch_for_bytes(bytes_per_image)


def batch_for_images(image_shape: Sequence[int]) -> int:
    """Returns the batch size of a model that cannot be inspected, from the size of its images."""
    return batch_for_bytes(_WORKING_FACTOR * 4 * math.prod(image_shape))


def batch_for_calls(image_shape: Sequence[int], most: int = CPU_BATCH) -> int:
    """Returns the number of images per call of a function, from the size of its images."""
    return batch_for_bytes(4 * math.prod(image_shape), _CALL_BYTES, most)


def _working_bytes(network: nn.Module, run: Callable[[], Any]) -> int:
    """Returns the bytes that the largest operation reads and writes, without the network's state.

    Returns 0 if the run fails; the first real forward pass will report the error.
    """
    try:
        if any(map(is_lazy, (*network.parameters(), *network.buffers()))):
            with torch.no_grad():
                run()  # initializes the weights of lazy modules
        weights = {_storage(tensor) for tensor in (*network.parameters(), *network.buffers())}
        largest = _LargestOperation(weights)
        with torch.inference_mode(), largest:
            run()
    except Exception:
        return 0
    return largest.max_bytes


class _LargestOperation(TorchDispatchMode):
    """Finds the operation whose tensors take the most memory, ignoring the given storages."""

    def __init__(self, ignored: set[int]) -> None:
        super().__init__()
        self.max_bytes = 0
        self._ignored = ignored

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise torch imports its compiler, which takes 1.3 s of CPU time

    def __torch_dispatch__(
        self,
        operation: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
        counted = sum(size for storage, size in sizes.items() if storage not in self._ignored)
        self.max_bytes = max(self.max_bytes, counted)
        return result


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
