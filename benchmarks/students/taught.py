"""What proxies are worth to a student, by the number of answers per image.

A student learns the decisions for samples and random augmented images, alone and with the proxies
that `db3kd distill` trains on the same answers. Its agreement is measured on other images of the
train split, never on test images, so settings may be chosen by it.

    python -m benchmarks.students.taught --data DIR --teacher FILE --students lenet5-fifth
"""

import argparse
import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import db3kd
from benchmarks.common.setting import TrainedTeacher, parser, trained_teacher
from benchmarks.students.other_images import OtherImages, measure_rows
from db3kd.models import build_model
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.distill_settings import proxy_for
from db3kd.pipelines.query_rounds.rounds import Proxies
from db3kd.pipelines.student_training.student_trainer import StudentTrainer
from db3kd.training.network_store import NetworkStore


def main() -> None:
    """Trains the students that are missing, and writes the result after each."""
    options = _options()
    trained = trained_teacher(options)
    cells = (
        {
            "images": images,
            "per_sample": per_sample,
            "seed": seed,
            "student": student,
            "proxies": proxies,
        }
        for seed, images, per_sample, student, proxies in itertools.product(
            range(options.seeds),
            options.images,
            options.per_sample,
            options.students,
            (0, db3kd.DistillSettings().proxies),
        )
    )
    measure_rows(options, trained, cells, partial(_agreement, trained, options), ["steps"])


def _agreement(
    trained: TrainedTeacher,
    options: argparse.Namespace,
    images: int,
    per_sample: float,
    seed: int,
    student: str,
    proxies: int,
) -> float:
    """Returns the agreement of a new student with the teacher on other train images, in [0, 1]."""
    others = OtherImages(trained, images, seed)
    answers = others.answers(round(per_sample * images))
    settings = db3kd.DistillSettings()
    settings = replace(settings, training=replace(settings.training, seed=seed, device="cpu"))
    settings = settings.completed(pseudo_samples=False)
    rate = settings.learning_rates[0]
    shape, classes = trained.train.image_shape, trained.classes
    proxy = proxy_for(student, shape)
    # Students of one proxy architecture learn from the same proxies.
    folder = options.runs / trained.train.name / f"{images}-{per_sample}-{proxy}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    teaching = StudentTrainer(
        make=partial(build_model, student, shape, classes),
        name=student,
        classes=classes,
        pseudo_samples=False,
        settings=settings,
        steps=options.steps,
        store=NetworkStore(folder, {"teacher": trained.teacher.fingerprint(), "seed": seed}),
        notes=DistillNotes(folder),
    )
    networks = teaching.choose_proxies(
        answers,
        Proxies(partial(build_model, proxy, shape, classes), proxy, proxies),
        rate,
        prefer_proxies=True,
    )
    return others.agreement(teaching.train_student(answers, networks, rate))


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--images", type=int, nargs="+", default=[1000])
    options.add_argument("--per-sample", type=float, nargs="+", default=[10.0, 50.0])
    options.add_argument("--students", nargs="+", default=["lenet5-half", "lenet5-fifth"])
    options.add_argument("--steps", type=int, default=6000)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--runs", type=Path, default=Path("runs/taught"))
    return options.parse_args()


if __name__ == "__main__":
    main()
