"""A resumable distillation in its run folder: queries, trains, measures and reports."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from db3kd.answers.answers import NUMBERS, Answers, augmentable_images
from db3kd.data.image_set import ImageSet
from db3kd.errors import InputNotFoundError
from db3kd.labelling.labels import Labels
from db3kd.models.weights import STUDENT_FILE, save_model
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.distill_settings import LEAST_DEFAULT_STEPS
from db3kd.pipelines.distillation.finished_run import (
    FinishedRun,
    TrainedStudent,
    count_label_queries,
    count_trained_on,
)
from db3kd.pipelines.distillation.larger_budget import add_larger_budgets, decisions_to_take_over
from db3kd.pipelines.distillation.prepared import PreparedDistillation
from db3kd.pipelines.distillation.report import write_distill_report
from db3kd.pipelines.query_rounds.answer_run import ANSWERS, AnswerRun
from db3kd.pipelines.query_rounds.pseudo_sample_answers import pseudo_sample_answers
from db3kd.pipelines.query_rounds.rounds import ask_rounds
from db3kd.pipelines.run_layout import (
    LABELS_FOLDER,
    NETWORKS_FOLDER,
    SAMPLES_FOLDER,
    answer_folders,
)
from db3kd.pipelines.run_notes import notes_of
from db3kd.pipelines.student_training.distance_students import (
    DistanceStudent,
    decisions_before_distances,
    measure_distances,
)
from db3kd.pipelines.student_training.rules import why_taught_by
from db3kd.pipelines.student_training.student_trainer import StudentTrainer, validation_callbacks
from db3kd.pipelines.student_training.time_limit import steps_within
from db3kd.progress import Progress
from db3kd.progress.answers import count_answers_in
from db3kd.querying.consistency import ConsistencyCheck, queries_of_checks
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.existing_runs import holds_run, queries_paid_twice
from db3kd.storage.manifest import identity, is_finished
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers import describe
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.evaluation import predict
from db3kd.training.network_store import NetworkStore
from db3kd.wording import counted, plural

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
    """

    def __init__(
        self,
        prepared: PreparedDistillation,
        folder: Path,
        callbacks: Sequence[TrainingCallback] = (),
        consistency_check: ConsistencyCheck | None = None,
    ) -> None:
        self.prepared, self.folder = prepared, folder
        self._callbacks = callbacks
        self._consistency_check = consistency_check
        self._taken_over: Tensor | None = None

    def execute(self, *, resume: bool) -> FinishedRun:
        """Carries out the run, or the rest of it, and writes the student and the report.

        Args:
            resume: Whether to continue a run in the folder.
        """
        prepared = self.prepared
        with self._open(resume) as folder, notes_of(folder) as file:
            notes = DistillNotes(file)
            store = NetworkStore(
                self.folder / NETWORKS_FOLDER,
                {"run": identity(folder.manifest), "from": folder.manifest["started"]},
            )
            answers, labels = self._ask(folder, notes, store)
            with notes.timed("training"):
                trained = self._train(answers, labels, notes, store)
            predicted = predict(trained.network, answers.held_out.clean.as_source())
            correct = _count_correct(trained.network, prepared.test)
            self._save_student(trained.network)
            self._finish_folder(folder, answers, labels, sum(notes.seconds.values()))
            finished = FinishedRun(
                trained=trained,
                folder=self.folder,
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
                paid_twice=queries_paid_twice(*answer_folders(self.folder)),
                network_warnings=prepared.network_warnings,
            )
            write_distill_report(self.folder, finished, prepared.price_per_1000)
            store.keep_only(_KEPT_NETWORKS)
        return finished

    def _ask(
        self, folder: RunFolder, notes: DistillNotes, store: NetworkStore
    ) -> tuple[Answers, Labels | None]:
        prepared = self.prepared
        if prepared.images is None:
            with notes.timed("asking"):
                samples = pseudo_sample_answers(
                    prepared.teacher,
                    prepared.plan,
                    prepared.settings.training,
                    self.folder / SAMPLES_FOLDER,
                )
                return samples, None
        rare_classes = notes.rare_classes(prepared.rare_classes)
        seed, plan = prepared.settings.training.seed, prepared.plan
        order = prepared.order()
        project = None if prepared.features is None else prepared.features.project
        augmented = augmentable_images(prepared.images, order, plan.held_out, seed, project)
        asked = plan.held_out + plan.held_out_augmented + sum(plan.rounds)
        run = AnswerRun(folder, prepared.teacher, augmented, order)
        run.consistency_check = self._consistency_check
        if (decisions := self._taken_over) is not None:
            run.take_over(0, plan.held_out, torch.arange(len(decisions)) * NUMBERS, decisions)
        title = "querying the teacher"
        if plan.label_queries:  # a display of its own follows
            title = f"querying held-out {plural(prepared.noun)}"
        with Progress(
            asked,
            asked,
            title=title,
            unit=plural(prepared.noun),
            samples_before=run.stored,
            queries_before=run.stored,
        ) as progress:
            run.on_answers = count_answers_in(progress)
            run.while_choosing = progress.paused
            answers = ask_rounds(
                run,
                plan,
                prepared.proxies,
                prepared.settings,
                store,
                notes,
                lambda known: self._steps(run.answers, known, notes, choosing=True),
                rare_classes=rare_classes,
            )
        labels = None
        if plan.label_queries:
            if not is_finished(self.folder / LABELS_FOLDER):
                numbers, decisions = decisions_before_distances(
                    plan, prepared.teacher.classes, seed, self.folder / LABELS_FOLDER
                )
                run.check_known(numbers * NUMBERS, decisions)
            with notes.timed("asking"):
                labels = measure_distances(
                    prepared.teacher,
                    prepared.training_images(),
                    plan,
                    seed,
                    self.folder / LABELS_FOLDER,
                    rare_classes=rare_classes,
                )
        return answers, labels

    def _train(
        self, answers: Answers, labels: Labels | None, notes: DistillNotes, store: NetworkStore
    ) -> TrainedStudent:
        prepared = self.prepared
        steps = self._steps(answers, count_trained_on(answers, labels), notes)
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
            prepared.proxies.count, len(proxies), steps, len(answers.held_out), prepared.noun
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

    def _save_student(self, network: nn.Module) -> None:
        if not holds_run(self.folder):
            raise InputNotFoundError(
                f"{self.folder}: the run folder and its answers were removed during the run; "
                "start another run"
            )
        prepared = self.prepared
        save_model(
            self.folder / STUDENT_FILE,
            network,
            model=prepared.student.name,
            image_shape=tuple(prepared.teacher.image_shape),
            classes=prepared.teacher.classes,
            class_names=prepared.class_names,
            features=prepared.features,
        )

    def _finish_folder(
        self, folder: RunFolder, answers: Answers, labels: Labels | None, seconds: float
    ) -> None:
        """Marks the run as finished and empties the log of chosen images.

        Args:
            folder: The run folder.
            answers: All answers.
            labels: The labels of a strategy that measures distances; otherwise None.
            seconds: The seconds of the run in all processes. A finished run that is resumed may
                train its networks again, so it takes longer.
        """
        if folder.verify_finished():
            folder.update_totals({"seconds": seconds})
            return
        folder.finish(
            {
                "samples": len(answers) if self.prepared.images is not None else 0,
                "queries": len(answers) + count_label_queries(labels),
                "check_queries": queries_of_checks(folder.manifest),
                "seconds": seconds,
            }
        )
        ChoiceLog(self.folder).empty()

    def _steps(
        self, answers: Answers, known: int, notes: DistillNotes, *, choosing: bool = False
    ) -> int:
        """Returns the steps of full training.

        A time limit is converted into steps twice: before the first proxies choose images and, as
        the speed of a machine changes, again when all images are chosen.
        """
        prepared = self.prepared
        steps, limit = prepared.settings.steps_for(known), prepared.settings.time_limit
        if limit is None:
            return steps
        spent = notes.seconds_of_choosing(len(prepared.plan.further))
        limited = notes.limited_steps(
            {
                "student": prepared.student.identity,
                "proxy": prepared.proxies.name,
                "proxies_teach_from": LEAST_DEFAULT_STEPS,
                "settings": prepared.settings,
                **({"queries": prepared.plan.queries} if prepared.plan.further else {}),
            },
            lambda: steps_within(
                limit,
                prepared.plan,
                prepared.settings,
                prepared.student.make,
                prepared.proxies,
                answers,
                None if choosing else spent,
            ),
            images_chosen=not choosing,
        )
        return min(steps, limited)

    def _open(self, resume: bool) -> RunFolder:
        prepared = self.prepared
        manifest = prepared.resumed_manifest(self.folder) if resume else prepared.manifest()
        folder = RunFolder.open(self.folder, ANSWERS, manifest, resume=resume)
        try:
            # Damaged labels are an error before the larger budget is recorded.
            self._taken_over = decisions_to_take_over(self.folder, prepared.begun, prepared.plan)
            add_larger_budgets(folder, prepared.plan, prepared.stored, prepared.choosing)
        except BaseException:
            folder.close()
            raise
        return folder


def _count_correct(network: nn.Module, test: ImageSet | None) -> tuple[int, int] | None:
    """Returns how many test images a student classifies correctly, and of how many."""
    if test is None or test.labels is None:
        return None
    return int((predict(network, test) == test.labels).sum()), len(test)
