"""Students that learn from distances: the strategies sd, bd, mbd and db3kd-paper of `distill`."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from db3kd.data.image_set import ImageSet
from db3kd.data.source import source_of
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.image_decisions import SingleClassCheck, decisions_in
from db3kd.labelling.label_job import LabelJob
from db3kd.labelling.runs.planned_run import ImageOrigin, PlannedRun, plan_run
from db3kd.labelling.runs.run_writer import carry_out
from db3kd.labelling.runs.totals import totals_of_shards
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.label_files import load_labels
from db3kd.labels.labels import Labels
from db3kd.labels.soft_labels import check_soft_labels, with_soft_labels
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.student_network import Student
from db3kd.pipelines.training_display import show_training
from db3kd.planning import BudgetPlan
from db3kd.planning.budget_plan import MOST_PER_PAIR
from db3kd.progress import Progress, ProgressListener, listening
from db3kd.scale.search import (
    SHORT_TRAINING_FACTOR,
    choose_scale,
    median_nearest_distance,
    scale_training,
)
from db3kd.storage.manifest import is_finished
from db3kd.storage.run_comparison import ExpectedRun
from db3kd.teachers import Teacher
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.checkpoint import Checkpoint
from db3kd.training.loss import KDLoss
from db3kd.training.network_store import NetworkStore
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_on_soft_labels
from db3kd.wording import input_noun, plural

PAPER: str = "db3kd-paper"

_LEAST_CHOICE_SAMPLES = 10
"""With fewer samples, the usual scale is taken: students would be measured on one sample each."""


def label_settings(plan: BudgetPlan, seed: int) -> LabelSettings:
    """Returns the settings with which a strategy spends its queries on distances."""
    assert plan.measure is not None  # the plan has queries for distances
    if plan.strategy == PAPER:
        return LabelSettings.paper(plan.measure, queries=plan.label_queries, seed=seed)
    return LabelSettings(
        measure=plan.measure,
        queries=plan.label_queries,
        queries_per_pair=MOST_PER_PAIR,
        targets=plan.targets,
        seed=seed,
    )


def expected_distances(
    teacher: Teacher, images: ImageSet, plan: BudgetPlan, seed: int, folder: Path
) -> ExpectedRun:
    """Returns the run that `measure_distances` makes or continues with these arguments."""
    numbers = torch.from_numpy(images.selection.numbers)  # not part of what is expected
    return _planned(teacher, images, numbers, plan, seed, folder).expected


def _planned(
    teacher: Teacher,
    images: ImageSet,
    numbers: Tensor,
    plan: BudgetPlan,
    seed: int,
    folder: Path,
    *,
    rare_classes: bool = False,
) -> PlannedRun:
    job = LabelJob.prepare(
        teacher,
        images,
        label_settings(plan, seed),
        single_class=SingleClassCheck(rare_classes=rare_classes),
        check_images=False,
    )
    return plan_run(
        folder,
        job,
        resume=folder.exists(),
        origin=ImageOrigin(source_of(images), index=numbers, keeps_index=True),
    )


def decisions_before_distances(
    plan: BudgetPlan, classes: int, seed: int, folder: Path
) -> tuple[Tensor, Tensor]:
    """Returns the decisions that a stopped run of `measure_distances` has for its images.

    Returns:
        [n] int64, the numbers of the images, and [n] int64, their classes.
    """
    limits = divide_budget(label_settings(plan, seed), plan.training_images, classes)
    return decisions_in(folder, limits)


def chooses_scale(plan: BudgetPlan) -> bool:
    """Returns whether short training runs choose the scale of the soft labels of a plan."""
    return (
        plan.label_queries > 0
        and plan.strategy != PAPER
        and plan.training_images >= _LEAST_CHOICE_SAMPLES
    )


def measure_distances(
    teacher: Teacher,
    images: ImageSet,
    numbers: Tensor,
    plan: BudgetPlan,
    seed: int,
    folder: Path,
    *,
    progress: ProgressListener | bool,
    rare_classes: bool = False,
) -> Labels:
    """Labels the images to train on, in a run folder that is continued if it exists.

    Args:
        teacher: The teacher.
        images: The images.
        numbers: [N] int64, the numbers by which the distillation stores these images.
        plan: The plan of the distillation.
        seed: The seed of the distillation.
        folder: The folder of the labels.
        progress: See `db3kd.distill`. Nothing is shown if nothing is left to do.
        rare_classes: See `db3kd.distill`.

    Returns:
        The labels, whose index counts `images`. The folder has the numbers.
    """

    def labels(progress: ProgressListener | bool) -> Labels:
        planned = _planned(teacher, images, numbers, plan, seed, folder, rare_classes=rare_classes)
        carry_out(planned, progress)
        return replace(load_labels(folder), index=torch.arange(len(images)))

    if is_finished(folder):
        return labels(False)
    before = totals_of_shards(folder)

    def display() -> Progress:
        return Progress(
            len(images),
            plan.label_queries,
            title=f"measuring distances ({plan.measure})",
            unit=plural(input_noun(teacher.image_shape)),
            samples_before=before.samples,
            queries_before=before.search_queries,  # decisions count when they are replayed
        )

    with listening(progress, display) as listener:
        return labels(listener)


def train_on_distances(
    student: Student,
    images: ImageSet,
    labels: Labels,
    strategy: str,
    training: TrainSettings,
    store: NetworkStore,
    notes: DistillNotes,
    *,
    callbacks: list[TrainingCallback],
    patience: int | None,
    progress: ProgressListener | bool,
) -> nn.Module:
    """Trains a student on soft labels.

    The strategy "db3kd-paper" uses the formula and the loss of the paper; all others use margin
    soft labels, whose scale short training runs choose.

    Args:
        student: How the student is made.
        images: The images to train on.
        labels: Their labels.
        strategy: The strategy that measured their distances.
        training: The settings, with the number of steps.
        store: Trains the student once.
        notes: Keep the scale of the soft labels.
        callbacks: The callbacks of the training.
        patience: See `DistillSettings`.
        progress: See `db3kd.distill`.
    """
    if strategy == PAPER:
        loss = KDLoss.paper()
        soft = with_soft_labels(labels, normalisation="inverse", temperature=loss.temperature)
    else:
        loss = KDLoss()
        scale = _scale(student, images, labels, loss, training, notes, progress)
        soft = with_soft_labels(labels, scale=scale, temperature=loss.temperature)
    assert training.steps is not None  # the caller sets them
    steps = training.steps

    def train(checkpoint: Checkpoint) -> nn.Module:
        with show_training("training the student", steps, progress) as show:
            return train_on_soft_labels(
                student.make,
                images,
                soft.decision,
                check_soft_labels(soft),
                loss,
                training,
                progress=False,
                checkpoint=checkpoint,
                callbacks=[*callbacks, show],
            )

    return store.get(
        "student",
        student.make,
        train,
        {
            "network": student.identity,
            "strategy": strategy,
            "patience": patience,
            "settings": training,
        },
    )


def _scale(
    student: Student,
    images: ImageSet,
    labels: Labels,
    loss: KDLoss,
    training: TrainSettings,
    notes: DistillNotes,
    progress: ProgressListener | bool,
) -> float:
    others = labels.distances.isfinite() & (labels.distances > 0)
    if not others.any():
        return 1.0  # all samples are contradictory or reach no class, so no scale changes them
    if len(labels) < _LEAST_CHOICE_SAMPLES:
        return SHORT_TRAINING_FACTOR / median_nearest_distance(labels.distances, labels.decision)

    def choose() -> float:
        return choose_scale(student.make, images, labels, loss, training, progress).scale

    short = scale_training(training, len(labels))
    return float(notes.once("scale", {"student": student.identity, "settings": short}, choose))
