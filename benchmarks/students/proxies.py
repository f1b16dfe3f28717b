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

import db3kd
from benchmarks.common.setting import TrainedTeacher, parser, trained_teacher
from benchmarks.students.other_images import OtherImages, measure_rows
from db3kd.answers.neighbour_labels import neighbour_labels
from db3kd.models import build_model
from db3kd.pipelines.query_rounds.rounds import Proxies, train_proxy
from db3kd.training.network_store import NetworkStore


def main() -> None:
    """Trains the proxies that are missing, and writes the result after each."""
    options = _options()
    trained = trained_teacher(options)
    cells = (
        {"images": images, "per_sample": per_sample, "seed": seed, "soft_labels": soft}
        for seed, images, per_sample, soft in itertools.product(
            range(options.seeds), options.images, options.per_sample, (False, True)
        )
    )
    measure = partial(_agreement, trained, options)
    measure_rows(options, trained, cells, measure, ("steps", "proxy"))


def _agreement(
    trained: TrainedTeacher,
    options: argparse.Namespace,
    images: int,
    per_sample: float,
    seed: int,
    soft_labels: bool,
) -> float:
    """Returns the agreement of a new proxy with the teacher on other train images, in [0, 1]."""
    others = OtherImages(trained, images, seed)
    answers = others.answers(round(per_sample * images))
    soft = partial(neighbour_labels, answers.training, trained.classes) if soft_labels else None
    settings = db3kd.DistillSettings().completed(pseudo_samples=False)
    make = partial(build_model, options.proxy, trained.train.image_shape, trained.classes)
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
    return others.agreement(network)


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
