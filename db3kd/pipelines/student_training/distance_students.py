"""Students that learn from distances: the strategies sd, bd, mbd and db3kd-paper of `distill`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, kw_only=True)
class DistanceStudent:
    """A student that learns from soft labels.

    Attributes:
        make: Makes the student.
        name: What identifies its architecture and initial weights.
        images: The images to train on.
        labels: Their labels.
        store: Trains the student once.
        notes: Keeps the scale of the soft labels.
        progress: See `db3kd.distill`.
    """

    make: Callable[[], nn.Module]
    name: str
    images: ImageSet
    labels: Labels
    store: NetworkStore
    notes: DistillNotes
    progress: ProgressListener | bool = False

    def train(
        self,
        strategy: str,
        training: TrainSettings,
        callbacks: list[TrainingCallback],
        patience: int | None = None,
    ) -> nn.Module:
        """Trains the student.

        The strategy "db3kd-paper" uses the formula and the loss of the paper; all others use margin
        soft labels, whose scale short training runs choose. `training.steps` must be set.
        """
        if strategy == PAPER:
            loss = KDLoss.paper()
            labels = with_soft_labels(
                self.labels, normalisation="inverse", temperature=loss.temperature
            )
        else:
            loss = KDLoss()
            labels = with_soft_labels(
                self.labels, scale=self._scale(loss, training), temperature=loss.temperature
            )
        assert training.steps is not None  # the caller sets them
        steps = training.steps

        def train(checkpoint: Checkpoint) -> nn.Module:
            with show_training("training the student", steps, self.progress) as show:
                return train_on_soft_labels(
                    self.make,
                    self.images,
                    labels.decision,
                    check_soft_labels(labels),
                    loss,
                    training,
                    progress=False,
                    checkpoint=checkpoint,
                    callbacks=[*callbacks, show],
                )

        return self.store.get(
            "student",
            self.make,
            train,
            {
                "network": self.name,
                "strategy": strategy,
                "patience": patience,
                "settings": training,
            },
        )

    def _scale(self, loss: KDLoss, training: TrainSettings) -> float:
        others = self.labels.distances.isfinite() & (self.labels.distances > 0)
        if not others.any():
            return 1.0  # all samples are contradictory or reach no class, so no scale changes them
        if len(self.labels) < _LEAST_CHOICE_SAMPLES:
            nearest = median_nearest_distance(self.labels.distances, self.labels.decision)
            return SHORT_TRAINING_FACTOR / nearest
        short = scale_training(training, len(self.labels))

        def choose() -> float:
            return choose_scale(
                self.make, self.images, self.labels, loss, training, self.progress
            ).scale

        return float(self.notes.once("scale", {"student": self.name, "settings": short}, choose))
