"""The students of a zero-shot run, and the baselines that they are compared with.

The baselines are students of plain noise and of real images. Without them, an accuracy would not
show what the pseudo samples are worth.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import NoneType

import torch
from torch import Tensor, nn

from db3kd.argument_types import check_type
from db3kd.data.arguments import TeacherLike
from db3kd.data.class_labels import true_classes
from db3kd.data.image_set import ImageSet
from db3kd.data.pseudo_samples import PseudoSamples
from db3kd.distillation.label_scale import choose_label_scale
from db3kd.distillation.methods import (
    TrainingMethod,
    compare_methods,
    decision_method,
    soft_label_method,
)
from db3kd.labelling.label_run import LabelRun
from db3kd.labelling.soft_labels import with_soft_labels
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.pipelines.stored_decisions import decide_in_folder
from db3kd.pipelines.zero_shot.settings import ZeroShotSettings
from db3kd.pipelines.zero_shot.transfer_set import TransferSet, check_zero_shot
from db3kd.progress import show_progress
from db3kd.report import ZeroShotRow
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.synthesis.starts import make_starts
from db3kd.teachers import Teacher
from db3kd.teachers.base import class_names_of
from db3kd.training.row_batches import balanced_rows

DECISION_FOLDERS = {
    "plain noise": "noise-decisions",
    "real images": "real-decisions",
    "test images": "test-decisions",
}
"""The runs of the decisions for each of these images, in the folder of a zero-shot run."""

SAMPLES_CURVE = "pseudo samples, decisions"
"""The row of the students of all pseudo samples, and their curve over the number of samples."""

MakeStudent = Callable[[], nn.Module]
"""Makes a student with fresh weights."""


def train_students(
    teacher: TeacherLike,
    transfer: TransferSet,
    out: str | Path,
    settings: ZeroShotSettings,
    test: ImageSet | None = None,
    real: ImageSet | None = None,
) -> list[ZeroShotRow]:
    """Trains all students, and measures each of them on the test images once.

    Only the students of the whole transfer set are saved; without test images, no others are
    trained. Decisions for baselines and test images are kept in the folder, and asked for only
    once.

    Args:
        teacher: The teacher of the transfer set.
        transfer: What the students are trained on.
        out: The folder that students are saved in, as student-seed0.safetensors and so on, and
            decisions in subfolders.
        settings: How the students are trained.
        test: Labelled test images, or None to measure nothing.
        real: Real images for a baseline. At most as many as there are pseudo samples are used.

    Returns:
        A row for each transfer set; none without test images.

    Raises:
        TeacherError: If the teacher fails. Paid answers are kept.
        ValueError: If the folder holds decisions of another teacher or for other images.
    """
    teacher, out = check_zero_shot(teacher, out, settings)
    check_type(transfer, TransferSet, "transfer", "a TransferSet")
    for name, images in (("test", test), ("real", real)):
        check_type(images, (ImageSet, NoneType), name, "an ImageSet or None")
    student = partial(build_model, settings.student, teacher.image_shape, teacher.classes)
    seeds = range(settings.training.seed, settings.training.seed + settings.seeds)
    planned = _plan_rows(teacher, transfer, student, settings, out, real)
    # The plan asks the teacher for the decisions of each baseline when its turn comes.
    rows = [next(planned)] if test is None else list(planned)
    decisions = None if test is None else _decide(teacher, test, out, "test images")
    methods = [method for _, method in rows]
    run = _saving_students(methods[0].run, out, teacher, settings.student)
    methods[0] = replace(methods[0], run=run)
    begun = itertools.count()
    with show_progress("training", len(rows) * len(seeds), "students") as show:
        if test is None or decisions is None:
            for seed in seeds:
                show(next(begun))
                methods[0].run(seed)
            show(len(seeds))
            return []
        results = compare_methods(
            methods,
            seeds,
            test,
            true_classes(test)[0],
            decisions,
            lambda *_: show(next(begun)),
        )
        show(len(rows) * len(seeds))
    return [
        replace(row, accuracies=result.accuracies, agreements=result.agreements)
        for (row, _), result in zip(rows, results, strict=True)
    ]


def baseline_images(
    teacher: Teacher, count: int, seed: int, real: ImageSet | None
) -> dict[str, ImageSet]:
    """Returns the images of the baselines, by the names in `DECISION_FOLDERS`.

    Args:
        teacher: The teacher, for the shape of its images.
        count: The number of pseudo samples.
        seed: Their seed.
        real: See `train_students`.
    """
    images = {"plain noise": _plain_noise(teacher, count, seed)}
    if real is not None:
        chosen = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[:count]
        images["real images"] = real.subset(chosen)
    return images


def _plan_rows(
    teacher: Teacher,
    transfer: TransferSet,
    student: MakeStudent,
    settings: ZeroShotSettings,
    out: Path,
    real: ImageSet | None,
) -> Iterator[tuple[ZeroShotRow, TrainingMethod]]:
    """Yields each row of the table without its results, and the method that computes them."""
    samples = transfer.samples
    images, decisions = samples.as_image_set(), samples.decision
    queries = transfer.totals.queries
    count = len(images)
    on_decisions = partial(_on_decisions, student, settings)
    if (label_run := transfer.label_run) is not None:
        measure = label_run.measure.upper()
        total = queries + int(label_run.labels.queries.sum())
        row = ZeroShotRow(f"pseudo samples, {measure} soft labels", count, total)
        yield row, _on_soft_labels(student, settings, row.name, label_run)
    row = ZeroShotRow(SAMPLES_CURVE, count, queries, curve=SAMPLES_CURVE)
    yield row, on_decisions(row.name, images, decisions)
    for share in settings.shares:
        part = range(max(1, round(share * count)))
        cost = _queries_of_first(samples, len(part), settings.synthesis)
        name = f"first {share:.0%} of the pseudo samples"
        row = ZeroShotRow(name, len(part), cost, curve=SAMPLES_CURVE)
        yield row, on_decisions(row.name, images.subset(part), decisions[: len(part)])
    baselines = baseline_images(teacher, count, settings.synthesis.seed, real)
    for name, baseline in baselines.items():
        row = ZeroShotRow(f"{name}, decisions", len(baseline), len(baseline))
        answers = _decide(teacher, baseline, out, name)
        yield row, on_decisions(row.name, baseline, answers)


def _decide(teacher: Teacher, images: ImageSet, out: Path, title: str) -> Tensor:
    return decide_in_folder(out / DECISION_FOLDERS[title], teacher, images, title)


def _on_decisions(
    student: MakeStudent,
    settings: ZeroShotSettings,
    name: str,
    images: ImageSet,
    decisions: Tensor,
) -> TrainingMethod:
    rows = balanced_rows(decisions, settings.balance)
    return replace(
        decision_method(student, images, decisions, settings.training, rows=rows), name=name
    )


def _on_soft_labels(
    student: MakeStudent, settings: ZeroShotSettings, name: str, label_run: LabelRun
) -> TrainingMethod:
    labels, images, training = label_run.labels, label_run.images, settings.training
    scale = choose_label_scale(student, images, labels, settings.loss, training).scale
    soft_labels = with_soft_labels(
        labels, scale=scale, temperature=settings.loss.temperature
    ).soft_labels
    assert soft_labels is not None  # with_soft_labels adds them
    rows = balanced_rows(labels.decision.clamp_min(0), settings.balance)
    return soft_label_method(
        name,
        labels.queries.sum().item() / len(labels),
        student,
        images,
        labels.decision,
        soft_labels,
        settings.loss,
        training,
        rows=rows,
    )


def _saving_students(
    run: Callable[[int], nn.Module], out: Path, teacher: Teacher, model: str
) -> Callable[[int], nn.Module]:
    """Returns a function that trains a student as `run` does, and saves it."""

    def run_and_save(seed: int) -> nn.Module:
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

    return run_and_save


def _plain_noise(teacher: Teacher, count: int, seed: int) -> ImageSet:
    """Returns images of the paper's noise, regardless of their classes."""
    starts = make_starts("paper", tuple(teacher.image_shape), seed)
    return ImageSet.from_arrays(starts.draw(torch.arange(count)).numpy(), name="plain noise")


def _queries_of_first(samples: PseudoSamples, count: int, settings: SynthesisSettings) -> int:
    """Returns how many queries the first samples alone would have cost.

    A run with acquisition keeps every image that it asks about. Without acquisition, a run may have
    asked about starts that it did not keep.
    """
    starts = 0 if settings.acquisition is not None else int(samples.start[:count].max()) + 1
    return max(starts, count) + int(samples.queries[:count].sum())
