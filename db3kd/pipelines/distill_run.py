"""A resumable distillation in its run folder: asks, trains, measures and reports."""

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from db3kd.data.class_names import run_class_names
from db3kd.data.image_set import ImageSet
from db3kd.data.table_rows import features_of
from db3kd.distillation.answers import Answers, augmentable_images
from db3kd.distillation.evaluation import predict
from db3kd.distillation.network_store import NetworkStore
from db3kd.distillation.training_callbacks import TrainingCallback
from db3kd.labelling.labels import Labels
from db3kd.labelling.totals import answered_in_label_folder, totals_of_shards
from db3kd.models.networks import build_model
from db3kd.models.weights import STUDENT_FILE
from db3kd.pipelines.answer_run import ANSWERS, AnswerRun
from db3kd.pipelines.asking import Proxies, ask_rounds
from db3kd.pipelines.distance_students import DistanceStudent, label_settings, measure_distances
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.distill_report import write_distill_report
from db3kd.pipelines.distill_settings import LEAST_DEFAULT_STEPS, DistillSettings, checked_proxy
from db3kd.pipelines.finished_run import (
    FinishedRun,
    TrainedStudent,
    count_label_queries,
    count_trained_on,
)
from db3kd.pipelines.pseudo_sample_answers import pseudo_sample_answers, shuffled
from db3kd.pipelines.run_notes import notes_of
from db3kd.pipelines.student_network import Student
from db3kd.pipelines.teaching import Teaching, validation_callbacks
from db3kd.pipelines.training_time import steps_within
from db3kd.planning import BudgetPlan
from db3kd.progress import Progress, adding_up
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.manifest import CLASS_NAMES, identity, make_manifest
from db3kd.storage.run_comparison import compare_with_run
from db3kd.storage.run_folder import RunFolder, begun_with, holds_run
from db3kd.storage.run_journals import count_answers, journaled_answers
from db3kd.teachers import Teacher, describe
from db3kd.teachers.base import class_names_of

NETWORKS_FOLDER = "networks"
LABELS_FOLDER = "labels"
SAMPLES_FOLDER = "pseudo-samples"
"""What a run folder holds besides the answers."""

_PSEUDO_SAMPLE_BALANCE = 0.5
"""Random images favour some classes, so images of rare classes are trained on more often."""


class DistillRun:
    """Carries out a plan in a run folder.

    Args:
        teacher: Takes images in [0, 1].
        images: The images, in the teacher's numbering of the classes; None without images.
        plan: How the budget is divided.
        student: How the student is made.
        settings: How networks are trained.
        folder: The run folder.
        callbacks: Further callbacks of the student's training.
        rare_classes: See `distill`.

    Raises:
        ValueError: If the proxies' architecture does not fit, or if a teacher of tables is given no
            rows.
    """

    def __init__(
        self,
        teacher: Teacher,
        images: ImageSet | None,
        plan: BudgetPlan,
        student: Student,
        settings: DistillSettings,
        folder: Path,
        callbacks: Sequence[TrainingCallback] = (),
        *,
        rare_classes: bool = False,
    ) -> None:
        self.teacher, self.images, self.plan = teacher, images, plan
        self.student, self.settings, self.folder = student, settings, folder
        self._callbacks, self._rare_classes = callbacks, rare_classes
        shape, classes = tuple(teacher.image_shape), teacher.classes
        if images is None and len(shape) != 3:
            raise ValueError(
                f"images: expected rows of the table for teacher {describe(teacher)}, got none; "
                "pseudo samples are made for images only; draw rows as docs/tabular.md shows"
            )
        proxy = checked_proxy(settings, student.name, shape, classes)
        count = settings.proxies if plan.uses_proxies else 0
        self._proxies = Proxies(partial(build_model, proxy, shape, classes), proxy, count)
        self._features = features_of(teacher, images)
        self._class_names = (
            class_names_of(teacher) if images is None else run_class_names(teacher, images)
        )

    def execute(
        self, *, resume: bool, test: ImageSet | None, price_per_1000: float | None
    ) -> FinishedRun:
        """Carries out the run, or the rest of it, and writes the student and the report.

        Args:
            resume: Whether to continue a run in the folder.
            test: Labelled images, to measure the student's accuracy on.
            price_per_1000: The price of 1,000 queries, for the report.
        """
        with self._open(resume) as folder, notes_of(folder) as file:
            notes = DistillNotes(file)
            store = NetworkStore(
                self.folder / NETWORKS_FOLDER,
                {"run": identity(folder.manifest), "from": folder.manifest["started"]},
            )
            started = time.monotonic()
            answers, labels = self._ask(folder, notes, store)
            with notes.timed("training"):
                trained = self._train(answers, labels, notes, store)
            predicted = predict(trained.network, answers.held_out.clean.as_source())
            correct = _count_correct(trained.network, test)
            self._save_student(trained.network)
            self._finish_folder(folder, answers, labels, started)
            finished = FinishedRun(
                trained=trained,
                student=self.student.title,
                teacher=describe(self.teacher),
                data="pseudo samples" if self.images is None else self.images.name,
                plan=self.plan,
                settings=self.settings,
                answers=answers,
                labels=labels,
                predicted=predicted,
                correct=correct,
                curve=notes.curve,
                seconds=notes.seconds,
                class_names=self._class_names,
                features=self._features,
                manifest=folder.manifest,
            )
            write_distill_report(self.folder, finished, self.teacher.classes, price_per_1000)
            store.keep_only(_KEPT_NETWORKS)
        return finished

    def count_answered(self) -> int:
        """Checks that `execute` would resume the run in the folder, and counts answered queries.

        It writes nothing. Without a run in the folder, nothing is answered.

        Raises:
            ValueError: If the folder holds another run, or if it is damaged.
        """
        if not holds_run(self.folder):
            return 0
        compare_with_run(self.folder, ANSWERS, self._resumed_manifest())
        return answered_in_distill_run(self.folder)

    def _ask(
        self, folder: RunFolder, notes: DistillNotes, store: NetworkStore
    ) -> tuple[Answers, Labels | None]:
        if self.images is None:
            with notes.timed("asking"):
                samples = pseudo_sample_answers(
                    self.teacher,
                    self.plan.pseudo_samples,
                    self.settings.training,
                    self.folder / SAMPLES_FOLDER,
                )
                return samples, None
        if self._rare_classes:
            notes.remember_rare_classes()
        rare_classes = notes.rare_classes
        seed, plan = self.settings.training.seed, self.plan
        order = self._shuffled(len(self.images))
        project = None if self._features is None else self._features.project
        augmented = augmentable_images(self.images, order, plan.held_out, seed, project)
        asked = plan.held_out + plan.held_out_augmented + sum(plan.rounds)
        run = AnswerRun(folder, self.teacher, augmented, order)
        with Progress(
            asked,
            asked,
            title="asking the teacher",
            unit="images",
            samples_before=run.stored,
            queries_before=run.stored,
        ) as progress:
            run.on_answers = adding_up(lambda done: progress.update(samples=done, queries=done))
            run.while_choosing = progress.paused
            answers = ask_rounds(
                run,
                plan,
                self._proxies,
                self.settings,
                store,
                notes,
                lambda known: self._steps(run.answers, known, notes, choosing=True),
                rare_classes=rare_classes,
            )
        labels = None
        if plan.label_queries:
            with notes.timed("asking"):
                labels = measure_distances(
                    self.teacher,
                    self._training_images(),
                    plan,
                    seed,
                    self.folder / LABELS_FOLDER,
                    rare_classes=rare_classes,
                )
        return answers, labels

    def _train(
        self, answers: Answers, labels: Labels | None, notes: DistillNotes, store: NetworkStore
    ) -> TrainedStudent:
        steps = self._steps(answers, count_trained_on(answers, labels), notes)
        if labels is not None:
            return self._train_on_distances(answers, labels, steps, notes, store)
        teaching = Teaching(
            self.student.make,
            self.student.identity,
            self.teacher.classes,
            _PSEUDO_SAMPLE_BALANCE if self.images is None else 0.0,
            self.settings,
            steps,
            store,
            notes,
            self._callbacks,
        )
        rate = teaching.choose_learning_rate(answers)
        prefer_proxies = self.images is not None and teaching.prefers_proxies(answers.training)
        proxies = teaching.choose_proxies(
            answers, self._proxies, rate, prefer_proxies=prefer_proxies
        )
        network = teaching.train_student(answers, proxies, rate)
        taught_by = "decisions alone"
        if proxies:
            taught_by = (
                f"decisions and {len(proxies)} {'proxy' if len(proxies) == 1 else 'proxies'}"
            )
        return TrainedStudent(network, steps, taught_by, teaching.choices, proxies)

    def _train_on_distances(
        self,
        answers: Answers,
        labels: Labels,
        steps: int,
        notes: DistillNotes,
        store: NetworkStore,
    ) -> TrainedStudent:
        student = DistanceStudent(
            self.student.make,
            self.student.identity,
            self._training_images(),
            labels,
            store,
            notes,
        )
        patience = self.settings.patience
        network = student.train(
            self.plan.strategy,
            self.settings.trained_for(steps, self.settings.learning_rates[0], 0),
            [*validation_callbacks(answers, patience), *self._callbacks],
            patience,
        )
        measured = str(self.plan.measure).upper()
        return TrainedStudent(
            network, steps, f"decisions and soft labels from {measured} distances"
        )

    def _save_student(self, network: nn.Module) -> None:
        if not holds_run(self.folder):
            raise FileNotFoundError(
                f"{self.folder}: the run folder and its answers were removed during the run; "
                "start another run"
            )
        self.student.save(
            self.folder / STUDENT_FILE,
            network,
            tuple(self.teacher.image_shape),
            self.teacher.classes,
            self._class_names,
            self._features,
        )

    def _finish_folder(
        self, folder: RunFolder, answers: Answers, labels: Labels | None, started: float
    ) -> None:
        """Marks the run as finished, after which the log of choices is of no more use.

        Args:
            folder: The run folder.
            answers: All answers.
            labels: The labels of a strategy that measures distances; otherwise None.
            started: When this process began to work on the run, by `time.monotonic`.
        """
        if folder.finished:
            return
        folder.finish(
            {
                "samples": len(answers) if self.images is not None else 0,
                "queries": len(answers) + count_label_queries(labels),
                "seconds": time.monotonic() - started,
            }
        )
        ChoiceLog(self.folder).empty()

    def _shuffled(self, count: int) -> Tensor:
        """Returns the image of each sample, [count] int64; the last samples are held out."""
        return shuffled(count, self.settings.training.seed)

    def _training_images(self) -> ImageSet:
        assert self.images is not None  # distances are measured for images
        order = self._shuffled(len(self.images))
        return self.images.subset(order[: self.plan.training_images])

    def _steps(
        self, answers: Answers, known: int, notes: DistillNotes, *, choosing: bool = False
    ) -> int:
        """Returns the steps of full training.

        A time limit is converted into steps twice: before the first proxies choose images and, as
        the speed of a machine changes, again when all images are chosen.
        """
        steps = self.settings.steps_for(known)
        if self.settings.time_limit is None:
            return steps
        limit = self.settings.time_limit
        spent = None if choosing else notes.seconds["choosing"]
        limited = notes.limited_steps(
            {
                "student": self.student.identity,
                "proxy": self._proxies.name,
                "proxies_teach_from": LEAST_DEFAULT_STEPS,
                "settings": self.settings,
            },
            lambda: steps_within(
                limit,
                self.plan,
                self.settings,
                self.student.make,
                self._proxies,
                answers,
                spent,
            ),
            images_chosen=not choosing,
        )
        return min(steps, limited)

    def _manifest(self) -> dict[str, Any]:
        settings = self.settings
        entries: dict[str, Any] = {
            "source": None if self.images is None else {"data": self.images.name},
            "teacher": describe(self.teacher),
            "plan": dataclasses.asdict(self.plan),
        }
        if self._proxies.count and len(self.plan.rounds) > 1:
            # Proxies choose what is asked, so a resumed run must use the same proxies.
            entries["choosing"] = {
                "proxy": self._proxies.name,
                "proxies": self._proxies.count,
                "training": settings.training,
                "learning_rates": settings.learning_rates,
                "time_limit": settings.time_limit,
            }
        if self.plan.label_queries:
            entries["labelling"] = label_settings(self.plan, settings.training.seed)
        if self._class_names is not None:
            entries[CLASS_NAMES] = self._class_names
        return make_manifest(
            entries,
            seed=settings.training.seed,
            teacher_fingerprint=self.teacher.fingerprint(),
            classes=self.teacher.classes,
            data_fingerprint=None if self.images is None else self.images.fingerprint(),
        )

    def _may_choose_otherwise(self) -> bool:
        """Returns whether all images of the run in the folder are chosen.

        From then on, training settings may change, because no query depends on them any more.
        """
        log = ChoiceLog(self.folder)
        return all(log.holds(number) for number in range(1, len(self.plan.rounds)))

    def _resumed_manifest(self) -> dict[str, Any]:
        manifest = self._manifest()
        if holds_run(self.folder) and self._may_choose_otherwise():
            stored = begun_with(self.folder, ANSWERS.format)
            if "choosing" in stored:
                manifest["settings"]["choosing"] = stored["choosing"]
            else:
                manifest["settings"].pop("choosing", None)
        return manifest

    def _open(self, resume: bool) -> RunFolder:
        manifest = self._resumed_manifest() if resume else self._manifest()
        return RunFolder.open(self.folder, ANSWERS, manifest, resume=resume)


def _count_correct(network: nn.Module, test: ImageSet | None) -> tuple[int, int] | None:
    """Returns how many test images a student classifies correctly, and of how many."""
    if test is None or test.labels is None:
        return None
    return int((predict(network, test) == test.labels).sum()), len(test)


def answered_in_distill_run(folder: Path) -> int:
    """Returns the number of answers in the folder of a `DistillRun`; 0 without a run."""
    labels = folder / LABELS_FOLDER
    return (
        count_answers(folder, ANSWERS)
        + answered_in_label_folder(labels, totals_of_shards(labels))
        # Pseudo samples are not moved, and the journal of their starts is kept.
        + journaled_answers(folder / SAMPLES_FOLDER)
    )


def resumed_plan(folder: Path, plan: BudgetPlan) -> BudgetPlan:
    """Returns the plan that the run in a folder was begun with, if it is for the same budget.

    Plans may differ between versions of db3kd, and a run continues as it was begun.

    Args:
        folder: The folder, with or without a run.
        plan: The plan of this version.
    """
    stored = begun_with(folder, ANSWERS.format).get("plan")
    names = ("strategy", "budget", "images")
    if not isinstance(stored, dict) or any(stored.get(n) != getattr(plan, n) for n in names):
        return plan  # another run, which is refused when it is opened
    try:
        return BudgetPlan(**{**stored, "rounds": tuple(stored.get("rounds", ()))})
    except TypeError:
        return plan


_KEPT_NETWORKS = ("student", "proxy-*")
"""The networks that a finished run keeps; the others only chose what to ask and how to train."""
