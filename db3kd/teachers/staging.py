"""How images on the CPU reach a GPU without making the CPU wait: through pinned memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=True)


class Staging:
    """Two pinned buffers in turn: while one is copied to the device, the other is filled.

    device: where images go. allocate: makes a buffer, as torch.empty does. make_event: says when
    the device has read a buffer, as torch.cuda.Event does.
    """

    def __init__(
        self,
        device: torch.device,
        allocate: Callable[..., Tensor] = _pinned,
        make_event: Callable[[], Any] = torch.cuda.Event,
    ) -> None:
        self._device = device
        self._allocate = allocate
        self._buffers: list[Tensor | None] = [None, None]
        self._read = [make_event(), make_event()]
        self._turn = 0

    def send(self, images: Tensor) -> Tensor:
        """Images on the CPU, [n, *shape] -> the same on the device, queued on its stream."""
        self._turn = 1 - self._turn
        read = self._read[self._turn]
        read.synchronize()  # two batches ago; at once where there was none
        buffer = self._buffer(images)
        buffer.copy_(images)
        sent = torch.empty(images.shape, dtype=images.dtype, device=self._device)
        sent.copy_(buffer, non_blocking=True)
        read.record()
        return sent

    def _buffer(self, images: Tensor) -> Tensor:
        """The first rows of the buffer whose turn it is, made anew where it does not fit."""
        held = self._buffers[self._turn]
        if (
            held is None
            or len(held) < len(images)
            or (held.shape[1:], held.dtype) != (images.shape[1:], images.dtype)
        ):
            held = self._allocate(images.shape, dtype=images.dtype)
            self._buffers[self._turn] = held
        return held[: len(images)]
