"""How much faster a labelling run is in memory that is used again, with teachers of two sizes.

    python -m benchmarks.systems.result_memory

Each round labels the same images twice, once with the memory of results kept (the default) and once
with every result in new memory (`ops.keep_result_memory(0)`), in alternating order. The labels must
be equal to the bit.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.generated import random_teacher
from benchmarks.common.record import keep, plain_parser
from db3kd import ops
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import Labels
from db3kd.teachers import ModuleTeacher

CASES = (("lenet5", (1, 28, 28)), ("linear", (1, 28, 28)), ("linear", (3, 64, 64)))
"""Teachers and the shapes of their images. A batch of 2,048 takes 6 MB, or 101 MB."""

SETTINGS = LabelSettings("mbd", starting_points=5, queries_per_pair=100)


def timed(
    teacher: ModuleTeacher, images: Tensor, index: Tensor, kept: int
) -> tuple[dict[str, float], Labels]:
    """Labels with so many bytes of memory kept, and returns the seconds and the labels."""
    before = ops.keep_result_memory(kept)
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        labels = label(teacher, images, SETTINGS, index=index, progress=False)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}, labels
    finally:
        ops.keep_result_memory(before)


def compare(model: str, shape: tuple[int, int, int], samples: int, rounds: int) -> dict[str, Any]:
    """Returns the medians of both ways for one teacher, after a round that warms up."""
    images = torch.rand(max(2 * samples, 200), *shape, generator=torch.Generator().manual_seed(0))
    teacher, index = random_teacher(model, images, classes=10), torch.arange(samples)
    ways = {"reused": 2**30, "new": 0}
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        found = {}
        for way in list(ways)[:: 1 if number % 2 else -1]:
            measured, found[way] = timed(teacher, images, index, ways[way])
            if number > 0:
                seconds[way].append(measured)
        if not torch.equal(found["reused"].distances, found["new"].distances):
            raise SystemExit(f"{model}: expected labels of the same bits")
    row: dict[str, Any] = {
        "teacher": model,
        "image": " x ".join(map(str, shape)),
        "samples": samples,
        "queries": int(found["new"].queries.sum()),
        "rounds": rounds,
    }
    for clock in ("wall", "cpu"):
        medians = {way: statistics.median(r[clock] for r in runs) for way, runs in seconds.items()}
        row |= {f"{clock}_{way}": value for way, value in medians.items()}
        row[f"{clock}_new_over_reused"] = medians["new"] / medians["reused"]
    print(row, flush=True)
    return row


def main() -> None:
    """Measures all teachers and writes the result."""
    options = _options()
    torch.set_num_threads(options.threads)
    rows = [compare(*case, options.samples, options.rounds) for case in CASES]
    keep(options, {"rows": rows})


def _options() -> argparse.Namespace:
    options = plain_parser(__doc__)
    options.add_argument("--samples", type=int, default=128)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    return options.parse_args()


if __name__ == "__main__":
    main()
