"""Asks the teacher about everything that the plan of a distillation has."""

from typing import NamedTuple

import torch
from torch import Tensor

from db3kd.answers.answers import NUMBERS, Answers, augmentable_images
from db3kd.labels.labels import Labels
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.distillation.prepared import PreparedDistillation, stored_queries
from db3kd.pipelines.distillation.training_steps import training_steps
from db3kd.pipelines.query_rounds.answer_run import AnswerRun
from db3kd.pipelines.query_rounds.pseudo_sample_answers import pseudo_sample_answers
from db3kd.pipelines.query_rounds.rounds import ask_rounds
from db3kd.pipelines.run_layout import LABELS_FOLDER, SAMPLES_FOLDER
from db3kd.pipelines.student_training.distance_students import (
    decisions_before_distances,
    measure_distances,
)
from db3kd.progress import Progress, ProgressListener, listening
from db3kd.progress.answers import count_answers_in
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.source_numbers import keep_numbers
from db3kd.training.network_store import NetworkStore
from db3kd.wording import plural


class Asked(NamedTuple):
    """What the teacher answered.

    Attributes:
        answers: All answers, those for held-out images included.
        labels: The labels of a strategy that measures distances; otherwise None.
        rows: The number of answers in the shards of the run folder.
    """

    answers: Answers
    labels: Labels | None
    rows: int


def ask_teacher(
    prepared: PreparedDistillation,
    folder: RunFolder,
    notes: DistillNotes,
    store: NetworkStore,
    taken_over: Tensor | None,
    progress: ProgressListener | bool,
) -> Asked:
    """Sends the queries of a distillation, or those that have no answer yet.

    Args:
        prepared: The checked arguments of the distillation.
        folder: The run folder, opened for writing.
        notes: The notes of the run.
        store: Trains the proxies that choose images.
        taken_over: From `decisions_to_take_over`.
        progress: See `distill`.

    Raises:
        TeacherError: If the teacher fails, or puts all images in one class.
    """
    if prepared.images is None:
        with notes.timed_part("asking"):
            samples = pseudo_sample_answers(
                prepared.teacher,
                prepared.plan,
                prepared.settings.training,
                folder.path / SAMPLES_FOLDER,
                progress=progress,
            )
        return Asked(samples, None, 0)
    rare_classes = notes.rare_classes(prepared.rare_classes)
    seed, plan = prepared.settings.training.seed, prepared.plan
    order = prepared.order()
    project = None if prepared.features is None else prepared.features.project
    augmented = augmentable_images(prepared.images, order, plan.held_out, seed, project)
    asked = plan.held_out + plan.held_out_augmented + sum(plan.rounds)
    numbers = torch.from_numpy(keep_numbers(folder, prepared.images.selection.numbers))
    run = AnswerRun(
        folder,
        prepared.teacher,
        augmented,
        numbers[order],
        consistency_check=prepared.consistency_check,
    )
    if taken_over is not None:
        run.take_over(0, plan.held_out, torch.arange(len(taken_over)) * NUMBERS, taken_over)
    # A larger budget that was withdrawn may have taken over the decisions of SD labels.
    stored = min(run.stored, asked)
    title = "querying the teacher"
    if plan.label_queries:  # a display of its own follows
        title = f"querying held-out {plural(prepared.noun)}"

    def display() -> Progress:
        return Progress(
            asked,
            asked,
            title=title,
            unit=plural(prepared.noun),
            samples_before=stored,
            queries_before=stored,
        )

    with listening(progress, display) as listener:
        run.on_answers = count_answers_in(listener)
        if isinstance(listener, Progress):
            run.while_choosing = listener.paused
        answers = ask_rounds(
            run,
            plan,
            prepared.proxies,
            prepared.student_settings,
            store,
            notes,
            lambda known: training_steps(prepared, run.answers, known, notes, choosing=True),
            progress=progress is True,  # a listener counts queries meanwhile
            rare_classes=rare_classes,
        )
    rows, labels = max(len(answers), run.stored), None
    if plan.label_queries:
        path = folder.path / LABELS_FOLDER
        if run.unchecked and stored_queries(folder.path, plan).left(plan.queries):
            known, decisions = decisions_before_distances(
                plan, prepared.teacher.classes, seed, path
            )
            run.check_known(known * NUMBERS, decisions)
        with notes.timed_part("asking"):
            labels = measure_distances(
                prepared.teacher,
                prepared.training_images(),
                numbers[order[: plan.training_images]],
                plan,
                seed,
                path,
                progress=progress,
                rare_classes=rare_classes,
            )
    return Asked(answers, labels, rows)
