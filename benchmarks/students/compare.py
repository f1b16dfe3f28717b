"""Compares students that learn from soft labels with baselines, on one transfer set.

The teacher is trained on the whole train split. Students see only the transfer set, without the
true labels, and all train for the same number of steps. Test images are used once, at the end. The
scale of margins is chosen once for each kind of labels, with the first student. Label runs stay in
their folders, so that a stopped run resumes and a finished run is not paid for again.

    python -m benchmarks.students --data DIR --teacher FILE --save NAME
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.record import keep
from benchmarks.common.setting import class_count, parser, trained_teacher
from benchmarks.students.baselines import (
    augmented_decision_method,
    combined_method,
    noise_logit_method,
    surrogate_method,
    white_box_method,
)
from benchmarks.students.label_quality import (
    chosen_scale,
    logit_gaps,
    margins,
    queries_per_sample,
    rank_correlation,
)
from benchmarks.students.methods import (
    TrainingMethod,
    compare_methods,
    decision_method,
    method_table,
    soft_label_method,
)
from db3kd.data.augmented_images import AugmentedImages
from db3kd.data.image_set import ImageSet
from db3kd.data.source import Source
from db3kd.labelling.runs.label_run import LabelRun, open_run
from db3kd.labelling.runs.planned_run import plan_source_run
from db3kd.labelling.runs.run_writer import carry_out
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import Labels
from db3kd.labels.soft_labels import with_soft_labels
from db3kd.models.networks import build_model
from db3kd.scale.choice import ScaleChoice
from db3kd.surrogates.augmented_decisions import AugmentedDecisions
from db3kd.surrogates.files import decisions_folder, prepare_surrogate
from db3kd.surrogates.queries import decide_augmented
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.teachers import ModuleTeacher, Teacher, decide_checked, load_teacher
from db3kd.training.evaluation import predict_logits
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings

_WHITE_BOX = "white-box KD"


@dataclass(frozen=True)
class TrainingData:
    """What every student of a run learns from, made once for all of them.

    Attributes:
        images: The transfer set.
        decisions: [N] int64, the teacher's classes.
        asked: Decisions for augmented images.
        labels: Label runs by name.
        logits: [n, *image_shape] float32 -> [n, C], the teacher's logits, for the white-box
            students and for the rank correlation only.
    """

    images: ImageSet
    decisions: Tensor
    asked: AugmentedDecisions
    labels: dict[str, Labels]
    logits: Callable[[Tensor], Tensor]
    image_logits: Tensor

    @property
    def margins(self) -> dict[str, Labels]:
        """Everything that is read as margins: the labels, and the gaps between the logits."""
        some = next(iter(self.labels.values()))
        return self.labels | {_WHITE_BOX: logit_gaps(some, self.image_logits)}


def main() -> None:
    """Trains the students and writes their table."""
    options = _options()
    trained = trained_teacher(options, compile=True)
    test = trained.test
    data = _training_data(trained.network, trained.teacher, trained.train.name, options)
    notes = {name: _describe(labels, data.image_logits) for name, labels in data.labels.items()}
    print(notes, flush=True)
    loss = KDLoss(temperature=4.0)
    students = {
        name: partial(build_model, name, test.image_shape, trained.classes)
        for name in options.student
    }
    choices = _choose_scales(students[options.student[0]], data, loss, options)
    scales = {name: choice.scale for name, choice in choices.items()}
    test_decisions = decide_checked(trained.teacher, test.read(range(len(test))))
    tables = {}
    for name, student in students.items():
        results = compare_methods(
            list(_methods(student, data, scales, loss, _training(options))),
            range(options.seeds),
            test,
            trained.test_labels,
            test_decisions,
            partial(_report, name),
        )
        print(method_table(results), flush=True)
        tables[name] = [asdict(result) for result in results]
    result = {
        "data": trained.train.name,
        "teacher_accuracy": trained.accuracy,
        "images": options.images,
        "targets": options.targets or trained.classes - 1,
        "training": asdict(_training(options)),
        "labels": notes,
        "scales": {name: asdict(choice) for name, choice in choices.items()},
        "students": tables,
    }
    keep(options, result)


def _report(student: str, method: str, seed: int) -> None:
    print(f"training: {student}, {method}, seed {seed}", flush=True)


def _training_data(
    network: nn.Module, teacher: Teacher, data: str, options: argparse.Namespace
) -> TrainingData:
    *early, most = sorted(options.queries_per_pair)
    labels: dict[str, Labels] = {}
    searched = LabelSettings("bd", queries_per_pair=most, targets=options.targets)
    for settings in (
        LabelSettings("sd"),
        searched,
        replace(searched, measure="mbd", snapshots=tuple(early)),
    ):
        run = _label_run(teacher, data, settings.measure, settings, None, options)
        labels |= _by_queries(run.labels, settings)
    if options.surrogate_queries_per_pair is not None:
        surrogate, per_sample = _surrogate(teacher, data, options)
        few = options.surrogate_queries_per_pair
        settings = replace(searched, measure="mbd", queries_per_pair=few)
        run = _label_run(teacher, data, "mbd-surrogate", settings, surrogate, options)
        learned = F.one_hot(run.labels.decision, run.labels.classes) * (per_sample - 1)
        name = f"MBD {few}, surrogate"
        labels[name] = replace(run.labels, queries=run.labels.queries + learned)
    asked = decide_augmented(teacher, AugmentedImages(run.images, options.augmented, seed=0))
    logits = partial(predict_logits, network)
    return TrainingData(
        run.images, run.labels.decision, asked, labels, logits, predict_logits(network, run.images)
    )


def _label_run(
    teacher: Teacher,
    data: str,
    name: str,
    settings: LabelSettings,
    surrogate: nn.Module | None,
    options: argparse.Namespace,
) -> LabelRun:
    """Labels the transfer set, or resumes the run in the folder of that name."""
    folder = options.labels / f"{data}-{options.images}-{name}"
    planned = plan_source_run(
        folder,
        teacher,
        Source(options.data),
        settings,
        limit=options.images,
        resume=folder.exists(),
        surrogate=surrogate,
    )
    carry_out(planned)
    return open_run(folder, options.data)


def _surrogate(teacher: Teacher, data: str, options: argparse.Namespace) -> tuple[nn.Module, int]:
    """Trains a surrogate on the transfer set; returns it and its queries a sample."""
    file = options.labels / f"{data}-{options.images}-surrogate.safetensors"
    training = replace(_training(options), seed=0)
    settings = SurrogateSettings(
        options.surrogate, options.surrogate_queries, training=training, networks=1
    )
    prepare_surrogate(
        file,
        teacher,
        Source(options.data),
        settings,
        limit=options.images,
        resume=file.exists() or decisions_folder(file).exists(),
    ).write()
    surrogate = load_teacher(file)
    assert isinstance(surrogate, ModuleTeacher)
    return surrogate.module, options.surrogate_queries


def _by_queries(labels: Labels, settings: LabelSettings) -> dict[str, Labels]:
    """Labels by name. The names of MBD contain the queries per pair, one name for each snapshot."""
    measure, found = settings.measure.upper(), {}
    for count in settings.snapshots:
        distances, queries = labels.snapshots[count], labels.queries.clamp_max(count)
        early = replace(labels, distances=distances, queries=queries, snapshots={})
        found[f"{measure} {count}"] = early
    last = f"{measure} {settings.queries_per_pair}" if measure == "MBD" else measure
    return found | {last: labels}


def _choose_scales(
    student: Callable[[], nn.Module], data: TrainingData, loss: KDLoss, options: argparse.Namespace
) -> dict[str, ScaleChoice]:
    training = replace(_training(options), steps=options.scale_steps)
    choices = {}
    for name, labels in data.margins.items():
        choices[name] = chosen_scale(
            student, data.images, labels, loss, training, options.scale_students
        )
        print(f"{name}: scale {choices[name].scale:.3g}", flush=True)
    return choices


def _methods(
    student: Callable[[], nn.Module],
    data: TrainingData,
    scales: dict[str, float],
    loss: KDLoss,
    training: TrainSettings,
) -> Iterator[TrainingMethod]:
    """The rows of a student's table, in order."""
    images, decisions, asked = data.images, data.decisions, data.asked
    classes = class_count(images)
    surrogate = partial(build_model, "lenet5", images.image_shape, classes)
    yield decision_method(student, images, decisions, training)
    yield augmented_decision_method(student, asked, training)
    yield white_box_method(student, images, decisions, data.logits, loss, training)
    yield surrogate_method(student, surrogate, images, decisions, loss, training)
    yield noise_logit_method(student, images, decisions, classes, loss, training)
    soft = {
        measure: margins(labels, scales[measure], loss) for measure, labels in data.margins.items()
    }
    spent = {name: queries_per_sample(labels) for name, labels in data.labels.items()}
    for measure, made in soft.items():
        yield soft_label_method(
            f"{measure}, margin",
            spent.get(measure), student, images, decisions, made, loss, training,
        )  # fmt: skip
    best = list(data.labels)[-1]
    yield combined_method(
        f"{best}, margin, and augmented decisions",
        spent[best], student, asked, soft[best], loss, training,
    )  # fmt: skip
    yield _as_in_the_paper(student, data, best, training)


def _as_in_the_paper(
    student: Callable[[], nn.Module], data: TrainingData, measure: str, training: TrainSettings
) -> TrainingMethod:
    loss, labels = KDLoss.paper(), data.labels[measure]
    soft = with_soft_labels(
        labels, normalisation="inverse", temperature=loss.temperature
    ).soft_labels
    assert soft is not None
    return soft_label_method(
        f"{measure}, inverse, T = 20 (the paper's)",
        queries_per_sample(labels),
        student,
        data.images,
        data.decisions,
        soft,
        loss,
        training,
    )


def _describe(labels: Labels, logits: Tensor) -> dict[str, float]:
    """What a label run cost and what it is worth."""
    spent = queries_per_sample(labels)
    return {
        "queries_per_sample": spent,
        "mean_distance": labels.measured_distances.mean().item(),
        "rank_correlation_with_logits": rank_correlation(labels, logits),
    }


def _training(options: argparse.Namespace) -> TrainSettings:
    return TrainSettings(steps=options.steps, precision=options.precision, device="cpu")


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=2000, help="size of the transfer set")
    options.add_argument(
        "--student", nargs="+", default=["lenet5-half"], help="one or several models"
    )
    options.add_argument(
        "--steps", type=int, default=2500, help="training steps of every student, batch 128"
    )
    options.add_argument(
        "--precision", choices=("no", "bf16"), default="no", help="precision of training"
    )
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument(
        "--queries-per-pair",
        type=int,
        nargs="+",
        default=[500],
        help="students train on MBD labels at each of these budgets",
    )
    options.add_argument("--targets", type=int, help="how many nearest classes to search (all)")
    options.add_argument(
        "--surrogate-queries-per-pair", type=int, help="budget of another MBD run, with a surrogate"
    )
    options.add_argument("--surrogate", default="lenet5", help="model of the surrogate")
    options.add_argument(
        "--surrogate-queries",
        type=int,
        default=30,
        help="decisions a sample that the surrogate learns",
    )
    options.add_argument(
        "--labels", type=Path, default=Path("runs/labels"), help="folder of the label runs"
    )
    options.add_argument(
        "--augmented",
        type=int,
        help="augmented decisions a sample (as many as students see)",
    )
    options.add_argument("--scale-steps", type=int, default=600)
    options.add_argument("--scale-students", type=int, default=3)
    chosen = options.parse_args()
    if chosen.augmented is None:
        chosen.augmented = max(1, chosen.steps * TrainSettings().batch_size // chosen.images)
    return chosen
