"""How many images a model answers at once on a CPU.

A batch of 256 is right for small images. At 224x224 it takes gigabytes, leaves the caches, and is
two to three times slower for each image than a batch of 4. The rule looks at sizes alone and times
nothing, so that the batch is the same on every machine and after every restart.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU_BATCH = 256
"""The most images of one forward pass: LeNet-5 on one thread takes 0.06 ms an image at 64 and at
256, 0.10 at 512 and 0.11 at 2048. Smaller batches cost more calls."""

_WORKING_BYTES = 48 * 2**20
"""What one operation may read and write of a batch, weights aside. Networks of depthwise
convolutions and ResNet-18 are fastest with 20 to 60 MiB, and slower on either side."""

_WORKING_SHARE = 16
"""Times its own float32 size that an image is assumed to take in the largest operation of a model
that cannot be looked into: EfficientNet-lite0 takes 16 times, ResNet-18 at 224x224 takes 11."""

_CALL_BYTES = 16 * 2**20
"""What the images of one call of a function may take: a call may cost something of itself."""


def batch_for_bytes(bytes_an_image: int, most_bytes: int = _WORKING_BYTES) -> int:
    """The largest power of two, from 1 to `CPU_BATCH`, of images that fit into `most_bytes`.

    Powers of two, since torch rounds odd batches otherwise: in one of 1 or 7 images the scores of a
    network often differ in the last bit from those in one of 4, 8 or 256.
    """
    fitting = most_bytes // max(1, bytes_an_image)
    return 2 ** (max(1, min(CPU_BATCH, fitting)).bit_length() - 1)


def batch_for_module(
    network: nn.Module, forward: Callable[[Tensor], Any], image_shape: Sequence[int], image: Tensor
) -> int:
    """The batch of a torch network, by what its largest operation reads and writes for one image.

    Args:
        network: whose weights do not count.
        forward: runs the network on [1, *image_shape].
        image_shape: of one image.
        image: [1, *image_shape], as the network takes it. A network that fails on it, or of which
            torch sees no operation, is judged by the size of its images.
    """
    with torch.random.fork_rng(devices=()):
        bytes_an_image = _working_bytes(network, lambda: forward(image))
    if not bytes_an_image:
        return batch_for_images(image_shape)
    return batch_for_bytes(bytes_an_image)


def batch_for_images(image_shape: Sequence[int]) -> int:
    """The batch of a model that cannot be looked into, by the size of its images."""
    return batch_for_bytes(_WORKING_SHARE * 4 * math.prod(image_shape))


def batch_for_calls(image_shape: Sequence[int]) -> int:
    """The batch of a function, of which nothing but the size of its images is known."""
    return batch_for_bytes(4 * math.prod(image_shape), _CALL_BYTES)


def _working_bytes(network: nn.Module, run: Callable[[], Any]) -> int:
    """The most bytes that one operation of a run reads and writes beside the network's state.

    0 where the run fails: whoever runs it in earnest will meet the error again.
    """
    weights = {_storage(tensor) for tensor in [*network.parameters(), *network.buffers()]}
    watch = _Watch(weights)
    try:
        with torch.inference_mode(), watch:
            run()
    except Exception:
        return 0
    return watch.most


class _Watch(TorchDispatchMode):
    """Sees each operation and adds up the memory of its tensors, but for some storages.

    most: bytes, of the operation with the most.
    """

    def __init__(self, left_out: set[int]) -> None:
        super().__init__()
        self.most = 0
        self._left_out = left_out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads its compiler for this, which takes 1.3 s of CPU time

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
        here = sum(size for storage, size in sizes.items() if storage not in self._left_out)
        self.most = max(self.most, here)
        return result


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
