"""Timing of ops: places, rounds, clocks, and the bandwidth of a copy."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.device_timing import Stopwatch

_SECONDS = 0.2
"""Each way is timed for about so long, within the rounds below."""
_FEWEST, _MOST = 5, 200
_LONG = 0.005
"""Calls of so many seconds take turns with what they are compared with."""
_ROUND = 0.001
"""Shorter calls are repeated for so many seconds in a round."""
COPIED = 256 * 2**20
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


def measure(
    benchmark: Any, function: Callable[[], Any], place: Place, beside: Callable[[], Any]
) -> Any:
    """Times a function in as many rounds as its speed allows.

    The median seconds of a call go into `benchmark.extra_info`. On a GPU they are measured between
    two events on the device, and its caches are overwritten before each round. On one thread they
    are CPU time, to which other work on the cores adds little.

    Args:
        benchmark: The fixture of pytest-benchmark.
        function: What is timed.
        place: Where it runs.
        beside: What the function is compared with. If a call takes so long on a CPU that the
            machine can become slower meanwhile, it runs before each round, and its median seconds
            go into `extra_info["beside"]`.

    Returns:
        The result of the function.
    """
    result = benchmark.pedantic(function)
    if benchmark.disabled:
        return result
    if place.device.type == "cuda":
        function()
        torch.cuda.synchronize()
        watch = Stopwatch(place.device, _rounds(_seconds(function, place)), warmup=0)
        benchmark.extra_info["seconds"] = watch.time(function).median
        return result
    once = _seconds(function, place)
    turns, seconds = [], []
    for _ in range(_rounds(once)):
        if once >= _LONG:
            turns.append(_seconds(beside, place))
        seconds.append(_seconds(function, place, calls=max(1, int(_ROUND / once))))
    benchmark.extra_info["seconds"] = statistics.median(seconds)
    if turns:
        benchmark.extra_info["beside"] = statistics.median(turns)
    return result


def _rounds(seconds: float) -> int:
    return min(max(int(_SECONDS / max(seconds, _ROUND)), _FEWEST), _MOST)


def _seconds(function: Callable[[], Any], place: Place, calls: int = 1) -> float:
    """Seconds of one of so many calls in a row."""
    clock = process_time if place.threads == 1 else perf_counter
    begun = clock()
    for _ in range(calls):
        function()
    return (clock() - begun) / calls


@cache
def copy_of(place: Place) -> Callable[[], Tensor]:
    """A function that copies `COPIED` bytes into existing memory."""
    source = torch.rand(COPIED // 4, device=place.device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


@cache
def copy_seconds(place: Place) -> float:
    """Seconds of such a copy, the median of ten."""
    if place.device.type == "cuda":
        return Stopwatch(place.device, rounds=10, warmup=1).time(copy_of(place)).median
    return statistics.median(_seconds(copy_of(place), place) for _ in range(10))


def rows_of(benchmarks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Converts entries of pytest-benchmark to rows of a result: extra info and seconds.

    Rows of a group with an eager way get `times_eager`, how many times as fast as that they are. If
    the eager and the native way took turns, the factor of the native way is over these.
    """
    rows = []
    for entry in benchmarks:
        seconds = entry["stats"]["median"]
        rows.append({"group": entry["group"], "seconds": seconds} | entry["extra_info"])
    eager = {row["group"]: row for row in rows if row.get("way") == "eager"}
    for row in rows:
        if row["group"] not in eager:
            continue
        other = eager[row["group"]]
        seconds = other.get("beside", row["seconds"]) if row["way"] == "native" else row["seconds"]
        row["times_eager"] = other["seconds"] / seconds
    return rows
