"""From a teacher alone to a student: pseudo samples, labels, students, and what they are worth.

Beside the students of pseudo samples stand those of plain noise, as many images with a decision
each, and of real images where there are any: without them a zero-shot accuracy says nothing.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from db3kd.data.class_names import matched
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.data.pseudo_samples import PseudoSamples, load_pseudo_samples
from db3kd.distillation.loss import KDLoss
from db3kd.distillation.scale import (
    SHORT_TRAINING_FACTOR,
    SHORT_TRAINING_STUDENTS,
    choose_scale,
    scale_training,
)
from db3kd.distillation.strategies import (
    Strategy,
    compare_strategies,
    decision_strategy,
    soft_label_strategy,
)
from db3kd.distillation.training import TrainSettings, balanced_rows
from db3kd.labelling.label_run import LabelRun, open_run
from db3kd.labelling.run_writer import write_run
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.soft_labels import margin_soft_labels, with_soft_labels
from db3kd.labelling.source import Source
from db3kd.models import save_model
from db3kd.models.networks import build_model, check_model
from db3kd.progress import show_progress
from db3kd.querying.driver import decide_all
from db3kd.report import ZeroShotRow, write_zero_shot_report
from db3kd.synthesis.sample_run import SynthesisTotals, write_pseudo_samples
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.synthesis.starts import make_starts
from db3kd.teachers import Teacher, describe
from db3kd.teachers.base import class_names_of
from db3kd.teachers.rescaled import takes_unit_images

SAMPLES_FOLDER, LABELS_FOLDER = "pseudo-samples", "labels"
"""The runs in the folder of a zero-shot run."""


@dataclass(frozen=True)
class ZeroShotSettings:
    """The whole way.

    synthesis: of the pseudo samples. labelling: of their distances, whose soft labels are then
    distilled besides; None for the decisions alone. student: as `build_model` takes. training: of
    every student, with a number of steps. loss: of students that have soft labels. balance: how
    much more often samples of rare classes are trained on, from 0 (not) to 1 (all classes alike).
    seeds: students of each row. shares: parts of the pseudo samples, the first of them, that
    students are trained on besides, for accuracy against queries.
    """

    synthesis: SynthesisSettings = field(default_factory=SynthesisSettings)
    labelling: LabelSettings | None = None
    student: str = "lenet5-half"
    training: TrainSettings = field(
        default_factory=lambda: TrainSettings(steps=12_000, learning_rate=3e-3, schedule="cosine")
    )
    loss: KDLoss = field(default_factory=KDLoss)
    balance: float = 0.5
    seeds: int = 3
    shares: tuple[float, ...] = (0.1, 0.3)

    def __post_init__(self) -> None:
        if self.training.steps is None:
            raise ValueError("training: expected a number of steps, so that all rows train alike")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"balance: expected a number in [0, 1], got {self.balance}")
        if self.seeds < 1:
            raise ValueError(f"seeds: expected at least 1, got {self.seeds}")
        for share in self.shares:
            if not 0 < share < 1:
                raise ValueError(f"shares: expected numbers in (0, 1), got {share}")


@dataclass(frozen=True)
class ZeroShotResult:
    """totals: of the pseudo samples. rows: of the table, none without test images. report: its
    path."""

    totals: SynthesisTotals
    rows: list[ZeroShotRow]
    report: Path


def run_zero_shot(
    teacher: Teacher,
    out: Path,
    settings: ZeroShotSettings,
    *,
    test: str | None = None,
    resume: bool = False,
) -> ZeroShotResult:
    """The whole way into the folder `out`: samples, labels, students, report.md.

    test: what `load_data` takes. Its test split measures the students, and its train split trains
    one to compare with. Without it students are trained, and nothing is said of them.

    Raises ValueError for a student or for test images that do not fit the teacher, before anything
    is asked; and as `make_transfer_set`.
    """
    teacher = takes_unit_images(teacher)
    check_model(settings.student, tuple(teacher.image_shape), teacher.classes)
    sets = [] if test is None else [_load(test, split, teacher) for split in ("test", "train")]
    made = make_transfer_set(teacher, out, settings, resume=resume)
    rows = train_students(teacher, made, out, settings, *sets)
    report = write_zero_shot_report(
        out,
        rows,
        made.samples,
        curves=_curves(rows, settings),
        notes=_notes(made, settings),
    )
    return ZeroShotResult(made.totals, rows, report)


@dataclass(frozen=True)
class TransferSet:
    """What students are trained on, made with the teacher alone.

    totals: of the pseudo samples' run. samples: themselves. labels: their label run, or None.
    """

    totals: SynthesisTotals
    samples: PseudoSamples
    labels: LabelRun | None


def make_transfer_set(
    teacher: Teacher, out: Path, settings: ZeroShotSettings, *, resume: bool = False
) -> TransferSet:
    """Pseudo samples into out/pseudo-samples, and their labels, if any are wanted, into out/labels.

    resume: go on with the runs in these folders.

    Students take images in [0, 1], and so do pseudo samples here, whatever the teacher's bounds.

    Raises ValueError for bounds to which [0, 1] cannot be mapped without a doubt; and as
    `write_pseudo_samples` and `write_run`.
    """
    teacher = takes_unit_images(teacher)
    folder = out / SAMPLES_FOLDER
    totals = write_pseudo_samples(folder, teacher, settings.synthesis, resume=resume)
    run = None
    if settings.labelling is not None:
        source = Source(str(folder.resolve()))
        write_run(out / LABELS_FOLDER, teacher, source, settings.labelling, resume=resume)
        run = open_run(out / LABELS_FOLDER, source.data)
    return TransferSet(totals, load_pseudo_samples(folder), run)


def train_students(
    teacher: Teacher,
    made: TransferSet,
    out: Path,
    settings: ZeroShotSettings,
    test: ImageSet | None = None,
    real: ImageSet | None = None,
) -> list[ZeroShotRow]:
    """Trains all students, and measures each once, at its end, on the test images.

    Those of the first row are kept in `out`; without test images they are the only ones. real:
    images of the teacher's own data, to compare with; as many of them are used as there are pseudo
    samples, or all.
    """
    teacher = takes_unit_images(teacher)
    student = partial(build_model, settings.student, teacher.image_shape, teacher.classes)
    seeds = range(settings.training.seed, settings.training.seed + settings.seeds)
    rows = (
        list(_rows(teacher, made, student, settings, real))
        if test is not None
        else [next(_rows(teacher, made, student, settings, None))]
    )
    kept = rows[0][1]
    strategies = [replace(kept, run=_keeping(kept.run, out, teacher, settings.student))]
    strategies += [strategy for _, strategy in rows[1:]]
    begun = itertools.count()
    with show_progress("training", len(rows) * len(seeds), "students") as show:
        if test is None:
            for seed in seeds:
                show(next(begun))
                strategies[0].run(seed)
            show(len(seeds))
            return []
        decisions = decide_all(teacher, test.read, torch.arange(len(test)))
        results = compare_strategies(
            strategies, seeds, test, test.labels, decisions, lambda *_: show(next(begun))
        )
        show(len(rows) * len(seeds))
    return [
        replace(row, accuracies=result.accuracies, agreements=result.agreements)
        for (row, _), result in zip(rows, results, strict=True)
    ]


def _rows(
    teacher: Teacher,
    made: TransferSet,
    student: Callable[[], nn.Module],
    settings: ZeroShotSettings,
    real: ImageSet | None,
) -> Iterator[tuple[ZeroShotRow, Strategy]]:
    """Each row of the table, still without its results, and the recipe that leads to them."""
    images, decisions = made.samples.as_image_set(), made.samples.decision
    spent = made.totals.queries
    count = len(images)
    on = partial(_on_decisions, student, settings)
    if made.labels is not None:
        labelled = int(made.labels.labels.queries.sum())
        row = ZeroShotRow(
            f"pseudo samples, {settings.labelling.measure} soft labels", count, spent + labelled
        )
        yield row, _on_soft_labels(row.name, student, made, settings)
    row = ZeroShotRow("pseudo samples, decisions", count, spent)
    yield row, on(row.name, images, decisions)
    for share in settings.shares:
        part = range(max(1, round(share * count)))
        asked = _queries_of_first(made.samples, len(part), settings.synthesis)
        row = ZeroShotRow(f"the first {share:.0%} of them", len(part), asked)
        yield row, on(row.name, images.subset(part), decisions[: len(part)])
    noise = _plain_noise(teacher, count, settings.synthesis.seed)
    row = ZeroShotRow("plain noise, decisions", len(noise), len(noise))
    yield row, on(row.name, noise, decide_all(teacher, noise.read, torch.arange(len(noise))))
    if real is not None:
        chosen = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:count]
        known = real.subset(chosen)
        row = ZeroShotRow("real images, decisions", len(known), len(known))
        yield row, on(row.name, known, decide_all(teacher, known.read, torch.arange(len(known))))


def _on_decisions(
    student: Callable[[], nn.Module],
    settings: ZeroShotSettings,
    name: str,
    images: ImageSet,
    decisions: Tensor,
) -> Strategy:
    rows = balanced_rows(decisions, settings.balance)
    return replace(
        decision_strategy(student, images, decisions, settings.training, rows=rows), name=name
    )


def _on_soft_labels(
    name: str, student: Callable[[], nn.Module], made: TransferSet, settings: ZeroShotSettings
) -> Strategy:
    labels, images, training = made.labels.labels, made.labels.images, settings.training
    scale = choose_scale(
        student,
        images,
        labels.distances,
        labels.decision,
        margin_soft_labels,
        settings.loss,
        scale_training(training, len(labels)),
        students=SHORT_TRAINING_STUDENTS,
        factor=SHORT_TRAINING_FACTOR,
    ).scale
    soft = with_soft_labels(labels, scale=scale, temperature=settings.loss.temperature)
    rows = balanced_rows(labels.decision.clamp_min(0), settings.balance)
    return soft_label_strategy(
        name,
        labels.queries.sum().item() / len(labels),
        student,
        images,
        labels.decision,
        soft.soft_labels,
        settings.loss,
        training,
        rows=rows,
    )


def _keeping(
    run: Callable[[int], nn.Module], out: Path, teacher: Teacher, model: str
) -> Callable[[int], nn.Module]:
    """`run`, whose students are written to files as well."""

    def run_and_keep(seed: int) -> nn.Module:
        network = run(seed)
        save_model(
            out / f"student-seed{seed}.safetensors",
            network,
            model=model,
            image_shape=teacher.image_shape,
            classes=teacher.classes,
            class_names=class_names_of(teacher),
        )
        return network

    return run_and_keep


def _plain_noise(teacher: Teacher, count: int, seed: int) -> ImageSet:
    """As many images of the paper's noise, as they come, whatever class they are of."""
    starts = make_starts("paper", tuple(teacher.image_shape), seed)
    return ImageSet.from_arrays(starts.draw(torch.arange(count)).numpy(), name="plain noise")


def _load(test: str, split: str, teacher: Teacher) -> ImageSet:
    """Real images that fit the teacher."""
    images = load_data(test, split)
    who, shape = f"teacher {describe(teacher)}", tuple(teacher.image_shape)
    if images.image_shape != shape:
        raise ValueError(
            f"test: expected images of shape {shape} as {who} takes, got {images.image_shape} in "
            f"{images.name}"
        )
    if images.labels is None:
        raise ValueError(f"test: expected labels to measure students by, got none in {images.name}")
    images = matched(images, teacher)
    if int(images.labels.max()) >= teacher.classes:
        raise ValueError(
            f"test: expected labels in [0, {teacher.classes}) as {who} has {teacher.classes} "
            f"classes, got {int(images.labels.max())} in {images.name}"
        )
    images.check()
    return images


def _curves(rows: list[ZeroShotRow], settings: ZeroShotSettings) -> dict[str, list[ZeroShotRow]]:
    """The pseudo samples with fewer and fewer of them, and each other row beside them."""
    first = 1 if settings.labelling is not None else 0
    last = first + 1 + len(settings.shares)
    shrinking = {rows[first].name: rows[first:last]} if rows else {}
    return shrinking | {row.name: [row] for row in rows[:first] + rows[last:]}


def _notes(made: TransferSet, settings: ZeroShotSettings) -> list[str]:
    synthesis, totals, training = settings.synthesis, made.totals, settings.training
    moves = f"up to {synthesis.moves.count} moves each" if synthesis.moves.count else "not moved"
    notes = [
        f"{totals.samples:,} pseudo samples from the starts {synthesis.starts}, {moves}, made with "
        f"{totals.queries:,} queries. Samples by class: {', '.join(map(str, totals.kept))}.",
        f"Students: {settings.student}, {training.steps:,} steps of {training.batch_size}, Adam at "
        f"{training.learning_rate:g} ({training.schedule}), {settings.seeds} seeds; samples of "
        f"rare classes more often (balance {settings.balance:g}).",
        "Plain noise is the paper's start distribution as it comes, a decision for each image. "
        "Queries about test images are not counted.",
    ]
    if totals.unreached:
        names = made.samples.class_names
        missing = [str(number) if names is None else names[number] for number in totals.unreached]
        notes.append(f"No image was found for the classes {', '.join(missing)}.")
    return notes


def _queries_of_first(samples: PseudoSamples, count: int, settings: SynthesisSettings) -> int:
    """What it would have cost to make the first samples alone.

    A guide keeps all that it asks; without one, starts may have been asked and not kept.
    """
    starts = 0 if settings.acquisition is not None else int(samples.start[:count].max()) + 1
    return max(starts, count) + int(samples.queries[:count].sum())
