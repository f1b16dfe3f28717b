"""The demo: the whole path on a few real images, beside what soft labels are compared with; then
without any.
"""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from torch import Tensor, nn

from db3kd.data.image_set import ImageSet
from db3kd.distillation.augmentation import AugmentedImages
from db3kd.distillation.baselines import (
    AugmentedDecisions,
    Strategy,
    StrategyResult,
    augmented_decisions,
    compare,
    on_augmented_decisions,
    on_decisions,
    on_noise_logits,
    on_soft_labels,
    on_surrogate_logits,
    on_teacher_logits,
)
from db3kd.distillation.scale import RELATIVE_SCALES, ScaleChoice, choose_scale
from db3kd.distillation.student import KDLoss, evaluate, train_classifier
from db3kd.distillation.training import TrainSettings
from db3kd.labelling.label_run import LabelRun, open_run
from db3kd.labelling.labels import Labels
from db3kd.labelling.run_writer import write_run
from db3kd.labelling.sample_choice import spread_over_classes
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.soft_labels import margin_soft_labels, with_soft_labels
from db3kd.labelling.source import Source
from db3kd.labelling.totals import count_disagreements, distance_against_queries
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.pipelines.zero_shot import ZeroShotSettings, run_zero_shot
from db3kd.progress import show_progress
from db3kd.report.tables import ClassDistances, Samples, comparison_table, write_report
from db3kd.report.zero_shot import rich_table, table
from db3kd.synthesis.acquisition import AcquisitionSettings
from db3kd.synthesis.synthesis import SynthesisSettings
from db3kd.teachers import ModuleTeacher, Teacher, decide_checked

MEASURES = ("sd", "bd", "mbd")


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo. They were chosen on training images; the test images took no part.

    data: a data set with a train and a test split.
    teacher, student: models, as `build_model` takes.
    teacher_epochs: of the teacher, on the whole train split.
    transfer: images of the train split that are labelled and that students are trained on.
    queries_per_pair: most queries of MBD for a sample and one class.
    snapshots: queries per pair at which distances are noted.
    steps, batch_size: of every student.
    scale_steps: of each of the students that choose the scale.
    pseudo_samples: made without any image, then, in rounds of `guide_rounds` that students of
        `guide_steps` steps choose.
    zero_shot_steps: of the students of pseudo samples, at a rate of their own.
    seeds: how many students a row has.
    seed: the first one, and that of everything else.
    """

    data: str = "mnist5k"
    teacher: str = "lenet5"
    student: str = "lenet5-half"
    teacher_epochs: int = 10
    transfer: int = 200
    queries_per_pair: int = 200
    snapshots: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 80, 100, 150)
    steps: int = 300
    batch_size: int = 50
    scale_steps: int = 100
    relative_scales: tuple[float, ...] = RELATIVE_SCALES
    pseudo_samples: int = 10_000
    guide_rounds: int = 3
    guide_steps: int = 300
    zero_shot_steps: int = 800
    seeds: int = 3
    seed: int = 0

    @classmethod
    def quick(cls, seed: int = 0) -> "DemoSettings":
        """Sizes that only show that everything works, in seconds."""
        return cls(
            data="digits",
            teacher="linear",
            student="linear",
            teacher_epochs=30,
            transfer=60,
            queries_per_pair=60,
            snapshots=(5, 10, 20, 40),
            steps=20,
            scale_steps=5,
            relative_scales=(1.0, 4.0),
            pseudo_samples=300,
            guide_rounds=2,
            guide_steps=10,
            zero_shot_steps=20,
            seeds=2,
            seed=seed,
        )

    @property
    def training(self) -> TrainSettings:
        return TrainSettings(
            steps=self.steps, batch_size=self.batch_size, seed=self.seed, device="cpu"
        )

    @property
    def zero_shot(self) -> ZeroShotSettings:
        acquisition = AcquisitionSettings(
            self.student, rounds=self.guide_rounds, steps=self.guide_steps, device="cpu"
        )
        synthesis = SynthesisSettings.guided(
            samples=self.pseudo_samples, acquisition=acquisition, seed=self.seed
        )
        training = dataclasses.replace(
            ZeroShotSettings().training, steps=self.zero_shot_steps, seed=self.seed, device="cpu"
        )
        return ZeroShotSettings(
            synthesis, student=self.student, training=training, seeds=self.seeds, shares=()
        )


@dataclass(frozen=True)
class _Teaching:
    """A trained teacher: as a network, and as the black box that students learn from."""

    network: nn.Module
    teacher: Teacher
    accuracy: float
    make: Callable[[], nn.Module]


@dataclass(frozen=True)
class _Transfer:
    """What students learn from: images, the teacher's decisions, and a label run per measure."""

    images: ImageSet
    decisions: Tensor
    runs: dict[str, LabelRun]

    def queries_per_sample(self, measure: str) -> int:
        return round(self.runs[measure].labels.queries.sum().item() / len(self.images))


def run_demo(settings: DemoSettings, out: Path, console: Console | None = None) -> Path:
    """Runs the demo into the folder `out`, and returns its report.

    Besides report.md and its pictures the folder holds the teacher and the label runs, for the
    other commands to try.
    """
    console = console or Console()
    train, test = (Source(settings.data, split).load() for split in ("train", "test"))
    out.mkdir(parents=True, exist_ok=True)
    teaching = _train_teacher(settings, train, test, out / "teacher.safetensors")
    console.print(f"teacher: {teaching.accuracy:.1%} of {len(test):,} test images")
    transfer = _label(settings, teaching.teacher, out)
    student = partial(build_model, settings.student, train.image_shape, train.classes)
    choices = {measure: _choose_scale(settings, student, transfer, measure) for measure in MEASURES}
    strategies = _recipes(settings, student, teaching, transfer, choices)
    decisions = decide_checked(teaching.teacher, test.read(range(len(test))))
    rows = _compare(settings, strategies, test, decisions)
    zero_shot = run_zero_shot(
        teaching.teacher, out / "zero-shot", settings.zero_shot, test=settings.data
    )
    notes = [
        *_notes(settings, teaching, transfer, choices, rows, train, test),
        f"## Without any image\n\n{table(zero_shot.rows)}\n\nMore in "
        "[zero-shot/report.md](zero-shot/report.md).",
    ]
    page = _write(out, rows, notes, transfer, choices)
    console.print(comparison_table(rows)[1])
    for note in notes[:-1]:
        console.print(note, style="dim", highlight=False)
    console.print(rich_table(zero_shot.rows))
    console.print(f"written to {page}", highlight=False)
    return page


def _train_teacher(
    settings: DemoSettings, train: ImageSet, test: ImageSet, file: Path
) -> _Teaching:
    shape, classes = train.image_shape, train.classes
    make = partial(build_model, settings.teacher, shape, classes)
    training = TrainSettings(epochs=settings.teacher_epochs, seed=settings.seed, device="cpu")
    with show_progress("training the teacher", training.total_steps(len(train)), "steps") as show:
        network = train_classifier(make, train, train.labels, training, progress=show)
    save_model(file, network, model=settings.teacher, image_shape=shape, classes=classes)
    teacher = ModuleTeacher(network, shape, classes, name=file.name)
    return _Teaching(network, teacher, evaluate(network, test, test.labels), make)


def _label(settings: DemoSettings, teacher: Teacher, out: Path) -> _Transfer:
    runs = {}
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
    return _Transfer(images, runs["mbd"].labels.decision, runs)


def _choose_scale(
    settings: DemoSettings, student: Callable[[], nn.Module], transfer: _Transfer, measure: str
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


def _recipes(
    settings: DemoSettings,
    student: Callable[[], nn.Module],
    teaching: _Teaching,
    transfer: _Transfer,
    choices: dict[str, ScaleChoice],
) -> list[Strategy]:
    images, decisions, training = transfer.images, transfer.decisions, settings.training
    classes, loss = teaching.teacher.classes, KDLoss()

    def distilled(name: str, measure: str, labels: Labels, loss: KDLoss) -> Strategy:
        queries = float(transfer.queries_per_sample(measure))
        soft = labels.soft_labels
        return on_soft_labels(name, queries, student, images, decisions, soft, loss, training)

    def augmented(measure: str) -> Strategy:
        name = f"augmented, at cost of {measure.upper()}"
        many = AugmentedImages(images, transfer.queries_per_sample(measure), settings.seed)
        asked = _ask(teaching.teacher, many, name)
        return dataclasses.replace(on_augmented_decisions(student, asked, training), name=name)

    paper = KDLoss.paper()
    inverse = with_soft_labels(
        transfer.runs["mbd"].labels, normalisation="inverse", temperature=paper.temperature
    )
    return [
        on_decisions(student, images, decisions, training),
        *(
            distilled(f"{measure.upper()}, margin", measure, labels, loss)
            for measure in MEASURES
            for labels in [_margin_labels(transfer, choices, measure)]
        ),
        distilled("MBD, paper's 1/d and loss", "mbd", inverse, paper),
        augmented("bd"),
        augmented("mbd"),
        on_surrogate_logits(student, teaching.make, images, decisions, loss, training),
        on_noise_logits(student, images, decisions, classes, loss, training),
        on_teacher_logits(student, images, decisions, teaching.network, loss, training),
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

        return augmented_decisions(images, decide)


def _margin_labels(transfer: _Transfer, choices: dict[str, ScaleChoice], measure: str) -> Labels:
    return with_soft_labels(
        transfer.runs[measure].labels,
        normalisation="margin",
        scale=choices[measure].scale,
        temperature=KDLoss().temperature,
    )


def _compare(
    settings: DemoSettings, strategies: list[Strategy], test: ImageSet, decisions: Tensor
) -> list[StrategyResult]:
    seeds = range(settings.seed, settings.seed + settings.seeds)
    students = len(strategies) * len(seeds)
    begun = itertools.count()
    with show_progress("training", students, "students") as show:
        results = compare(
            strategies, seeds, test, test.labels, decisions, lambda *_: show(next(begun))
        )
        show(students)
    return results


def _notes(
    settings: DemoSettings,
    teaching: _Teaching,
    transfer: _Transfer,
    choices: dict[str, ScaleChoice],
    rows: list[StrategyResult],
    train: ImageSet,
    test: ImageSet,
) -> list[str]:
    scales = ", ".join(f"{name.upper()} {choice.scale:.2g}" for name, choice in choices.items())
    distances = ", ".join(
        f"{name.upper()} {run.labels.measured_distances.mean():.2f}"
        for name, run in transfer.runs.items()
    )
    samples = len(transfer.images)
    spent = sum(int(run.labels.queries.sum()) for run in transfer.runs.values())
    augmented = sum(samples * transfer.queries_per_sample(measure) for measure in ("bd", "mbd"))
    last = settings.seed + settings.seeds - 1
    return [
        f"Teacher: {settings.teacher}, {settings.teacher_epochs} epochs on {len(train):,} images "
        f"of {settings.data}, {teaching.accuracy:.1%} accurate on the {len(test):,} held-out test "
        "images.",
        f"Students: {settings.student}, {settings.steps} steps of at most {settings.batch_size} "
        f"images, Adam at {settings.training.learning_rate:g}, seeds {settings.seed} to {last}, "
        f"on {samples:,} of the training images. Sizes and steps were chosen on training images.",
        "The rows named augmented are cross-entropy on the teacher's decisions for augmented "
        "images, as many as the labels of that measure cost queries; half of the rows trained on "
        "are clean images.",
        f"{count_disagreements(transfer.runs['mbd'].labels)} of the {samples:,} images are in "
        "another class for the teacher than in the data set; labels follow the teacher's decision.",
        f"Mean distance (L2, input units): {distances}.",
        f"Scales of the margin soft labels, chosen by how well students predict decisions on "
        f"held-out transfer images, which costs no query: {scales}; temperature "
        f"{KDLoss().temperature:g}.",
        f"Queries in all: {spent + augmented + len(test):,}, of which {spent:,} for the labels, "
        f"{augmented:,} for augmented images and {len(test):,} for the agreement on test images.",
    ]


def _write(
    out: Path,
    rows: list[StrategyResult],
    notes: list[str],
    transfer: _Transfer,
    choices: dict[str, ScaleChoice],
) -> Path:
    labels = _margin_labels(transfer, choices, "mbd")
    shown = spread_over_classes(labels.decision, 12)
    return write_report(
        out,
        rows,
        notes=notes,
        samples=Samples(
            transfer.images.read(shown), labels.soft_labels[shown], labels.decision[shown]
        ),
        curves={
            measure.upper(): distance_against_queries(transfer.runs[measure].labels)
            for measure in ("bd", "mbd")
        },
        class_distances=ClassDistances(labels.distances, labels.decision),
    )
