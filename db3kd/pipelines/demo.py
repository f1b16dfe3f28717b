"""The demo: students of a few labelled images, their baselines, and students without images."""

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from torch import Tensor, nn

from db3kd.data.class_labels import true_classes
from db3kd.data.image_set import ImageSet
from db3kd.distillation.augmented_decisions import AugmentedDecisions, collect_augmented_decisions
from db3kd.distillation.augmented_images import AugmentedImages
from db3kd.distillation.baselines import (
    noise_logit_method,
    surrogate_method,
    white_box_method,
)
from db3kd.distillation.evaluation import evaluate
from db3kd.distillation.loss import KDLoss
from db3kd.distillation.methods import (
    MethodResult,
    TrainingMethod,
    augmented_decision_method,
    compare_methods,
    decision_method,
    soft_label_method,
)
from db3kd.distillation.scale import ScaleChoice, choose_scale
from db3kd.distillation.student import train_classifier
from db3kd.distillation.train_settings import TrainSettings
from db3kd.labelling.label_run import LabelRun, open_run
from db3kd.labelling.labels import Labels
from db3kd.labelling.run_writer import write_run
from db3kd.labelling.settings import LabelSettings, Measure
from db3kd.labelling.soft_labels import margin_soft_labels, with_soft_labels
from db3kd.labelling.source import Source
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.pipelines.demo_report import (
    DemoTransferSet,
    TrainedTeacher,
    describe_demo,
    write_demo_report,
)
from db3kd.pipelines.demo_settings import DemoSettings
from db3kd.pipelines.zero_shot import run_zero_shot
from db3kd.progress import show_progress
from db3kd.report import rich_method_table, rich_zero_shot_table, zero_shot_table
from db3kd.teachers import ModuleTeacher, Teacher, decide_checked

MEASURES: tuple[Measure, ...] = ("sd", "bd", "mbd")


def run_demo(settings: DemoSettings, out: Path, console: Console | None = None) -> Path:
    """Runs the demo and writes its report.

    The folder also holds the teacher and the label runs, which the other commands accept.

    Args:
        settings: The sizes of the demo.
        out: The folder to write to.
        console: Where the tables and notes are printed; the terminal by default.

    Returns:
        The path of the report.
    """
    console = console or Console()
    train, test = (Source(settings.data, split).load() for split in ("train", "test"))
    out.mkdir(parents=True, exist_ok=True)
    trained = _train_teacher(settings, train, test, out / "teacher.safetensors")
    console.print(f"teacher: {trained.accuracy:.1%} accuracy on {len(test):,} test images")
    transfer = _label(settings, trained.teacher, out)
    student = partial(build_model, settings.student, train.image_shape, true_classes(train)[1])
    choices: dict[str, ScaleChoice] = {
        measure: _choose_scale(settings, student, transfer, measure) for measure in MEASURES
    }
    methods = _methods(settings, student, trained, transfer, choices)
    decisions = decide_checked(trained.teacher, test.read(range(len(test))))
    rows = _compare(settings, methods, test, decisions)
    zero_shot = run_zero_shot(
        trained.teacher, out / "zero-shot", settings.zero_shot, test=settings.data
    )
    notes = [
        *describe_demo(settings, trained, transfer, choices, train, test),
        f"## Without images\n\n{zero_shot_table(zero_shot.rows)}\n\nMore in "
        "[zero-shot/report.md](zero-shot/report.md).",
    ]
    page = write_demo_report(out, rows, notes, transfer, choices)
    console.print(rich_method_table(rows))
    for note in notes[:-1]:
        console.print(note, style="dim", highlight=False)
    console.print(rich_zero_shot_table(zero_shot.rows))
    console.print(f"written to {page}", highlight=False)
    return page


def _train_teacher(
    settings: DemoSettings, train: ImageSet, test: ImageSet, file: Path
) -> TrainedTeacher:
    shape, (labels, classes) = train.image_shape, true_classes(train)
    make = partial(build_model, settings.teacher, shape, classes)
    training = TrainSettings(epochs=settings.teacher_epochs, seed=settings.seed, device="cpu")
    with show_progress("training the teacher", training.total_steps(len(train)), "steps") as show:
        network = train_classifier(make, train, labels, training, progress=show)
    save_model(file, network, model=settings.teacher, image_shape=shape, classes=classes)
    teacher = ModuleTeacher(network, shape, classes, name=file.name)
    return TrainedTeacher(network, teacher, evaluate(network, test, true_classes(test)[0]), make)


def _label(settings: DemoSettings, teacher: Teacher, out: Path) -> DemoTransferSet:
    runs: dict[str, LabelRun] = {}
    for measure in MEASURES:
        labelling = LabelSettings(
            measure=measure,
            queries_per_pair=settings.queries_per_pair,
            snapshots=() if measure == "sd" else settings.snapshots,
            seed=settings.seed,
        )
        folder = out / "labels" / measure
        write_run(folder, teacher, Source(settings.data), labelling, limit=settings.transfer)
        runs[measure] = open_run(folder, settings.data)
    images = runs["mbd"].images
    return DemoTransferSet(images, runs["mbd"].labels.decision, runs)


def _choose_scale(
    settings: DemoSettings,
    student: Callable[[], nn.Module],
    transfer: DemoTransferSet,
    measure: str,
) -> ScaleChoice:
    labels = transfer.runs[measure].labels
    folds = 3
    trainings = folds * len(settings.relative_scales)
    with show_progress(f"choosing the scale ({measure})", trainings, "students") as show:
        return choose_scale(
            student,
            transfer.images,
            labels.distances,
            labels.decision,
            margin_soft_labels,
            KDLoss(),
            dataclasses.replace(settings.training, steps=settings.scale_steps),
            relative_scales=settings.relative_scales,
            folds=folds,
            students=folds,
            progress=show,
        )


def _methods(
    settings: DemoSettings,
    student: Callable[[], nn.Module],
    trained: TrainedTeacher,
    transfer: DemoTransferSet,
    choices: dict[str, ScaleChoice],
) -> list[TrainingMethod]:
    images, decisions, training = transfer.images, transfer.decisions, settings.training
    classes, loss = trained.teacher.classes, KDLoss()

    def distilled(name: str, measure: str, labels: Labels, loss: KDLoss) -> TrainingMethod:
        queries = float(transfer.queries_per_sample(measure))
        soft = labels.soft_labels
        assert soft is not None  # made above
        return soft_label_method(name, queries, student, images, decisions, soft, loss, training)

    def augmented(measure: str) -> TrainingMethod:
        name = f"augmented, at cost of {measure.upper()}"
        many = AugmentedImages(images, transfer.queries_per_sample(measure), settings.seed)
        asked = _ask(trained.teacher, many, name)
        return dataclasses.replace(augmented_decision_method(student, asked, training), name=name)

    paper = KDLoss.paper()
    inverse = with_soft_labels(
        transfer.runs["mbd"].labels, normalisation="inverse", temperature=paper.temperature
    )
    return [
        decision_method(student, images, decisions, training),
        *(
            distilled(f"{measure.upper()}, margin", measure, labels, loss)
            for measure in MEASURES
            for labels in [transfer.margin_labels(measure, choices[measure].scale)]
        ),
        distilled("MBD, paper's 1/d and loss", "mbd", inverse, paper),
        augmented("bd"),
        augmented("mbd"),
        surrogate_method(student, trained.make, images, decisions, loss, training),
        noise_logit_method(student, images, decisions, classes, loss, training),
        white_box_method(student, images, decisions, trained.network, loss, training),
    ]


def _ask(teacher: Teacher, images: AugmentedImages, title: str) -> AugmentedDecisions:
    with show_progress(title, len(images), "images") as show:
        answered = 0

        def decide(batch: Tensor) -> Tensor:
            nonlocal answered
            decisions = decide_checked(teacher, batch)
            answered += len(batch)
            show(answered)
            return decisions

        return collect_augmented_decisions(images, decide)


def _compare(
    settings: DemoSettings, methods: list[TrainingMethod], test: ImageSet, decisions: Tensor
) -> list[MethodResult]:
    seeds = range(settings.seed, settings.seed + settings.seeds)
    students = len(methods) * len(seeds)
    begun = itertools.count()
    with show_progress("training", students, "students") as show:
        results = compare_methods(
            methods, seeds, test, true_classes(test)[0], decisions, lambda *_: show(next(begun))
        )
        show(students)
    return results
