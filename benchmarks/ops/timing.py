"""Timing of ops: places, rounds, clocks, and the bandwidth of a copy."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any

import torch

from benchmarks.common.device_timing import Stopwatch, time_copy

_SECONDS = 0.2
"""Each way is timed for about so long, within the rounds below."""
_FEWEST, _MOST = 3, 200
_COPIED = 256 * 2**20
"""Bytes of a copy whose speed is measured: more than a GPU's caches or a processor's second-level
caches hold."""


@dataclass(frozen=True)
class Place:
    """Where an op runs: a device, and the threads of a processor."""

    device: torch.device
    threads: int

    def __str__(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {self.threads} thread{'s' * (self.threads > 1)}"


def measure(benchmark: Any, function: Callable[[], Any], place: Place) -> Any:
    """Times a function in as many rounds as its speed allows.

    The median seconds of a round go into `benchmark.extra_info`. On a GPU they are measured between
    two events on the device, and its caches are overwritten before each round.

    Returns:
        The result of the function.
    """
    if benchmark.disabled:
        return benchmark.pedantic(function)
    on_gpu = place.device.type == "cuda"
    begun = perf_counter()
    function()
    if on_gpu:
        torch.cuda.synchronize()
    rounds = min(max(int(_SECONDS / (perf_counter() - begun)), _FEWEST), _MOST)
    if on_gpu:
        watch = Stopwatch(place.device, rounds, warmup=0)
        benchmark.extra_info["seconds"] = watch.time(function).median
        return benchmark.pedantic(function)
    result = benchmark.pedantic(function, rounds=rounds)
    benchmark.extra_info["seconds"] = benchmark.stats.stats.median
    return result


@cache
def copy_bandwidth(place: Place) -> float:
    """Bytes a second, read and written, of a copy into existing memory."""
    watch = Stopwatch(place.device, rounds=10, warmup=1)
    return 2 * _COPIED / time_copy(watch, place.device, _COPIED).fastest


def rows_of(benchmarks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Converts entries of pytest-benchmark to rows of a result: extra info and seconds.

    Rows of a group with an eager way get `times_eager`, how many times as fast as that they are.
    """
    rows = []
    for entry in benchmarks:
        seconds = entry["stats"]["median"]
        rows.append({"group": entry["group"], "seconds": seconds} | entry["extra_info"])
    eager = {row["group"]: row["seconds"] for row in rows if row.get("way") == "eager"}
    for row in rows:
        if row["group"] in eager:
            row["times_eager"] = eager[row["group"]] / row["seconds"]
    return rows
