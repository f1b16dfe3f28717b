"""Copies images to a GPU through pinned memory, so that the CPU need not wait."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=True)


class Staging:
    """Two pinned buffers used in turn: one is filled while the other is copied to the device.

    Args:
        device: The device that receives the images.
        allocate: Allocates a buffer from a shape and a dtype.
        make_event: Creates the events that mark when the device has read a buffer.
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
        """Returns images [n, *shape] from the CPU on the device, queued on its current stream."""
        self._turn = 1 - self._turn
        read = self._read[self._turn]
        read.synchronize()  # recorded two batches ago; returns at once before the first record
        buffer = self._buffer(images)
        buffer.copy_(images)
        sent = torch.empty(images.shape, dtype=images.dtype, device=self._device)
        sent.copy_(buffer, non_blocking=True)
        read.record()
        return sent

    def _buffer(self, images: Tensor) -> Tensor:
        """Returns the first rows of the current buffer, after replacing it if it does not fit."""
        buffer = self._buffers[self._turn]
        if (
            buffer is None
            or len(buffer) < len(images)
            or (buffer.shape[1:], buffer.dtype) != (images.shape[1:], images.dtype)
        ):
            buffer = self._allocate(images.shape, dtype=images.dtype)
            self._buffers[self._turn] = buffer
        return buffer[: len(images)]
