"""What the distances between samples are worth to a proxy, by the number of answers per image.

A proxy learns the decisions for samples and random augmented images, as the first proxy of `db3kd
distill` does, with and without the soft labels of `neighbour_labels`. Its agreement is measured on
other images of the train split, never on test images, so settings may be chosen by it.

    python -m benchmarks.students.proxies --data DIR --teacher FILE --images 300 1000
"""

import argparse
import itertools
import tempfile
from functools import partial
from pathlib import Path

import torch

import db3kd
from benchmarks.common.record import keep, rows_so_far
from benchmarks.common.setting import TrainedTeacher, parser, trained_teacher
from db3kd.distillation.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.distillation.evaluation import predict, share_equal
from db3kd.distillation.neighbour_labels import neighbour_labels
from db3kd.distillation.network_store import NetworkStore
from db3kd.models import build_model
from db3kd.pipelines.asking import Proxies, train_proxy
from db3kd.querying import decide_all

_MEASURED = 5000
"""The number of images that agreement is measured on."""


def main() -> None:
    """Trains the proxies that are missing, and writes the result after each."""
    options = _options()
    trained = trained_teacher(options)
    common = {"steps": options.steps, "proxy": options.proxy}
    rows = rows_so_far(options.save, common)
    for seed, images, per_sample, soft in itertools.product(
        range(options.seeds), options.images, options.per_sample, (False, True)
    ):
        cell = {"images": images, "per_sample": per_sample, "seed": seed, "soft_labels": soft}
        if any(all(row[name] == value for name, value in cell.items()) for row in rows):
            continue
        rows.append({**cell, "agreement": _agreement(trained, options, **cell)})
        print(rows[-1], flush=True)
        keep(
            options,
            {
                "data": trained.train.name,
                "teacher": options.teacher_model,
                "teacher_accuracy": trained.accuracy,
                **common,
                "rows": rows,
            },
        )


def _agreement(
    trained: TrainedTeacher,
    options: argparse.Namespace,
    images: int,
    per_sample: float,
    seed: int,
    soft_labels: bool,
) -> float:
    """Returns the agreement of a new proxy with the teacher on other train images, in [0, 1]."""
    order = torch.randperm(len(trained.train), generator=torch.Generator().manual_seed(1000 + seed))
    answers = _random_answers(trained, order[:images], round(per_sample * images), seed)
    others = trained.train.subset(order[images:][-_MEASURED:])
    soft = partial(neighbour_labels, answers, trained.classes) if soft_labels else None
    settings = db3kd.DistillSettings()
    make = partial(build_model, options.proxy, others.image_shape, trained.classes)
    with tempfile.TemporaryDirectory() as folder:
        network = train_proxy(
            "proxy",
            answers,
            Proxies(make, options.proxy, 1),
            0,
            settings.trained_for(options.steps, settings.learning_rates[0], seed),
            NetworkStore(Path(folder), {}),
            soft_labels=soft,
        )
    decisions = decide_all(trained.teacher, others.read, torch.arange(len(others)))
    return share_equal(predict(network, others), decisions)


def _random_answers(
    trained: TrainedTeacher, chosen: torch.Tensor, count: int, seed: int
) -> Answers:
    """Returns the decisions for the chosen images, then for as many augmented images of each."""
    images = len(chosen)
    augmentable = augmentable_images(trained.train.subset(chosen), torch.arange(images), 0, seed)
    numbers = torch.arange(count)
    rows = numbers % images * NUMBERS + numbers // images
    decisions = decide_all(trained.teacher, augmentable.read, rows)
    return no_answers(augmentable).add(rows, decisions)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--images", type=int, nargs="+", default=[300, 1000])
    options.add_argument("--per-sample", type=float, nargs="+", default=[2.0, 10.0])
    options.add_argument("--proxy", default="lenet5", help="its architecture")
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--seeds", type=int, default=1)
    return options.parse_args()


if __name__ == "__main__":
    main()
