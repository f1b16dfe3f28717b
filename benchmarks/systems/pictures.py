"""Time by stage and peak memory of a distillation of JPEG pictures with 1,000 classes.

The pictures are generated, 256x320 pixels each, and read at 224x224. The teacher is a linear
layer with random weights over a coarse picture, and trainings are a few steps, so that the time of
db3kd itself is visible. Each strategy runs in a separate process. The stages add up to `seconds`;
"asking" includes the searches for distances, and the teacher's time.

    python -m benchmarks.systems.pictures --save pictures
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import db3kd
from benchmarks.common.peak_memory import peak_mib
from benchmarks.common.record import keep, plain_parser
from benchmarks.common.timed_teacher import TimedTeacher
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.teachers import ModuleTeacher

_SHAPE, _CLASSES = (3, 224, 224), 1000
_HEIGHT, _WIDTH, _DETAIL = 256, 320, 32


def main() -> None:
    """Measures each strategy, and writes the result after it."""
    options = _options()
    if options.strategy:
        print(json.dumps(_measure(options)))
        return
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        write_pictures(Path(folder), options.pictures)
        for strategy, per_picture in (("auto", 1), ("auto", 2), ("bd", 24)):
            command = [sys.executable, "-m", "benchmarks.systems.pictures"]
            for name, value in {
                "pictures": options.pictures,
                "strategy": strategy,
                "budget": per_picture * options.pictures,
                "steps": options.steps,
                "threads": options.threads,
                "folder": folder,
            }.items():
                command += [f"--{name}", str(value)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
            keep(options, {"pictures": options.pictures, "classes": _CLASSES, "rows": rows})


def write_pictures(folder: Path, count: int) -> None:
    """Writes coloured JPEG files with detail of a few pixels."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (_DETAIL, _DETAIL, 3), np.uint8))
        coarse.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC).save(
            folder / f"{number:05}.jpg", quality=90
        )


def random_teacher() -> ModuleTeacher:
    """Returns a teacher whose answers are spread over many classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.AvgPool2d(28),
            nn.Flatten(),
            nn.LayerNorm(192, elementwise_affine=False),
            nn.Linear(192, _CLASSES),
        )
    return ModuleTeacher(network.eval(), _SHAPE, _CLASSES)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    teacher = TimedTeacher(random_teacher())
    training = db3kd.TrainSettings(
        steps=options.steps, batch_size=8, schedule="cosine", device="cpu"
    )
    before = peak_mib()
    started = time.monotonic()
    with TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        images = db3kd.load_data(options.folder, size=_SHAPE[1])
        loading = time.monotonic() - started
        result = db3kd.distill(
            teacher,
            images,
            budget=options.budget,
            student="lenet5-fifth",
            strategy=options.strategy,
            settings=db3kd.DistillSettings(
                training=training, learning_rates=(1e-3,), proxy="lenet5-fifth"
            ),
            out=out,
        )
        seconds = time.monotonic() - started
        noted = DistillNotes(out).seconds
        stages = {"loading": loading, **{str(part): spent for part, spent in noted.items()}}
    # The rest checks the arguments and builds networks before, and measures and reports after.
    stages["other"] = seconds - sum(stages.values())
    return {
        "strategy": options.strategy,
        "budget": options.budget,
        "queries": result.queries,
        "seconds": seconds,
        "seconds_teacher": teacher.seconds(),
        **{f"seconds_{stage}": spent for stage, spent in stages.items()},
        "peak_mib": peak_mib(),
        "before_mib": before,
    }


def _options() -> argparse.Namespace:
    options = plain_parser(__doc__)
    options.add_argument("--pictures", type=int, default=2000)
    options.add_argument("--steps", type=int, default=12, help="of every full training")
    options.add_argument("--threads", type=int, default=1)
    for name in ("strategy", "folder"):
        options.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options.add_argument("--budget", type=int, help=argparse.SUPPRESS)
    return options.parse_args()


if __name__ == "__main__":
    main()
