"""What students come out: soft labels beside what they are compared with, on one transfer set.

The teacher is trained on the whole train split. Students see the transfer set alone, without the
data set's own labels, for equally many steps; test images are looked at once, at the end.

    python -m benchmarks.students --data DIR --teacher FILE --save NAME
"""

import argparse
import dataclasses
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.label_quality import chosen_scale, rank_correlation
from benchmarks.record import keep
from benchmarks.setting import parser, teacher_and_data
from db3kd.augment import AugmentedImages
from db3kd.baselines import (
    Recipe,
    RecipeResult,
    augmented_decisions,
    compare,
    on_augmented_decisions,
    on_decisions,
    on_noise_logits,
    on_soft_labels,
    on_surrogate_logits,
    on_teacher_logits,
)
from db3kd.data import ImageSet
from db3kd.distill import KDLoss, predict_logits
from db3kd.labels import LabelSettings, label, with_soft_labels
from db3kd.models import build_model
from db3kd.progress import Progress
from db3kd.report import comparison_table
from db3kd.scale import ScaleChoice
from db3kd.store import Labels
from db3kd.teachers import Teacher, decide_checked
from db3kd.training import TrainSettings


def main() -> None:
    options = _options()
    network, teacher, train, test, accuracy = teacher_and_data(options)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    images = train.subset(order[: options.images])
    training = TrainSettings(steps=options.steps, device="cpu")
    student = partial(build_model, options.student, train.image_shape, train.classes)
    surrogate = partial(build_model, "lenet5", train.image_shape, train.classes)
    loss = KDLoss(temperature=4.0)

    decisions = decide_checked(teacher, images.read(range(len(images))))
    asked = augmented_decisions(
        AugmentedImages(images, options.augmented, seed=0), partial(decide_checked, teacher)
    )
    logits = partial(predict_logits, network)
    recipes = [
        on_decisions(student, images, decisions, training),
        on_augmented_decisions(student, asked, training),
        on_teacher_logits(student, images, decisions, logits, loss, training),
        on_surrogate_logits(student, surrogate, images, decisions, loss, training),
        on_noise_logits(student, images, decisions, train.classes, loss, training),
    ]
    notes = {}
    for name, labels in _labels(teacher, images, options):
        steps, students = options.scale_steps, options.scale_students
        choice = chosen_scale(student, images, labels, loss, steps, students)
        notes[name] = _describe(labels, logits(images), choice)
        print(name, notes[name], flush=True)
        recipes.append(_on_margin(name, student, images, labels, choice.scale, loss, training))
    recipes.append(_as_published(student, images, labels, training))

    test_decisions = decide_checked(teacher, test.read(range(len(test))))
    results = compare(
        recipes,
        range(options.seeds),
        test,
        test.labels,
        test_decisions,
        lambda name, seed: print(f"training: {name}, seed {seed}", flush=True),
    )
    print(comparison_table(results)[0])
    keep(options, _result(options, train, accuracy, notes, results))


def _labels(
    teacher: Teacher, images: ImageSet, options: argparse.Namespace
) -> Iterator[tuple[str, Labels]]:
    """Labels by name; of MBD one run, as it stood after each number of queries, and at its end."""
    *early, most = sorted(options.queries_per_pair)
    for measure in ("sd", "bd"):
        settings = LabelSettings(measure, queries_per_pair=most)
        yield measure, _label(teacher, images, settings)
    settings = LabelSettings("mbd", queries_per_pair=most, snapshots=tuple(early))
    labels = _label(teacher, images, settings)
    for count in early:
        yield (
            f"mbd {count}",
            dataclasses.replace(
                labels,
                distances=labels.snapshots[count],
                queries=labels.queries.clamp_max(count),
                snapshots={},
            ),
        )
    yield f"mbd {most}" if early else "mbd", labels


def _label(teacher: Teacher, images: ImageSet, settings: LabelSettings) -> Labels:
    title = f"labelling ({settings.measure})"
    with Progress(len(images), title=title, interval=60) as progress:
        return label(teacher, images, settings, progress=progress)


def _on_margin(measure, student, images, labels, scale, loss, training) -> Recipe:
    soft = with_soft_labels(labels, scale=scale, temperature=loss.temperature).soft_labels
    queries = labels.queries.sum().item() / len(labels)
    name = f"{measure.upper()}, margin"
    return on_soft_labels(name, queries, student, images, labels.decision, soft, loss, training)


def _as_published(student, images, labels, training) -> Recipe:
    loss = KDLoss.paper()
    soft = with_soft_labels(labels, normalisation="inverse", temperature=loss.temperature)
    queries = labels.queries.sum().item() / len(labels)
    return on_soft_labels(
        "MBD, inverse, T = 20 (the paper's)",
        queries,
        student,
        images,
        labels.decision,
        soft.soft_labels,
        loss,
        training,
    )


def _describe(labels: Labels, logits: Tensor, choice: ScaleChoice) -> dict[str, object]:
    """What a label run cost and what it is worth; the logits serve this figure alone."""
    others = labels.distances.isfinite() & (labels.distances > 0)
    return {
        "queries_per_sample": labels.queries.sum().item() / len(labels),
        "queries_per_pair": (labels.queries.sum().item() / len(labels) - 1) / (labels.classes - 1),
        "mean_distance": labels.distances[others].mean().item(),
        "rank_correlation_with_logits": rank_correlation(labels, logits),
        "scale": choice.scale,
        "trials": [dataclasses.asdict(trial) for trial in choice.trials],
    }


def _result(options, train, accuracy, notes, results: list[RecipeResult]) -> dict[str, object]:
    return {
        "data": train.name,
        "teacher_accuracy": accuracy,
        "student": options.student,
        "images": options.images,
        "steps": options.steps,
        "batch_size": TrainSettings().batch_size,
        "labels": notes,
        "rows": [dataclasses.asdict(result) for result in results],
    }


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=2000, help="size of the transfer set")
    options.add_argument("--student", default="lenet5-half")
    options.add_argument("--steps", type=int, default=2500, help="of every student, batch 128")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument(
        "--queries-per-pair", type=int, nargs="+", default=[500], help="MBD is trained on at each"
    )
    options.add_argument(
        "--augmented",
        type=int,
        help="queries a sample of the augmented decisions; by default as many as students see",
    )
    options.add_argument("--scale-steps", type=int, default=600)
    options.add_argument("--scale-students", type=int, default=3)
    chosen = options.parse_args()
    if chosen.augmented is None:
        chosen.augmented = max(1, chosen.steps * TrainSettings().batch_size // chosen.images)
    return chosen


if __name__ == "__main__":
    main()
