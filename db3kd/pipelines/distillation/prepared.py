"""A distillation before its first query: its checked arguments, and what is answered already."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from db3kd.arguments.arrays import seeded_permutation
from db3kd.data.arguments import ImagesLike, TeacherLike
from db3kd.data.class_names import run_class_names
from db3kd.data.image_set import ImageSet
from db3kd.data.table_rows import features_of
from db3kd.errors import ArgumentError
from db3kd.labelling.image_decisions import DECISIONS
from db3kd.labelling.runs.totals import answered_in_label_folder, totals_of_shards
from db3kd.labels.labels import LABELS
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.pipelines.distillation.larger_budget import (
    StoredBudgets,
    check_choosing,
    plans_of_run,
)
from db3kd.pipelines.inputs import (
    check_images,
    check_plain_arguments,
    check_rare_classes,
    check_repeated_answers,
    check_test,
    convert_inputs,
)
from db3kd.pipelines.prepared_run import PreparedRun, make_networks
from db3kd.pipelines.query_rounds.answer_run import ANSWERS
from db3kd.pipelines.query_rounds.pseudo_sample_answers import sample_settings
from db3kd.pipelines.run_layout import answer_folders
from db3kd.pipelines.run_notes import price_of_run
from db3kd.pipelines.student_network import StudentLike
from db3kd.pipelines.student_training.distance_students import expected_distances, label_settings
from db3kd.planning import BudgetPlan, Strategy, plan_budget
from db3kd.querying.consistency import ConsistencyCheck
from db3kd.storage.changed_teachers import check_accepts_teacher
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.existing_runs import begun_with, holds_run
from db3kd.storage.manifest import CLASS_NAMES, is_finished, read_manifest
from db3kd.storage.run_comparison import ExpectedRun
from db3kd.storage.run_journals import answers_in_stage, count_answers, journaled_answers
from db3kd.storage.run_queries import RunQueries
from db3kd.synthesis.sample_run import expected_samples
from db3kd.tables import Features
from db3kd.teachers import describe
from db3kd.teachers.base import class_names_of
from db3kd.wording import input_noun


@dataclass(frozen=True, kw_only=True)
class PreparedDistillation(PreparedRun):
    """The checked arguments of `distill`; made by `prepare_distillation`.

    Attributes:
        plan: How the budget is divided.
        begun: How the budget was divided with which the run was started; the plan itself, unless
            the run is continued with a larger budget.
        stored: The budgets of the run that is continued, when the plan was made.
        features: The features of a table, or None.
        class_names: Names of the classes, or None.
    """

    plan: BudgetPlan
    begun: BudgetPlan
    stored: StoredBudgets
    features: Features | None
    class_names: Sequence[str] | None

    @property
    def choosing(self) -> dict[str, Any] | None:
        """What proxies that choose images depend on; None if the run has no proxies.

        What they choose is queried, so a resumed run must use the same proxies.
        """
        if not self.proxies.count:
            return None
        return {
            "proxy": self.proxies.name,
            "proxies": self.proxies.count,
            "training": asdict(self.student_settings.training),
            "learning_rates": self.student_settings.learning_rates,
            "time_limit": self.settings.time_limit,
        }

    @property
    def student_settings(self) -> DistillSettings:
        """How the student and its proxies are trained: `settings` with all defaults."""
        return self.settings.completed(pseudo_samples=self.images is None)

    def full_steps(self, answers: int) -> int:
        """Returns the training steps of the student without a time limit.

        Args:
            answers: The number of answers, or of labels, to train on.
        """
        return self.settings.steps_for(answers, pseudo_samples=self.images is None)

    def default_steps(self, answers: int) -> int:
        """Returns the training steps of the student if the settings state none.

        Args:
            answers: The number of answers, or of labels, to train on.
        """
        return self.settings.default_steps(answers, pseudo_samples=self.images is None)

    @property
    def training(self) -> dict[str, Any]:
        """What the student depends on, besides what identifies the run."""
        return {
            "student": self.student.identity,
            "settings": self.settings,
            "queries": self.plan.queries,
        }

    def manifest(self) -> dict[str, Any]:
        """Returns what a resumed run must have in common with the stored one."""
        plan = asdict(self.begun)
        plan.pop("classes")  # an entry of every manifest
        plan.pop("further")  # an entry of its own
        plan.pop("noun")  # known from the teacher
        plan.pop("proxies")  # the entry "choosing" says it
        entries: dict[str, Any] = {"plan": plan}
        if len(self.begun.rounds) > 1 and self.choosing is not None:
            entries["choosing"] = self.choosing
        if self.begun.label_queries:
            entries["labelling"] = label_settings(self.begun, self.settings.training.seed)
        if self.class_names is not None:
            entries[CLASS_NAMES] = self.class_names
        return self.manifest_with(entries)

    def resumed_manifest(self) -> dict[str, Any]:
        """Returns the manifest with which the run in the folder, if there is one, may continue.

        Once proxies have chosen all images, no query depends on the training settings any more, so
        they may differ from the stored ones.

        Raises:
            ValueError: If proxies of other settings have begun to choose images.
        """
        manifest = self.manifest()
        first = len(self.begun.rounds)
        if holds_run(self.folder) and self._images_chosen(1, first):
            stored = begun_with(self.folder, ANSWERS.format)
            if "choosing" in stored:
                manifest["settings"]["choosing"] = stored["choosing"]
            else:
                manifest["settings"].pop("choosing", None)
        check_choosing(self.stored, self.folder, self.begun, self.choosing, self._images_chosen)
        return manifest

    def stored_queries(self) -> RunQueries:
        """See `PreparedRun`."""
        return stored_queries(self.folder, self.plan)

    def known_queries(self) -> int:
        """See `PreparedRun`."""
        _, labels, _ = answer_folders(self.folder)
        decided = answers_in_stage(labels, LABELS, DECISIONS)  # before distances are measured
        return count_answers(self.folder, ANSWERS) + len(decided)

    def expected_runs(self) -> Iterator[ExpectedRun]:
        """Yields the runs of the distillation that a resumed one may find in its folder.

        The runs in subfolders are described only if they exist, because images are read for that.
        """
        yield ExpectedRun(self.folder, ANSWERS, self.resumed_manifest())
        _, labels, samples = answer_folders(self.folder)
        training, plan = self.settings.training, self.plan
        if self.begun.label_queries and holds_run(labels):
            images = self.training_images()
            yield expected_distances(self.teacher, images, self.begun, training.seed, labels)
        if plan.pseudo_samples and holds_run(samples):
            settings = sample_settings(plan, training, samples)
            yield expected_samples(samples, self.teacher, settings)

    def order(self) -> Tensor:
        """Returns the image of each sample, [N] int64; the last samples are held out."""
        assert self.images is not None  # pseudo samples have their own order
        return seeded_permutation(len(self.images), self.settings.training.seed)

    def training_images(self) -> ImageSet:
        """Returns the images that are not held out, in the order of the samples."""
        assert self.images is not None  # distances are measured for images
        return self.images.subset(self.order()[: self.plan.training_images])

    def _images_chosen(self, first: int, stop: int) -> bool:
        """Returns whether proxies have chosen the images of some rounds."""
        log = ChoiceLog(self.folder)
        return all(log.holds(number) for number in range(first, stop))


def prepare_distillation(
    teacher: TeacherLike,
    images: ImagesLike | None,
    *,
    budget: int,
    student: StudentLike | None,
    strategy: Strategy,
    settings: DistillSettings | None,
    out: str | Path | None,
    resume: bool,
    test: ImagesLike | None = None,
    price_per_1000: float | None = None,
    rare_classes: bool = False,
    accept_changed_teacher: bool = False,
    consistency_checks: int = 0,
    grow: bool = False,
    known_fingerprint: str | None = None,
) -> PreparedDistillation:
    """Checks and converts the arguments of `distill`, without a query.

    The arguments are those of `distill`, and two more: `grow`, whether the run in `out` may be
    continued with a larger budget; and `known_fingerprint`, that of the images, if they were read
    for it before.

    Raises:
        TypeError: See `distill`.
        ValueError: See `distill`.
    """
    check_accepts_teacher(accept_changed_teacher, resume)
    check_repeated_answers(consistency_checks, images, resume)
    settings = check_plain_arguments(settings, price_per_1000, out, resume)
    check_rare_classes(rare_classes, images)
    teacher, image_set = convert_inputs(teacher, images, test)
    count = None if image_set is None else len(image_set)
    make_plan = partial(
        plan_budget,
        classes=teacher.classes,
        images=count,
        strategy=strategy,
        held_out=settings.held_out,
        noun=input_noun(teacher.image_shape),
    )
    folder = None if out is None else Path(out)
    stored = StoredBudgets({})
    if resume and folder is not None:
        stored = StoredBudgets.read(folder)
    begun, plan = plans_of_run(
        make_plan, budget, folder, stored, proxies=settings.proxies > 0, grow=grow
    )
    if plan.pseudo_samples:
        image_set = None
    if image_set is not None:
        image_set = check_images(image_set, teacher)
    test_set = None if test is None else check_test(test, teacher)
    if image_set is None and len(teacher.image_shape) != 3:
        raise ArgumentError(
            "images",
            f"expected rows of the table for teacher {describe(teacher)}, got none; "
            "pseudo samples are made for images only; draw rows as docs/tabular.md shows",
        )
    made, proxies = make_networks(
        student,
        teacher,
        settings.completed(pseudo_samples=image_set is None),
        plan.training_batch(settings.training.batch_size),
        uses_proxies=plan.uses_proxies,
    )
    return PreparedDistillation(
        teacher=teacher,
        images=image_set,
        plan=plan,
        begun=begun,
        stored=stored,
        student=made,
        proxies=proxies,
        settings=settings,
        test=test_set,
        price_per_1000=price_of_run(price_per_1000, out, resume),
        rare_classes=rare_classes,
        known_fingerprint=known_fingerprint,
        features=features_of(teacher, image_set),
        class_names=(
            class_names_of(teacher) if image_set is None else run_class_names(teacher, image_set)
        ),
        out=folder,
        resume=resume,
        consistency_check=ConsistencyCheck(consistency_checks, accept_changed_teacher),
    )


def stored_queries(folder: Path, plan: BudgetPlan) -> RunQueries:
    """Counts the queries of the distillation in a folder; none without a run.

    Args:
        folder: The run folder.
        plan: The plan with which the run continues.
    """
    _, labels, samples = answer_folders(folder)
    answered, unused = count_answers(folder, ANSWERS), 0
    totals = totals_of_shards(labels)
    labelled = answered_in_label_folder(labels, totals)
    if labelled:
        if plan.label_queries and is_finished(labels) and totals.samples == plan.training_images:
            unused = plan.label_queries - labelled
        # Beside labels, the run itself has answers for held-out images, and others only if a larger
        # budget has taken over the decisions of the labels.
        held_out = int(StoredBudgets.read(folder).plan["held_out"])
        taken_over = count_answers(folder, ANSWERS, first=held_out)
        answered += labelled - min(labelled, taken_over)
    else:
        # Pseudo samples are not moved, and the journal of their starts is kept.
        answered += journaled_answers(samples)
    grows = bool(plan.further) and answered < plan.queries
    # Shards may have been removed after the end of the run.
    ended = is_finished(folder) and answered >= int(read_manifest(folder)["totals"]["queries"])
    return RunQueries(answered, unused, finished=ended and not grows)
