"""Timing on a device by its events, with cold caches and medians of many rounds."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SLEEP_CYCLES = 2_000_000
"""About a millisecond, in which the host launches what is timed."""

_FLUSH_BYTES = 256 * 2**20
"""Bytes written between rounds: more than any L2 cache holds."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median and the fastest of so many rounds."""

    median: float
    fastest: float
    rounds: int


class Stopwatch:
    """Times calls on one device.

    On CUDA a round is timed between two events. If it is `queued`, the device flushes its cache and
    sleeps for a millisecond while the host queues the call, so that only kernels are timed.
    Otherwise the device is idle when the call starts, and launches count. On a CPU both use the
    wall clock.
    """

    def __init__(self, device: torch.device, rounds: int = 30, warmup: int = 5) -> None:
        self._device, self._rounds, self._warmup = device, rounds, warmup
        on_cuda = device.type == "cuda"
        self._flush = torch.empty(_FLUSH_BYTES if on_cuda else 0, dtype=torch.int8, device=device)

    def time(
        self,
        run: Callable[..., Any],
        arguments: Callable[[], Sequence[Any]] = tuple,
        *,
        queued: bool = True,
    ) -> Timing:
        """Times `run(*arguments())`.

        Args:
            run: The call.
            arguments: Makes the arguments before each round; this is not timed.
            queued: See the class.
        """
        for _ in range(self._warmup):
            run(*arguments())
        once = self._on_cuda if self._device.type == "cuda" else self._on_cpu
        seconds = [once(run, arguments(), queued) for _ in range(self._rounds)]
        return Timing(statistics.median(seconds), min(seconds), self._rounds)

    def _on_cuda(self, run: Callable[..., Any], arguments: Sequence[Any], queued: bool) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(self._device)
        self._flush.zero_()
        if queued:
            torch.cuda._sleep(_SLEEP_CYCLES)
        else:
            torch.cuda.synchronize(self._device)
        start.record()
        run(*arguments)
        end.record()
        torch.cuda.synchronize(self._device)
        return start.elapsed_time(end) / 1000

    def _on_cpu(self, run: Callable[..., Any], arguments: Sequence[Any], queued: bool) -> float:
        start = time.perf_counter()
        run(*arguments)
        return time.perf_counter() - start


def time_copy(watch: Stopwatch, device: torch.device, size: int) -> Timing:
    """Times a copy of `size` bytes on the device, which reads and writes as many."""
    source = torch.rand(size // 4, device=device)
    target: Tensor = torch.empty_like(source)
    return watch.time(lambda: target.copy_(source))
