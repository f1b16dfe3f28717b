"""Timing of ops: places, rounds, clocks, and the bandwidth of a copy."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.device_timing import Stopwatch

_SECONDS = 0.2
"""Each way is timed for about so long, within the rounds below."""
_FEWEST, _MOST = 5, 200
_LONG = 0.005
"""Calls of so many seconds take turns with what they are compared with."""
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

    The median seconds of a round go into `benchmark.extra_info`. On a GPU they are measured between
    two events on the device, and its caches are overwritten before each round.

    Args:
        benchmark: The fixture of pytest-benchmark.
        function: What is timed.
        place: Where it runs.
        beside: What the function is compared with. If a call takes so long on a CPU that other work
            on the machine can change meanwhile, it runs before each round, and its median seconds
            go into `extra_info["beside"]`.

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
    once = perf_counter() - begun
    rounds = min(max(int(_SECONDS / once), _FEWEST), _MOST)
    if on_gpu:
        watch = Stopwatch(place.device, rounds, warmup=0)
        benchmark.extra_info["seconds"] = watch.time(function).median
        return benchmark.pedantic(function)
    turns: list[float] = []

    def take_turn() -> None:
        begun = perf_counter()
        beside()
        turns.append(perf_counter() - begun)

    is_long = once >= _LONG
    result = benchmark.pedantic(function, rounds=rounds, setup=take_turn if is_long else None)
    benchmark.extra_info["seconds"] = benchmark.stats.stats.median
    if turns:
        benchmark.extra_info["beside"] = statistics.median(turns)
    return result


@cache
def copy_of(place: Place) -> Callable[[], Tensor]:
    """A function that copies `COPIED` bytes into existing memory."""
    source = torch.rand(COPIED // 4, device=place.device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


@cache
def copy_seconds(place: Place) -> float:
    """Seconds of such a copy, the fastest of ten."""
    return Stopwatch(place.device, rounds=10, warmup=1).time(copy_of(place)).fastest


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
