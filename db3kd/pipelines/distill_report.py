"""The report of a distillation: fills a `StudentReport` from a finished run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from db3kd.distillation.answers import Answers
from db3kd.labelling.labels import Labels
from db3kd.labelling.sample_choice import spread_over_classes
from db3kd.pipelines.distill_notes import TimedPart
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.reproduction import reproduction
from db3kd.pipelines.student_warnings import (
    FEW_HELD_OUT,
    LONGER_RUN,
    few_held_out,
    student_warnings,
    time_limit_warning,
)
from db3kd.pipelines.teaching import Choice
from db3kd.planning import BudgetPlan
from db3kd.report import (
    Disagreements,
    PlanChoice,
    ReportStage,
    SoftExamples,
    StudentReport,
    write_student_report,
)
from db3kd.storage.run_folder import queries_in_flight
from db3kd.tables import Features

REPORT_FILE = "report.html"

_SHOWN_DISAGREEMENTS = 24
_SHOWN_SOFT_LABELS = 8
_SOFT_SOURCE = (
    "The proxies' mean answers for training {noun}s, which the student learned besides the "
    "decisions"
)
_CERTAIN = 0.9995
"""A probability above this is shown as 100.0 %."""


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a report needs to know of a finished run.

    Attributes:
        network: The student, in eval mode.
        student: What the report calls the student.
        teacher: What it calls the teacher.
        data: What it calls the images.
        plan: How the budget was divided.
        steps: Training steps of the student.
        answers: All answers, those for held-out images included.
        predicted: [n] int64, the student's classes of the held-out images, in their order.
        correct: Number of test images that the student classifies correctly, and of all test
            images; None without them.
        queries: All queries.
        label_queries: Queries for distances.
        choices: What was chosen by validation agreement.
        curve: Numbers of queries, and the agreement of proxies trained on their answers.
        seconds: Time by stage.
        taught_by: Who taught the student, such as "decisions and 2 proxies".
        soft: Images [n, *image_shape] and the probabilities [n, C] that taught the student; None
            if it learned from decisions alone.
        labels: The labels of a strategy that measures distances; otherwise None.
        class_names: Names of the classes, or None.
        features: The features of a table, or None.
        manifest: The manifest of the run.
        settings: How networks were trained.
    """

    network: nn.Module
    student: str
    teacher: str
    data: str
    plan: BudgetPlan
    steps: int
    answers: Answers
    predicted: Tensor
    correct: tuple[int, int] | None
    queries: int
    label_queries: int
    choices: Sequence[Choice]
    curve: Sequence[tuple[int, float]]
    seconds: Mapping[TimedPart, float]
    taught_by: str
    soft: tuple[Tensor, Tensor] | None
    labels: Labels | None
    class_names: Sequence[str] | None
    features: Features | None
    manifest: Mapping[str, Any]
    settings: DistillSettings

    @property
    def warnings(self) -> list[str]:
        """What makes the student useless, or worse than its answers allow, if anything does."""
        inputs = "images" if self.features is None else "rows"
        decisions = None if self.labels is None else self.decisions
        found = student_warnings(self.answers, self.predicted, self.class_names, inputs, decisions)
        if self.settings.time_limit is not None:
            cut = time_limit_warning(
                self.settings.time_limit, self.steps, self.full_steps, LONGER_RUN
            )
            found += [] if cut is None else [cut]
        return found

    @property
    def decisions(self) -> Tensor:
        """[m] int64, the teacher's classes of all images and augmented images it was asked about.

        Strategies that measure distances keep the classes of the training images in the labels.
        """
        if self.labels is None:
            return self.answers.decisions
        measured = self.labels.decision
        return torch.cat([measured[measured >= 0], self.answers.decisions])

    @property
    def full_steps(self) -> int:
        """Training steps of the student without a time limit."""
        known = len(self.answers.training) if self.labels is None else len(self.labels)
        return self.settings.steps_for(known)

    @property
    def validation(self) -> int:
        """Number of validation images: held-out images, and augmented versions of them."""
        return len(self.answers.held_out)

    @property
    def held_out(self) -> int:
        """Number of held-out images."""
        return len(self.predicted)

    @property
    def matches(self) -> int:
        """Held-out images that the student puts in the teacher's class."""
        decisions = self.answers.held_out.clean.decisions
        return int((self.predicted == decisions).sum())


def write_distill_report(
    folder: Path, run: FinishedRun, classes: int, price_per_1000: float | None
) -> Path:
    """Writes report.html and report.md into a run folder.

    Args:
        folder: The run folder.
        run: The finished run.
        classes: The teacher's number of classes.
        price_per_1000: The price of 1,000 queries, or None.

    Returns:
        The path of report.html.
    """
    held_out = run.answers.held_out.clean
    confusion = torch.bincount(
        held_out.decisions * classes + run.predicted, minlength=classes**2
    ).view(classes, classes)
    wrong = (run.predicted != held_out.decisions).nonzero().flatten()[:_SHOWN_DISAGREEMENTS]
    disagreements = None
    if len(wrong):
        disagreements = Disagreements(
            run.answers.images.read(held_out.rows[wrong]),
            held_out.decisions[wrong],
            run.predicted[wrong],
        )
    report = StudentReport(
        title=f"A student of {run.teacher}",
        teacher=run.teacher,
        student=run.student,
        data=run.data,
        strategy=f"{run.plan.strategy}: {_asked(run).text}",
        taught_by=run.taught_by,
        agreement=(run.matches, run.held_out),
        accuracy=run.correct,
        price_per_1000=price_per_1000,
        curve=_curve(run),
        validation=run.validation,
        choices=[
            PlanChoice(choice.question, choice.chosen, choice.options) for choice in run.choices
        ],
        class_names=run.class_names,
        class_counts=torch.bincount(run.decisions, minlength=classes),
        confusion=confusion,
        disagreements=disagreements,
        soft_examples=_soft_examples(run),
        features=run.features,
        reproduce=reproduction(
            run.plan, run.student, run.settings, run.steps, run.manifest, run.correct is not None
        ),
        warnings=run.warnings,
        notes=_notes(run),
    )
    return write_student_report(folder, replace(report, stages=_stages(run, report.noun)))


def example_rows(answers: Answers) -> Tensor:
    """Returns rows of a few training images of different classes."""
    clean = answers.training.clean
    return clean.rows[spread_over_classes(clean.decisions, _SHOWN_SOFT_LABELS)]


def _asked(run: FinishedRun) -> BudgetPlan:
    """Returns the plan as one random round if no proxy could choose."""
    if run.curve or len(run.plan.rounds) < 2:
        return run.plan
    return replace(run.plan, rounds=(sum(run.plan.rounds),))


def _stages(run: FinishedRun, noun: Literal["image", "row"]) -> list[ReportStage]:
    """Returns the stages of the plan with their queries, and the stages of training."""
    stages = []
    planned = _asked(run).stages_in_words(noun)
    asked = sum(stage.queries for stage in planned) or 1
    for stage in planned:
        queries = stage.queries
        if stage.kind == "distances":
            queries = run.label_queries
        elif stage.kind == "pseudo_samples":
            queries = run.queries
        seconds = run.seconds["asking"] * stage.queries / asked
        stages.append(ReportStage(stage.name, f"{queries:,} {noun}s", stage.why, queries, seconds))
    if run.curve:  # one point for each round that proxies chose
        stages.append(
            ReportStage(
                "proxies that choose", "nothing", f"choose {noun}s", 0, run.seconds["choosing"]
            )
        )
    why = f"{run.steps:,} steps of the student"
    if run.steps < run.full_steps:
        why += f" instead of {run.full_steps:,}, because of the time limit"
    stages.append(ReportStage("training", "nothing", why, 0, run.seconds["training"]))
    return stages


def _soft_examples(run: FinishedRun) -> SoftExamples | None:
    """Returns the soft labels to show; None if they show nothing but decisions."""
    if run.soft is None or bool((run.soft[1].max(1).values > _CERTAIN).all()):
        return None
    images, probabilities = run.soft
    noun = "row" if images.ndim == 2 else "image"
    return SoftExamples(images, probabilities, _SOFT_SOURCE.format(noun=noun))


def _curve(run: FinishedRun) -> list[tuple[int, float]]:
    """Returns the agreement of the proxies of each round, and finally that of the student."""
    if not run.curve:
        return []
    return [*run.curve, (run.queries, run.matches / run.held_out)]


def _notes(run: FinishedRun) -> list[str]:
    notes = []
    if run.held_out < FEW_HELD_OUT:
        notes.append(few_held_out(run.held_out, run.correct is not None, run.features is not None))
    if run.settings.patience is not None:
        notes.append(
            "The student's best weights were chosen by its agreement on held-out images, so the "
            "agreement is somewhat higher than on other images."
        )
    repeated = queries_in_flight(run.manifest)
    if repeated:
        notes.append(
            f"The run was interrupted. At most {repeated:,} queries that were in flight were paid "
            "for twice; the totals count them once."
        )
    if run.plan.pseudo_samples:
        notes.append(
            "The held-out images are pseudo samples, which may be easier or harder than real ones."
        )
    if run.curve:
        notes.append(
            "In the plot of agreement against queries, each point shows the proxies of one round, "
            "and the last point the student."
        )
    return notes
