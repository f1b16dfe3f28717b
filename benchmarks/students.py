"""What students come out: soft labels beside what they are compared with, on one transfer set.

The teacher is trained on the whole train split. Students see the transfer set alone, without the
data set's own labels, for equally many steps; test images are looked at once, at the end.

    python -m benchmarks.students --data DIR --teacher FILE --save NAME
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.label_quality import chosen_scale, rank_correlation
from benchmarks.record import keep
from benchmarks.setting import parser, teacher_and_data
from db3kd.augment import AugmentedImages
from db3kd.baselines import (
    AugmentedDecisions,
    Recipe,
    augmented_decisions,
    compare,
    on_augmented_decisions,
    on_decisions,
    on_noise_logits,
    on_soft_labels,
    on_soft_labels_and_augmented_decisions,
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


@dataclass(frozen=True)
class Lesson:
    """What every student of a run learns from, made once for all of them.

    logits: of the teacher, for the white box and the figures on labels alone.
    """

    images: ImageSet
    decisions: Tensor
    asked: AugmentedDecisions
    labels: dict[str, Labels]
    logits: Callable[[Tensor], Tensor]


def main() -> None:
    options = _options()
    network, teacher, train, test, accuracy = teacher_and_data(options)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    images = train.subset(order[: options.images])
    logits = partial(predict_logits, network)
    lesson = Lesson(
        images,
        decide_checked(teacher, images.read(range(len(images)))),
        augmented_decisions(
            AugmentedImages(images, options.augmented, seed=0), partial(decide_checked, teacher)
        ),
        dict(_labels(teacher, images, options)),
        logits,
    )
    notes = {name: _describe(made, logits(images)) for name, made in lesson.labels.items()}
    print(notes, flush=True)
    test_decisions = decide_checked(teacher, test.read(range(len(test))))
    students = {
        name: _of_student(name, lesson, test, test_decisions, options) for name in options.student
    }
    result = {
        "data": train.name,
        "teacher_accuracy": accuracy,
        "images": options.images,
        "steps": options.steps,
        "batch_size": TrainSettings().batch_size,
        "labels": notes,
        "students": students,
    }
    keep(options, result)


def _of_student(
    name: str, lesson: Lesson, test: ImageSet, test_decisions: Tensor, options: argparse.Namespace
) -> dict[str, object]:
    """The scales chosen for this student, and its row for each way to learn."""
    student = partial(build_model, name, test.image_shape, test.classes)
    loss = KDLoss(temperature=4.0)
    choices = {}
    for measure, labels in lesson.labels.items():
        steps, students = options.scale_steps, options.scale_students
        choice = chosen_scale(student, lesson.images, labels, loss, steps, students)
        print(f"{name}, {measure}: scale {choice.scale:.3g}", flush=True)
        choices[measure] = choice
    results = compare(
        list(_recipes(student, lesson, choices, loss, options)),
        range(options.seeds),
        test,
        test.labels,
        test_decisions,
        lambda row, seed: print(f"training: {name}, {row}, seed {seed}", flush=True),
    )
    print(comparison_table(results)[0])
    return {
        "scales": {measure: dataclasses.asdict(choice) for measure, choice in choices.items()},
        "rows": [dataclasses.asdict(result) for result in results],
    }


def _recipes(
    student: Callable[[], nn.Module],
    lesson: Lesson,
    choices: dict[str, ScaleChoice],
    loss: KDLoss,
    options: argparse.Namespace,
) -> Iterator[Recipe]:
    """The rows of a student's table, in order."""
    images, decisions, asked = lesson.images, lesson.decisions, lesson.asked
    training = TrainSettings(steps=options.steps, device="cpu")
    surrogate = partial(build_model, "lenet5", images.image_shape, images.classes)
    yield on_decisions(student, images, decisions, training)
    yield on_augmented_decisions(student, asked, training)
    yield on_teacher_logits(student, images, decisions, lesson.logits, loss, training)
    yield on_surrogate_logits(student, surrogate, images, decisions, loss, training)
    yield on_noise_logits(student, images, decisions, images.classes, loss, training)
    soft = {
        measure: with_soft_labels(
            labels, scale=choices[measure].scale, temperature=loss.temperature
        ).soft_labels
        for measure, labels in lesson.labels.items()
    }
    spent = {name: _queries_per_sample(labels) for name, labels in lesson.labels.items()}
    for measure, made in soft.items():
        yield on_soft_labels(
            f"{measure.upper()}, margin",
            spent[measure], student, images, decisions, made, loss, training,
        )  # fmt: skip
    best = list(soft)[-1]
    yield on_soft_labels_and_augmented_decisions(
        f"{best.upper()}, margin, and augmented decisions",
        spent[best], student, asked, soft[best], loss, training,
    )  # fmt: skip
    yield _as_published(student, lesson, best, training)


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


def _as_published(
    student: Callable[[], nn.Module], lesson: Lesson, measure: str, training: TrainSettings
) -> Recipe:
    loss, labels = KDLoss.paper(), lesson.labels[measure]
    soft = with_soft_labels(labels, normalisation="inverse", temperature=loss.temperature)
    return on_soft_labels(
        f"{measure.upper()}, inverse, T = 20 (the paper's)",
        _queries_per_sample(labels),
        student,
        lesson.images,
        lesson.decisions,
        soft.soft_labels,
        loss,
        training,
    )


def _describe(labels: Labels, logits: Tensor) -> dict[str, float]:
    """What a label run cost and what it is worth; the logits serve this figure alone."""
    others = labels.distances.isfinite() & (labels.distances > 0)
    spent = _queries_per_sample(labels)
    return {
        "queries_per_sample": spent,
        "queries_per_pair": (spent - 1) / (labels.classes - 1),
        "mean_distance": labels.distances[others].mean().item(),
        "rank_correlation_with_logits": rank_correlation(labels, logits),
    }


def _queries_per_sample(labels: Labels) -> float:
    return labels.queries.sum().item() / len(labels)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=2000, help="size of the transfer set")
    options.add_argument("--student", nargs="+", default=["lenet5-half"], help="one or several")
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
