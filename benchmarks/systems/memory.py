"""Measures how the peak memory of a labelling run depends on the number of samples.

`db3kd label` labels the first images of the train split in a separate process for each size. All of
them are samples and starting points. The data must be uncompressed IDX files, which are mapped.

    python -m benchmarks.systems.memory --data DIR --teacher FILE
"""

import argparse
import math
import os
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common.record import keep
from benchmarks.common.setting import parser

_RUN = """
import atexit, resource
from db3kd.cli import main
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
main()
"""


@dataclass(frozen=True)
class Peak:
    """Peak memory and time of a run with so many samples."""

    samples: int
    mebibytes: float
    seconds: float


def main() -> None:
    """Measures all sizes and writes the result."""
    options = _options()
    with TemporaryDirectory() as folder:
        teacher = options.teacher or Path(folder) / "teacher.safetensors"
        if not teacher.exists():
            epochs = str(options.teacher_epochs)
            _run(options, "teacher", "--data", options.data, "--epochs", epochs, "--out", teacher)
        peaks = [_measure(options, teacher, samples, Path(folder)) for samples in options.sizes]
    growth = peaks[-1].mebibytes - peaks[0].mebibytes
    print(f"from {peaks[0].samples:,} to {peaks[-1].samples:,} samples: {growth:+.1f} MiB")
    keep(
        options,
        {
            "data": Path(options.data).name,
            "measure": options.measure,
            "candidates": options.starting_points,
            "queries_per_sample": options.queries_per_sample,
            "peaks": [asdict(peak) for peak in peaks],
        },
    )


def _measure(options: argparse.Namespace, teacher: Path, samples: int, folder: Path) -> Peak:
    images = folder / f"images-{samples}"
    _write_first_images(Path(options.data), images, samples)
    start = time.perf_counter()
    kibibytes = _run(
        options,
        *("label", "--teacher", teacher, "--data", images, "--out", folder / f"run-{samples}"),
        *("--measure", options.measure, "--starting-points", options.starting_points),
        *("--queries-per-sample", options.queries_per_sample, "--device", "cpu"),
    )
    peak = Peak(samples, kibibytes / 1024, time.perf_counter() - start)
    print(f"{samples:,} samples: {peak.mebibytes:.1f} MiB, {peak.seconds:.0f} s", flush=True)
    return peak


def _run(options: argparse.Namespace, *arguments: object) -> int:
    """Runs `db3kd` in a new process and returns its peak memory in KiB.

    This process must stay small, because children inherit its peak.
    """
    command = [sys.executable, "-c", _RUN, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def _write_first_images(data: Path, folder: Path, count: int) -> None:
    """Writes the first `count` images of a train split to another folder of IDX files."""
    folder.mkdir()
    for name, dimensions in (("train-images-idx3-ubyte", 3), ("train-labels-idx1-ubyte", 1)):
        with (data / name).open("rb") as file:
            head = f">{1 + dimensions}I"
            magic, held, *sizes = struct.unpack(head, file.read(struct.calcsize(head)))
            if held < count:
                raise SystemExit(
                    f"--sizes: expected at most {held:,}, the images of {data}, got {count:,}"
                )
            content = file.read(count * math.prod(sizes))
            (folder / name).write_bytes(struct.pack(head, magic, count, *sizes) + content)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--sizes", nargs="+", type=int, default=[2000, 20_000], metavar="SAMPLES")
    options.add_argument("--measure", choices=("sd", "bd", "mbd"), default="bd")
    options.add_argument("--starting-points", type=int, default=2)
    options.add_argument("--queries-per-sample", type=int, default=19)
    return options.parse_args()


if __name__ == "__main__":
    main()
