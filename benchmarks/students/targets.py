"""What labels lose if only the nearest classes of a sample are searched.

One run searches every class. It contains the labels of runs with fewer targets to the bit
(tests/labelling/test_targets.py), so those are taken from it. Students train on each set of labels,
on decisions only, and on the logits of the teacher.

    python -m benchmarks.students.targets --data DIR --teacher FILE --save targets-fashion-mnist
    python -m benchmarks.students.targets --data generated --save targets-generated
"""

import argparse
import dataclasses
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.common.record import keep
from benchmarks.common.setting import TrainedTeacher, parser, trained_teacher
from benchmarks.students.baselines import white_box_method
from benchmarks.students.label_quality import (
    chosen_scale,
    margins,
    queries_per_sample,
    rank_correlation,
    runner_up_share,
)
from benchmarks.students.many_classes import many_classes
from benchmarks.students.methods import (
    MethodResult,
    TrainingMethod,
    compare_methods,
    decision_method,
    method_table,
    soft_label_method,
)
from db3kd.data.image_set import ImageSet
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import Labels
from db3kd.labels.targets import estimate_unsearched, nearest_classes, other_classes
from db3kd.models.networks import build_model
from db3kd.progress import Progress
from db3kd.teachers import ModuleTeacher, decide_checked
from db3kd.training.evaluation import predict_logits
from db3kd.training.loop import Model
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings


@dataclass(frozen=True)
class Quality:
    """What labels with so many targets are worth.

    Attributes:
        targets: Classes searched for each sample; 0 for sample distances, which need no search.
        queries_per_sample: The mean cost of a sample.
        rank_correlation: See `label_quality.rank_correlation`.
        runner_up_share: See `label_quality.runner_up_share`.
        covered: The share of samples whose nearest class in the full run is among the targets.
        scale: The scale chosen for the margins.
    """

    targets: int
    queries_per_sample: float
    rank_correlation: float
    runner_up_share: float
    covered: float
    scale: float


def main() -> None:
    """Labels once, trains the students and writes the result."""
    options = _options()
    trained = _trained(options)
    teacher, train, test = trained.teacher, trained.train, trained.test
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    images = train.subset(order[: options.images])
    sample_distances = label(teacher, images, LabelSettings("sd"), progress=False)
    full = _label(teacher, images, options)
    logits = predict_logits(trained.network, images)
    student = partial(build_model, options.student, train.image_shape, trained.classes)
    training = TrainSettings(steps=options.steps, device="cpu")
    shorter = replace(training, steps=options.scale_steps)
    loss = KDLoss(temperature=4.0)

    methods = [decision_method(student, images, full.decision, training)]
    qualities = []
    for count in (0, *options.targets, trained.classes - 1):
        labels = sample_distances if count == 0 else _narrowed(full, sample_distances, count)
        scale = chosen_scale(student, images, labels, loss, shorter, options.scale_students).scale
        qualities.append(_quality(labels, full, logits, count, scale))
        print(qualities[-1], flush=True)
        methods.append(_method(count, student, images, labels, scale, loss, training))
    whole = partial(predict_logits, trained.network)
    methods.append(white_box_method(student, images, full.decision, whole, loss, training))
    test_decisions = decide_checked(teacher, test.read(range(len(test))))
    seeds = range(options.seeds)
    results = compare_methods(methods, seeds, test, trained.test_labels, test_decisions)
    print(method_table(results))
    keep(options, _result(options, trained, qualities, results))


def _trained(options: argparse.Namespace) -> TrainedTeacher:
    splits = None
    if options.data == "generated":
        splits = many_classes(options.classes, 100, 0), many_classes(options.classes, 20, 1)
    return trained_teacher(options, splits, compile=True)


def _label(teacher: ModuleTeacher, images: ImageSet, options: argparse.Namespace) -> Labels:
    settings = LabelSettings(options.measure, queries_per_pair=options.queries_per_pair)
    with Progress(len(images), title=f"labelling ({options.measure})", interval=60) as progress:
        return label(teacher, images, settings, progress=progress)


def _narrowed(full: Labels, sample_distances: Labels, count: int) -> Labels:
    """The labels that a run with so many targets would have made."""
    others = other_classes(full.decision, full.classes)
    if count == full.classes - 1:
        return full
    searched = nearest_classes(sample_distances.distances, others, count)
    distances = estimate_unsearched(full.distances, sample_distances.distances, searched)
    return replace(
        full,
        distances=distances.masked_fill(~others, 0),
        queries=full.queries.masked_fill(others & ~searched, 0),
        searched=searched,
    )


def _quality(labels: Labels, full: Labels, logits: Tensor, count: int, scale: float) -> Quality:
    nearest = full.distances.scatter(1, full.decision[:, None], torch.inf).argmin(1, keepdim=True)
    covered = labels.targets.gather(1, nearest).double().mean().item() if count else 0.0
    return Quality(
        targets=count,
        queries_per_sample=queries_per_sample(labels),
        rank_correlation=rank_correlation(labels, logits),
        runner_up_share=runner_up_share(labels, logits),
        covered=covered,
        scale=scale,
    )


def _method(
    count: int,
    student: Model,
    images: ImageSet,
    labels: Labels,
    scale: float,
    loss: KDLoss,
    training: TrainSettings,
) -> TrainingMethod:
    name = f"{count} targets" if count else "sample distances"
    soft, queries = margins(labels, scale, loss), queries_per_sample(labels)
    return soft_label_method(name, queries, student, images, labels.decision, soft, loss, training)


def _result(
    options: argparse.Namespace,
    trained: TrainedTeacher,
    qualities: list[Quality],
    results: list[MethodResult],
) -> dict[str, object]:
    return {
        "data": trained.train.name,
        "classes": trained.classes,
        "teacher_accuracy": trained.accuracy,
        "student": options.student,
        "images": options.images,
        "steps": options.steps,
        "measure": options.measure,
        "queries_per_pair": options.queries_per_pair,
        "labels": [asdict(quality) for quality in qualities],
        "rows": [dataclasses.asdict(result) for result in results],
    }


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--classes", type=int, default=100, help="classes of generated data")
    options.add_argument(
        "--targets",
        nargs="+",
        type=int,
        default=[1, 2, 3, 5],
        help="numbers of classes searched, beside all",
    )
    options.add_argument("--images", type=int, default=2000, help="size of the transfer set")
    options.add_argument("--measure", choices=("bd", "mbd"), default="mbd")
    options.add_argument("--queries-per-pair", type=int, default=100)
    options.add_argument("--student", default="lenet5-half")
    options.add_argument(
        "--steps", type=int, default=2500, help="training steps of every student, batch 128"
    )
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--scale-steps", type=int, default=600)
    options.add_argument("--scale-students", type=int, default=1)
    return options.parse_args()


if __name__ == "__main__":
    main()
