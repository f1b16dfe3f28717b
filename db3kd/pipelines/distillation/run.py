"""A resumable distillation in its run folder: queries, trains, measures and reports."""

import logging
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from db3kd.answers.answers import Answers
from db3kd.data.image_set import ImageSet
from db3kd.errors import InputNotFoundError
from db3kd.export.formats import SUFFIXES
from db3kd.labelling.labels import Labels
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
from db3kd.pipelines.student_training.distance_students import DistanceStudent
from db3kd.pipelines.student_training.rules import why_taught_by
from db3kd.pipelines.student_training.student_trainer import StudentTrainer, validation_callbacks
from db3kd.querying.consistency import ConsistencyCheck, queries_of_checks
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.existing_runs import holds_run, queries_paid_twice
from db3kd.storage.manifest import identity
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers import describe
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.evaluation import predict
from db3kd.training.network_store import NetworkStore
from db3kd.wording import counted

_LOG = logging.getLogger(__name__)

_KEPT_NETWORKS = ("student", "proxy-*")
"""The networks that a finished run keeps. The others only served to choose queries and options."""

_PSEUDO_SAMPLE_BALANCE = 0.5
"""Random images favour some classes, so images of rare classes are trained on more often."""


class DistillRun:
    """A distillation in its run folder.

    Args:
        prepared: The checked arguments of the distillation.
        folder: The run folder.
        callbacks: Further callbacks of the student's training.
        consistency_check: Checks the teacher before a resumed run continues.
        shown: The run folder as the report and messages name it; by default `folder`.
    """

    def __init__(
        self,
        prepared: PreparedDistillation,
        folder: Path,
        callbacks: Sequence[TrainingCallback] = (),
        consistency_check: ConsistencyCheck | None = None,
        shown: Path | None = None,
    ) -> None:
        self.prepared, self.folder = prepared, folder
        self._shown = folder if shown is None else shown
        self._callbacks = callbacks
        self._consistency_check = consistency_check

    def execute(self, *, resume: bool) -> FinishedRun:
        """Carries out the run, or the rest of it, and writes the student and the report.

        Args:
            resume: Whether to continue a run in the folder.
        """
        prepared = self.prepared
        manifest = prepared.resumed_manifest(self.folder) if resume else prepared.manifest()
        opened = RunFolder.open(self.folder, ANSWERS, manifest, resume=resume)
        with opened as folder, notes_of(folder) as file:
            # Damaged labels are an error before the larger budget is recorded.
            taken_over = decisions_to_take_over(folder.path, prepared.begun, prepared.plan)
            add_larger_budget(folder, prepared.plan, prepared.stored, prepared.choosing)
            notes = DistillNotes(file)
            store = NetworkStore(
                folder.path / NETWORKS_FOLDER,
                {"run": identity(folder.manifest), "from": folder.manifest["started"]},
            )
            asked = ask_teacher(prepared, folder, notes, store, self._consistency_check, taken_over)
            answers, labels = asked.answers, asked.labels
            with notes.timed("training"):
                trained = self._train(answers, labels, notes, store)
            predicted = predict(trained.network, answers.held_out.clean.as_source())
            correct = _count_correct(trained.network, prepared.test)
            self._save_student(folder.path, trained.network)
            self._finish_folder(folder, asked, sum(notes.seconds.values()))
            finished = FinishedRun(
                trained=trained,
                folder=self._shown,
                student=prepared.student.title,
                teacher=describe(prepared.teacher),
                data="pseudo samples" if prepared.images is None else prepared.images.name,
                plan=prepared.plan,
                settings=prepared.settings,
                answers=answers,
                labels=labels,
                predicted=predicted,
                correct=correct,
                curve=notes.curve,
                seconds=notes.seconds,
                images=prepared.images,
                test=prepared.test,
                classes=prepared.teacher.classes,
                class_names=prepared.class_names,
                features=prepared.features,
                manifest=folder.manifest,
                paid_twice=queries_paid_twice(*answer_folders(folder.path)),
                network_warnings=prepared.network_warnings,
            )
            write_distill_report(folder.path, finished, prepared.price_per_1000)
            store.keep_only(_KEPT_NETWORKS)
        return finished

    def _train(
        self, answers: Answers, labels: Labels | None, notes: DistillNotes, store: NetworkStore
    ) -> TrainedStudent:
        prepared = self.prepared
        steps = training_steps(prepared, answers, count_trained_on(answers, labels), notes)
        if labels is not None:
            return self._train_on_distances(answers, labels, steps, notes, store)
        trainer = StudentTrainer(
            prepared.student.make,
            prepared.student.identity,
            prepared.teacher.classes,
            _PSEUDO_SAMPLE_BALANCE if prepared.images is None else 0.0,
            prepared.settings,
            steps,
            store,
            notes,
            self._callbacks,
        )
        rate = trainer.choose_learning_rate(answers)
        prefer_proxies = prepared.images is not None and trainer.prefers_proxies(
            answers.training, prepared.proxies
        )
        proxies = trainer.choose_proxies(
            answers, prepared.proxies, rate, prefer_proxies=prefer_proxies
        )
        network = trainer.train_student(answers, proxies, rate)
        taught_by = "decisions alone"
        if proxies:
            taught_by = f"decisions and {counted(len(proxies), 'proxy')}"
        why = why_taught_by(
            prepared.proxies.count,
            len(proxies),
            steps,
            len(answers.held_out),
            prepared.noun,
            pseudo_samples=prepared.images is None,
        )
        return TrainedStudent(network, steps, taught_by, why, trainer.choices, proxies)

    def _train_on_distances(
        self,
        answers: Answers,
        labels: Labels,
        steps: int,
        notes: DistillNotes,
        store: NetworkStore,
    ) -> TrainedStudent:
        prepared = self.prepared
        student = DistanceStudent(
            prepared.student.make,
            prepared.student.identity,
            prepared.training_images(),
            labels,
            store,
            notes,
        )
        patience = prepared.settings.patience
        network = student.train(
            prepared.plan.strategy,
            prepared.settings.trained_for(steps, prepared.settings.learning_rates[0], 0),
            [*validation_callbacks(answers, patience), *self._callbacks],
            patience,
        )
        measured = str(prepared.plan.measure).upper()
        taught_by = f"decisions and soft labels from {measured} distances"
        why = f"The student learned from {taught_by}, because its strategy measures these."
        return TrainedStudent(network, steps, taught_by, why)

    def _save_student(self, path: Path, network: nn.Module) -> None:
        if not holds_run(path):
            raise InputNotFoundError(
                f"{self._shown}: the run folder and its answers were removed during the run; "
                "start another run"
            )
        prepared = self.prepared
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
            shown = self._shown / exported.name
            _LOG.warning("%s: holds an earlier student; remove it and export the new one", shown)

    def _finish_folder(self, folder: RunFolder, asked: Asked, seconds: float) -> None:
        """Marks the run as finished and empties the log of chosen images.

        Args:
            folder: The run folder.
            asked: What the teacher answered.
            seconds: The seconds of the run in all processes. A finished run that is resumed may
                train its networks again, so it takes longer.
        """
        if folder.verify_finished():
            folder.update_totals({"seconds": seconds})
            return
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
