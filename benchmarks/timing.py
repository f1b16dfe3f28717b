"""How ops are timed: where they run, in how many rounds, by which clock, beside which bandwidth."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import median
from time import perf_counter
from typing import Any

import torch

_SECONDS = 0.2
"""Each way is timed for about so long, within the rounds below."""
_FEWEST, _MOST = 3, 200
_COPIED = 256 * 2**20
"""Bytes of a copy whose speed is measured: more than the processor's second-level caches hold, and
more than a GPU's caches."""


@dataclass(frozen=True)
class Place:
    """Where an op runs. threads: of the processor; without meaning on a GPU."""

    device: torch.device
    threads: int

    def __str__(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {self.threads} thread{'s' * (self.threads > 1)}"


def measure(benchmark: Any, function: Callable[[], Any], place: Place) -> Any:
    """Runs it in as many rounds as its speed allows, and returns what it returned.

    Puts the median seconds of a round into `benchmark.extra_info`. A GPU's are those between two
    events on the device, its caches overwritten before each round.
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
        benchmark.extra_info["seconds"] = median(device_seconds(function, rounds))
        return benchmark.pedantic(function)
    result = benchmark.pedantic(function, rounds=rounds)
    benchmark.extra_info["seconds"] = benchmark.stats.stats.median
    return result


def device_seconds(function: Callable[[], Any], rounds: int) -> list[float]:
    """Seconds of each round on the GPU. The overwriting keeps it busy while the host gets ahead."""
    flush = torch.empty(_COPIED, dtype=torch.uint8, device="cuda")
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for begin, end in events:
        flush.zero_()
        begin.record()
        function()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1000 for begin, end in events]


@cache
def copy_bandwidth(place: Place) -> float:
    """Bytes a second, read and written, of a copy into memory that is there already."""
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=place.device)
    target = torch.zeros_like(source)

    def copy() -> None:
        target.copy_(source)

    copy()
    if place.device.type == "cuda":
        return 2 * _COPIED / min(device_seconds(copy, 10))
    seconds = []
    for _ in range(10):
        begun = perf_counter()
        copy()
        seconds.append(perf_counter() - begun)
    return 2 * _COPIED / min(seconds)


def rows_of(benchmarks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """pytest-benchmark's entries as rows of a result: what a test noted and its seconds.

    Rows of one contest, which agree in all but `way`, get `times_eager`: how many times as fast as
    the eager way they are.
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
