"""Measures how time, queries and memory of a labelling run grow with one setting at a time.

The images are noise around one random centre a class, in a mapped file. The teacher is a linear
layer that returns the nearest centre, so that every size is possible and db3kd's own time is
visible. Each point is a separate process. Exponents (cost grows as value^exponent) are fitted by
least squares on logarithms, to all points of a series and to its last two, which constant costs
affect less.

    python -m benchmarks.systems.growth --save growth
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common.peak_memory import peak_mib
from benchmarks.common.record import keep, plain_parser
from benchmarks.common.timed_teacher import TimedTeacher
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.labelling.label_images import label_chunks
from db3kd.labelling.settings import LabelSettings
from db3kd.teachers import ModuleTeacher, Teacher

_BLOCK_BYTES = 4 * 2**20
_FITTED = ("seconds", "own_seconds", "queries", "peak_mib")
_SPREAD = 0.12
"""Deviation of the noise around a centre, whose pixels are uniform in [0.25, 0.75]."""


@dataclass(frozen=True)
class Point:
    """One run, which labels the first `labelled` of `samples` images."""

    samples: int = 1000
    labelled: int = 1000
    classes: int = 10
    shape: tuple[int, ...] = (1, 28, 28)
    targets: int | None = None
    candidate_pool: int | None = 20_000
    query_batch_size: int = 2048
    threads: int = 2
    queries_per_pair: int = 60

    @property
    def pixels(self) -> int:
        """Values of an image."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Cost:
    """The cost of a point; `before_mib` is the peak memory of the process before the run."""

    seconds: float
    teacher_seconds: float
    queries: int
    peak_mib: float
    before_mib: float

    @property
    def own_seconds(self) -> float:
        """Seconds of db3kd itself."""
        return self.seconds - self.teacher_seconds


@dataclass
class Series:
    """Points that differ in one field or property of `Point`, named by `varied`."""

    name: str
    varied: str
    points: Sequence[Point]
    costs: list[Cost] = field(default_factory=list)

    @property
    def values(self) -> list[int]:
        """The values that vary."""
        return [getattr(point, self.varied) for point in self.points]

    def exponent(self, of: str, last: int = 0) -> float:
        """Fits the exponent of a cost.

        Args:
            of: A field or property of `Cost`.
            last: Fit only the last so many points; 0 for all.
        """
        costs = [getattr(cost, of) for cost in self.costs]
        slope, _ = np.polyfit(np.log(self.values[-last:]), np.log(costs[-last:]), 1)
        return float(slope)


def main() -> None:
    """Measures all series and writes the result."""
    options = _options()
    if options.point:
        print(json.dumps(asdict(_measure(Point(**json.loads(options.point))))))
        return
    series = list(_quick_series() if options.quick else _series())
    for one in series:
        for point in one.points:
            one.costs.append(_in_a_process(point))
            _print_cost(one)
        _print_exponents(one)
    keep(options, {"series": [_described(one) for one in series]})


def _series() -> Iterator[Series]:
    base = Point()
    for candidate_pool in (20_000, 1000):
        sizes = [
            (n, replace(base, candidate_pool=candidate_pool, samples=n))
            for n in (100, 316, 1000, 3162, 10_000)
        ]
        points = [replace(point, labelled=n) for n, point in sizes]
        yield Series(f"samples, candidate pool of {candidate_pool:,}", "samples", points)
    some = replace(base, samples=2000, labelled=20)
    yield Series("classes", "classes", [replace(some, classes=c) for c in (2, 10, 100, 1000)])
    few = replace(some, targets=5)
    points = [replace(few, classes=c) for c in (10, 100, 1000)]
    yield Series("classes, 5 targets", "classes", points)
    shapes = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 128, 128), (3, 224, 224))
    small = replace(base, samples=200, labelled=20)
    yield Series("pixels", "pixels", [replace(small, shape=shape) for shape in shapes])
    yield Series(
        "query batch size",
        "query_batch_size",
        [replace(base, query_batch_size=n) for n in (16, 64, 256, 1024, 4096)],
    )
    yield Series("threads", "threads", [replace(base, threads=n) for n in (1, 2)])


def _quick_series() -> Iterator[Series]:
    base = Point(samples=100, labelled=100, queries_per_pair=20, threads=1)
    points = [replace(base, samples=n, labelled=n) for n in (100, 400)]
    yield Series("samples", "samples", points)
    some = replace(base, samples=200, labelled=5)
    points = [replace(some, classes=c, targets=1) for c in (2, 20)]
    yield Series("classes, 1 target", "classes", points)
    points = [replace(some, shape=shape) for shape in ((1, 8, 8), (1, 28, 28))]
    yield Series("pixels", "pixels", points)
    yield Series(
        "query batch size",
        "query_batch_size",
        [replace(base, query_batch_size=n) for n in (64, 1024)],
    )


def _in_a_process(point: Point) -> Cost:
    """Measures a point in a new process, which inherits the peak memory of this one."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.systems.growth",
        "--point",
        json.dumps(asdict(point)),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def _measure(point: Point) -> Cost:
    torch.set_num_threads(point.threads)
    settings = LabelSettings(
        targets=point.targets,
        candidate_pool=point.candidate_pool,
        query_batch_size=point.query_batch_size,
        queries_per_pair=point.queries_per_pair,
    )
    centres = _centres(point)
    with TemporaryDirectory() as folder:
        images = _write_images(Path(folder) / "images.npy", centres, point)
        teacher = ModuleTeacher(_nearest_centre(centres), point.shape, point.classes)
        before = peak_mib()
        _label(teacher, images.subset(range(min(20, len(images)))), 1, settings)  # warm-up
        timed = TimedTeacher(teacher)
        start = time.perf_counter()
        queries = _label(timed, images, point.labelled, settings)
        seconds = time.perf_counter() - start
    return Cost(seconds, timed.seconds(), queries, peak_mib(), before)


def _label(teacher: Teacher, images: ImageSet, count: int, settings: LabelSettings) -> int:
    """Labels the first images chunk by chunk without keeping labels; returns the queries."""
    chunks = label_chunks(teacher, images, settings, index=torch.arange(count), progress=False)
    return sum(int(chunk.queries.sum()) for chunk in chunks)


def _centres(point: Point) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return 0.25 + 0.5 * torch.rand(point.classes, point.pixels, generator=draw)


def _nearest_centre(centres: Tensor) -> nn.Module:
    classes, pixels = centres.shape
    layer = nn.Linear(pixels, classes)
    layer.weight.data = 2 * centres
    layer.bias.data = -(centres**2).sum(1)
    return nn.Sequential(nn.Flatten(), layer)


def _write_images(file: Path, centres: Tensor, point: Point) -> ImageSet:
    """Writes the images to a file, one block at a time."""
    draw = torch.Generator().manual_seed(1)
    described = {"descr": "|u1", "fortran_order": False, "shape": (point.samples, *point.shape)}
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, described)
        for rows in torch.arange(point.samples).split(max(1, _BLOCK_BYTES // (4 * point.pixels))):
            noise = torch.randn(len(rows), point.pixels, generator=draw)
            block = centres[rows % point.classes].add_(noise, alpha=_SPREAD)
            out.write(block.mul_(255).round_().clamp_(0, 255).byte().numpy().tobytes())
    return load_data(str(file))


def _print_cost(series: Series) -> None:
    value, cost = series.values[len(series.costs) - 1], series.costs[-1]
    print(
        f"{series.name} {value:,}: {cost.seconds:.2f} s ({cost.teacher_seconds:.2f} s in the "
        f"teacher), {cost.queries:,} queries, {cost.peak_mib:.0f} MiB, of which "
        f"{cost.peak_mib - cost.before_mib:.0f} by the run",
        flush=True,
    )


def _print_exponents(series: Series) -> None:
    reported = ", ".join(
        f"{of} {series.exponent(of):+.2f} (last two {series.exponent(of, 2):+.2f})"
        for of in _FITTED
    )
    print(f"{series.name}, exponents: {reported}", flush=True)


def _described(series: Series) -> dict[str, object]:
    return {
        "name": series.name,
        "varied": series.varied,
        "exponents": {
            of: {"all": series.exponent(of), "last two": series.exponent(of, 2)} for of in _FITTED
        },
        "points": [
            asdict(point) | {series.varied: value} | asdict(cost)
            for point, value, cost in zip(series.points, series.values, series.costs, strict=True)
        ],
    }


def _options() -> argparse.Namespace:
    options = plain_parser(__doc__)
    options.add_argument("--quick", action="store_true", help="a few small points, in a minute")
    options.add_argument("--point", help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    main()
