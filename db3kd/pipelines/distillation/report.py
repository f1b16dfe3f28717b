"""The report of a distillation: fills a `StudentReport` from a finished run."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from db3kd.answers.answers import NUMBERS
from db3kd.answers.batches import mean_probabilities
from db3kd.data.sample_choice import spread_over_classes
from db3kd.pipelines.distill_settings import of_default
from db3kd.pipelines.distillation.finished_run import FinishedRun
from db3kd.pipelines.distillation.reproduction import reproduction, usage
from db3kd.pipelines.student_warnings import paid_twice_note
from db3kd.planning import BudgetPlan
from db3kd.querying.consistency import describe_checks
from db3kd.report import (
    Disagreements,
    PlanChoice,
    ReportStage,
    SoftExamples,
    StudentReport,
    write_student_report,
)
from db3kd.storage.manifest import dates_of_run
from db3kd.teachers import describe
from db3kd.wording import counted

_SHOWN_DISAGREEMENTS = 24
_SHOWN_SOFT_LABELS = 8
_SOFT_SOURCE = (
    "The proxies' mean answers for training {noun}s, which the student learned besides the "
    "decisions"
)
_CERTAIN = 0.9995
"""A probability above this is shown as 100.0 %."""


def write_distill_report(folder: Path, run: FinishedRun) -> Path:
    """Writes report.html and report.md into a run folder.

    Args:
        folder: The run folder.
        run: The finished run.

    Returns:
        The path of report.html.
    """
    prepared, teacher = run.prepared, describe(run.prepared.teacher)
    held_out, classes = run.answers.held_out.clean, prepared.teacher.classes
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
            _names(run, held_out.rows[wrong]),
        )
    report = StudentReport(
        title=f"A student of {teacher}",
        teacher=teacher,
        student=prepared.student.title,
        data="pseudo samples" if prepared.images is None else prepared.images.name,
        strategy=f"{prepared.plan.strategy}: {_asked(run).text}",
        taught_by=run.trained.taught_by,
        dates=dates_of_run(run.manifest),
        pseudo_samples=prepared.images is None,
        agreement=(run.matches, run.held_out),
        accuracy=run.correct,
        price_per_1000=prepared.price_per_1000,
        stages=_stages(run),
        curve=_curve(run),
        paid_twice=run.paid_twice,
        validation=run.validation,
        choices=[
            PlanChoice(choice.question, choice.chosen, choice.options)
            for choice in run.trained.choices
        ],
        class_names=prepared.class_names,
        class_counts=torch.bincount(run.decisions, minlength=classes),
        confusion=confusion,
        disagreements=disagreements,
        soft_examples=_soft_examples(run),
        features=prepared.features,
        reproduce=reproduction(run),
        usage=usage(run.folder, prepared.student.title, prepared.images or prepared.test),
        warnings=run.warnings,
        notes=_notes(run),
    )
    return write_student_report(folder, report)


def _asked(run: FinishedRun) -> BudgetPlan:
    """Returns the plan with one random round in the place of those for which no proxy chose."""
    plan = run.prepared.plan
    begun = plan.parts[0].rounds
    if not run.curve and len(plan.rounds) > 1:
        return replace(plan, rounds=(sum(plan.rounds),), further=())
    if "choosing" not in run.manifest["settings"] and len(begun) > 1:
        return replace(plan, rounds=(sum(begun), *plan.rounds[len(begun) :]))
    return plan


def _stages(run: FinishedRun) -> list[ReportStage]:
    """Returns the stages of the plan with their queries, and the stages of training."""
    stages, noun = [], run.noun
    planned = _asked(run).stages
    asked = sum(stage.queries for stage in planned) or 1
    for stage in planned:
        queries = stage.queries
        if stage.kind == "distances":
            queries = run.label_queries
        elif stage.kind == "pseudo_samples":
            queries = run.queries
        seconds = run.seconds["asking"] * stage.queries / asked
        stages.append(ReportStage(stage.name, counted(queries, noun), stage.why, queries, seconds))
    if run.check_queries:
        stages.append(
            ReportStage(
                "consistency checks",
                counted(run.check_queries, noun),
                describe_checks(run.manifest),
                run.check_queries,
                0,
            )
        )
    if run.curve:  # one point for each round that proxies chose
        stages.append(
            ReportStage("proxies that choose", "", f"choose {noun}s", 0, run.seconds["choosing"])
        )
    steps = run.trained.steps
    why = f"{counted(steps, 'step')} of the student"
    if steps < run.full_steps:
        why += f" instead of {run.full_steps:,}, because of the time limit"
    stages.append(ReportStage("training", "", why, 0, run.seconds["training"]))
    return stages


def _soft_examples(run: FinishedRun) -> SoftExamples | None:
    """Returns the soft labels to show; None if they show nothing but decisions."""
    proxies = run.trained.proxies
    if not proxies:
        return None
    clean = run.answers.training.clean
    rows = clean.rows[spread_over_classes(clean.decisions, _SHOWN_SOFT_LABELS)]
    images = run.answers.images.read(rows)
    device = next(proxies[0].parameters()).device
    probabilities = mean_probabilities(proxies, images.to(device)).cpu()
    if bool((probabilities.max(1).values > _CERTAIN).all()):
        return None
    source = _SOFT_SOURCE.format(noun=run.noun)
    return SoftExamples(images, probabilities, source, _names(run, rows))


def _names(run: FinishedRun, rows: Tensor) -> list[str]:
    """Returns what the user's data call the images of some answers; none for pseudo samples."""
    images = run.prepared.images
    if images is None:
        return []
    return [images.name_of(number) for number in run.prepared.order()[rows // NUMBERS].tolist()]


def _curve(run: FinishedRun) -> list[tuple[int, float]]:
    """Returns the agreement of the proxies of each round, and finally that of the student."""
    if not run.curve:
        return []
    return [*run.curve, (run.queries, run.matches / run.held_out)]


def _notes(run: FinishedRun) -> list[str]:
    steps, plan = run.trained.steps, run.prepared.plan
    patience = run.prepared.settings.patience
    most = "at most " if patience is not None else ""
    notes = [
        f"The student was trained for {most}{counted(steps, 'step')}, "
        f"{of_default(steps, run.default_steps)}.",
        run.trained.why,
    ]
    if patience is not None:
        notes.append(
            f"The student's best weights were chosen by its agreement on held-out {run.noun}s, so "
            f"the agreement is somewhat higher than on other {run.noun}s."
        )
    if plan.can_grow:
        notes.append(
            "To spend more queries later, repeat the command with a larger --budget and --resume "
            "(budget= and resume=True in Python). Only the further queries are sent."
        )
    if run.paid_twice:
        notes.append(paid_twice_note(run.paid_twice))
    if plan.pseudo_samples:
        notes.append(
            "The held-out images are pseudo samples, which may be easier or harder than real ones."
        )
    return notes
