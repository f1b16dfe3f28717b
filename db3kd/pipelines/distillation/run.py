"""A resumable distillation in its run folder: queries, trains, measures and reports."""

import logging
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from db3kd.data.image_set import ImageSet
from db3kd.errors import InputNotFoundError
from db3kd.export.formats import SUFFIXES
from db3kd.models.weights import STUDENT_FILE, save_model
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.distillation.asking import Asked, ask_teacher
from db3kd.pipelines.distillation.finished_run import (
    FinishedRun,
    TrainedStudent,
    count_label_queries,
    count_trained_on,
)
from db3kd.pipelines.distillation.larger_budget import add_larger_budget, decisions_to_take_over
from db3kd.pipelines.distillation.prepared import PreparedDistillation
from db3kd.pipelines.distillation.report import write_distill_report
from db3kd.pipelines.distillation.training_steps import training_steps
from db3kd.pipelines.query_rounds.answer_run import ANSWERS
from db3kd.pipelines.run_layout import NETWORKS_FOLDER, answer_folders
from db3kd.pipelines.run_notes import notes_of
from db3kd.pipelines.student_training.distance_students import train_on_distances
from db3kd.pipelines.student_training.rules import why_taught_by
from db3kd.pipelines.student_training.student_trainer import StudentTrainer, validation_callbacks
from db3kd.progress import ProgressListener
from db3kd.querying.consistency import queries_of_checks
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.existing_runs import holds_run, queries_paid_twice
from db3kd.storage.manifest import identity
from db3kd.storage.run_folder import RunFolder
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.evaluation import predict
from db3kd.training.network_store import NetworkStore
from db3kd.wording import counted

_LOG = logging.getLogger(__name__)

_KEPT_NETWORKS = ("student", "proxy-*")
"""The networks that a finished run keeps. The others only served to choose queries and options."""


def run_stages(
    prepared: PreparedDistillation,
    folder: Path,
    *,
    callbacks: Sequence[TrainingCallback],
    shown: Path,
    progress: ProgressListener | bool,
) -> FinishedRun:
    """Carries out a distillation, or the rest of it, and writes the student and the report.

    Args:
        prepared: The checked arguments of the distillation.
        folder: The run folder, which may be a temporary one.
        callbacks: Further callbacks of the student's training.
        shown: The run folder as the report and messages name it.
        progress: See `distill`.
    """
    manifest = prepared.resumed_manifest() if prepared.resume else prepared.manifest()
    opened = RunFolder.open(folder, ANSWERS, manifest, resume=prepared.resume)
    with opened as run, notes_of(run, DistillNotes) as notes:
        # Damaged labels are an error before the larger budget is recorded.
        taken_over = decisions_to_take_over(run.path, prepared.begun, prepared.plan)
        add_larger_budget(run, prepared.plan, prepared.stored, prepared.choosing)
        notes.keep_price(prepared.price_per_1000)
        store = NetworkStore(
            run.path / NETWORKS_FOLDER,
            {"run": identity(run.manifest), "from": run.manifest["started"]},
        )
        asked = ask_teacher(prepared, run, notes, store, taken_over, progress)
        with notes.timed_part("training"):
            trained = _train(prepared, asked, notes, store, callbacks, progress)
        predicted = predict(trained.network, asked.answers.held_out.clean.as_source())
        correct = _count_correct(trained.network, prepared.test)
        _save_student(prepared, run.path, trained.network, shown)
        _finish_folder(run, asked, sum(notes.seconds.values()))
        finished = FinishedRun(
            prepared=prepared,
            trained=trained,
            folder=shown,
            answers=asked.answers,
            labels=asked.labels,
            predicted=predicted,
            correct=correct,
            curve=notes.curve,
            seconds=notes.seconds,
            manifest=run.manifest,
            paid_twice=queries_paid_twice(*answer_folders(run.path)),
        )
        notes.keep_training(prepared.training)
        write_distill_report(run.path, finished)
        store.keep_only(_KEPT_NETWORKS)
    return finished


def _train(
    prepared: PreparedDistillation,
    asked: Asked,
    notes: DistillNotes,
    store: NetworkStore,
    callbacks: Sequence[TrainingCallback],
    progress: ProgressListener | bool,
) -> TrainedStudent:
    answers, labels = asked.answers, asked.labels
    steps = training_steps(prepared, answers, count_trained_on(answers, labels), notes)
    settings = prepared.student_settings
    if labels is not None:
        patience = settings.patience
        network = train_on_distances(
            prepared.student,
            prepared.training_images(),
            labels,
            prepared.plan.strategy,
            settings.trained_for(steps, settings.learning_rates[0], 0),
            store,
            notes,
            callbacks=[*validation_callbacks(answers, patience), *callbacks],
            patience=patience,
            progress=progress,
        )
        measured = str(prepared.plan.measure).upper()
        taught_by = f"decisions and soft labels from {measured} distances"
        why = f"The student learned from {taught_by}, because its strategy measures these."
        return TrainedStudent(network, steps, taught_by, why)
    trainer = StudentTrainer(
        make=prepared.student.make,
        name=prepared.student.identity,
        classes=prepared.teacher.classes,
        pseudo_samples=prepared.images is None,
        settings=settings,
        steps=steps,
        store=store,
        notes=notes,
        callbacks=callbacks,
        progress=progress,
    )
    rate = trainer.choose_learning_rate(answers)
    if prepared.images is None:
        proxies = trainer.proxies_without_images(answers, prepared.proxies, rate)
    else:
        preferred = trainer.prefers_proxies(answers.training, prepared.proxies)
        proxies = trainer.choose_proxies(answers, prepared.proxies, rate, prefer_proxies=preferred)
    network = trainer.train_student(answers, proxies, rate)
    taught_by = "decisions alone"
    if proxies:
        taught_by = f"decisions and {counted(len(proxies), 'proxy')}"
    why = trainer.why or why_taught_by(
        prepared.proxies.count, len(proxies), steps, len(answers.held_out), prepared.noun
    )
    return TrainedStudent(
        network, steps, taught_by, why, trainer.choices, proxies, trainer.left_out
    )


def _save_student(
    prepared: PreparedDistillation, path: Path, network: nn.Module, shown: Path
) -> None:
    """Writes the student, and warns of exports of an earlier one.

    Args:
        prepared: The checked arguments of the distillation.
        path: The run folder.
        network: The student.
        shown: The run folder as messages name it.

    Raises:
        FileNotFoundError: If the run folder was removed.
    """
    if not holds_run(path):
        raise InputNotFoundError(
            f"{shown}: the run folder and its answers were removed during the run; "
            "start another run"
        )
    file = path / STUDENT_FILE
    before = _stored_weights(file)
    save_model(
        file,
        network,
        model=prepared.student.name,
        image_shape=tuple(prepared.teacher.image_shape),
        classes=prepared.teacher.classes,
        class_names=prepared.class_names,
        features=prepared.features,
    )
    after = _stored_weights(file)
    if not before or _are_equal(before, after):
        return
    exports = (file.with_suffix(suffix) for suffix in SUFFIXES if suffix != file.suffix)
    for exported in filter(Path.exists, exports):
        _LOG.warning(
            "%s: holds an earlier student; remove it and export the new one", shown / exported.name
        )


def _finish_folder(folder: RunFolder, asked: Asked, seconds: float) -> None:
    """Marks the run as finished and empties the log of chosen images.

    Args:
        folder: The run folder.
        asked: What the teacher answered.
        seconds: The seconds of the run in all processes. A finished run that is resumed may
            train its networks again, so it takes longer.
    """
    if folder.verify_finished():
        folder.update_totals({"seconds": seconds})
    else:
        folder.finish(
            {
                "samples": asked.rows,
                "queries": len(asked.answers) + count_label_queries(asked.labels),
                "check_queries": queries_of_checks(folder.manifest),
                "seconds": seconds,
            }
        )
    ChoiceLog(folder.path).empty()


def _stored_weights(file: Path) -> dict[str, Tensor]:
    """Returns the weights in a file; none if it is missing or damaged."""
    try:
        return load_file(file)
    except (OSError, SafetensorError):
        return {}


def _are_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        value.equal(second[name]) for name, value in first.items()
    )


def _count_correct(network: nn.Module, test: ImageSet | None) -> tuple[int, int] | None:
    """Returns how many test images a student classifies correctly, and of how many."""
    if test is None or test.labels is None:
        return None
    return int((predict(network, test) == test.labels).sum()), len(test)
