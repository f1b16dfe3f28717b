"""A comparison before its first query: its checked arguments, and what is answered already."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from db3kd.arguments.plain import SEVERAL_RUNS_SEED_BITS, check_count, check_flag, check_seed
from db3kd.data.arguments import ImagesLike, TeacherLike
from db3kd.data.image_set import ImageSet
from db3kd.errors import ArgumentError
from db3kd.pipelines.comparison.folder import (
    TEST_DECISIONS,
    stored_steps,
    stored_test_decisions,
    student_folder,
)
from db3kd.pipelines.distill_settings import DistillSettings, with_fixed_steps
from db3kd.pipelines.distillation.prepared import (
    PreparedDistillation,
    prepare_distillation,
    stored_queries,
)
from db3kd.pipelines.inputs import (
    check_images,
    check_plain_arguments,
    check_rare_classes,
    check_repeated_answers,
    check_test,
    check_test_images,
    convert_images,
    convert_inputs,
)
from db3kd.pipelines.prepared_run import PreparedRun, make_networks
from db3kd.pipelines.query_rounds.answer_run import clean_answers
from db3kd.pipelines.run_layout import answer_folders
from db3kd.pipelines.run_notes import price_of_run
from db3kd.pipelines.student_network import StudentLike
from db3kd.planning import ComparisonPlan, Strategy, plan_comparison
from db3kd.querying.consistency import ConsistencyCheck
from db3kd.storage.changed_teachers import check_accepts_teacher
from db3kd.storage.existing_runs import holds_run
from db3kd.storage.manifest import is_finished
from db3kd.storage.run_comparison import ExpectedRun
from db3kd.storage.run_journals import count_answers
from db3kd.storage.run_queries import RunQueries
from db3kd.wording import input_noun


@dataclass(frozen=True, kw_only=True)
class PreparedComparison(PreparedRun):
    """The checked arguments of `compare`; made by `prepare_comparison`.

    Attributes:
        budget: Maximum number of queries of each student.
        student_like: What students are made of, for the run of each student.
        plan: How the budget of each student is divided.
        asked: The test images if they are queried, or None.
        used_seeds: The seeds of the students.
    """

    budget: int
    student_like: StudentLike | None
    plan: ComparisonPlan
    asked: ImageSet | None
    used_seeds: range

    def manifest(self) -> dict[str, Any]:
        """Returns what a resumed comparison must have in common with the stored one."""
        # Whatever the strategies, so that one without images may be added to the comparison.
        settings = self.settings.completed(pseudo_samples=False)
        without_images = self.settings.completed(pseudo_samples=True)
        return self.manifest_with(
            {
                "budget": self.budget,
                "student": self.student.identity,
                "distillation": asdict(settings),
                "without_images": {
                    "optimizer": without_images.training.optimizer,
                    "weight_decay": without_images.training.weight_decay,
                    "learning_rates": without_images.learning_rates,
                },
                "test": None if self.asked is None else self.asked.fingerprint(),
            }
        )

    def expected_runs(self) -> Iterator[ExpectedRun]:
        """Yields the runs of the comparison that a resumed one may find in its folder.

        The runs of students are described only if they exist. All images are read once, and once
        more for each student that has begun to measure distances.
        """
        yield ExpectedRun(self.folder, TEST_DECISIONS, self.manifest())
        limited = self.settings.time_limit is not None
        steps = stored_steps(self.folder) if limited else self.usual_steps
        if steps is None:
            return  # the students have not begun
        for strategy in self.plan.plans:
            for seed in self.used_seeds:
                if holds_run(student_folder(self.folder, strategy, seed)):
                    yield from self.distillation(strategy, seed, steps).expected_runs()

    @property
    def usual_steps(self) -> int:
        """The training steps of every student without a time limit."""
        return self.settings.steps_for(self.budget)

    @property
    def default_steps(self) -> int:
        """The training steps of every student if the settings state none."""
        return self.settings.default_steps(self.budget)

    def distillation(self, strategy: Strategy, seed: int, steps: int) -> PreparedDistillation:
        """Returns the distillation of a student, which continues the run in its folder."""
        settings = with_fixed_steps(self.settings, steps)
        labelled = self.test is not None and self.test.labels is not None
        return prepare_distillation(
            self.teacher,
            self.images,
            budget=self.budget,
            student=self.student_like,
            strategy=strategy,
            settings=replace(settings, training=replace(settings.training, seed=seed)),
            out=student_folder(self.folder, strategy, seed),
            resume=True,
            test=self.test if labelled else None,
            price_per_1000=self.price_per_1000,
            rare_classes=self.rare_classes,
            known_fingerprint=self.data_fingerprint,
        )

    def answer_folders(self) -> list[Path]:
        """Returns the folders in which the students of the comparison keep answers."""
        return [folder for student in self._students() for folder in answer_folders(student)]

    def known_answers(self) -> tuple[ImageSet, Tensor, Tensor]:
        """Returns images that the comparison in the folder queried.

        These are the images in the students' shards, without augmented ones, or the test images,
        whichever are more.

        Returns:
            The set of the images, [n] int64, their numbers in it, and [n] int64, their classes.
        """
        assert self.images is not None  # answers about pseudo samples are not repeated
        known = zip(*map(clean_answers, self._students()), strict=True)
        rows, decisions = map(torch.cat, known)
        tested = stored_test_decisions(self.folder)
        if self.asked is None or len(rows) > len(tested):
            return self.images, rows, decisions
        return self.asked, torch.arange(len(tested)), tested

    def known_queries(self) -> int:
        """See `PreparedRun`."""
        return len(self.known_answers()[1])

    def _students(self) -> list[Path]:
        """Returns the folders of the students of the comparison, with or without a run."""
        return [
            student_folder(self.folder, strategy, seed)
            for strategy in self.plan.plans
            for seed in self.used_seeds
        ]

    def stored_queries(self) -> RunQueries:
        """See `PreparedRun`; those of strategies and seeds that are left out are not counted."""
        tested = count_answers(self.folder, TEST_DECISIONS)
        students = [
            stored_queries(student_folder(self.folder, strategy, seed), plan)
            for strategy, plan in self.plan.plans.items()
            for seed in self.used_seeds
        ]
        ended = is_finished(self.folder) and tested == self.plan.test_images
        return RunQueries(
            answered=tested + sum(student.answered for student in students),
            unused=sum(student.unused for student in students),
            finished=ended and all(student.finished for student in students),
        )


def prepare_comparison(
    teacher: TeacherLike,
    images: ImagesLike | None,
    *,
    budget: int,
    strategies: Sequence[Strategy],
    student: StudentLike | None,
    seeds: int,
    settings: DistillSettings | None,
    out: str | Path | None,
    resume: bool,
    test: ImagesLike | None,
    ask_about_test: bool,
    price_per_1000: float | None = None,
    rare_classes: bool = False,
    accept_changed_teacher: bool = False,
    consistency_checks: int = 0,
) -> PreparedComparison:
    """Checks and converts the arguments of `compare`, without a query.

    Raises:
        TypeError: See `compare`.
        ValueError: See `compare`.
    """
    check_accepts_teacher(accept_changed_teacher, resume)
    check_repeated_answers(consistency_checks, images, resume)
    settings = check_plain_arguments(settings, price_per_1000, out, resume)
    check_rare_classes(rare_classes, images)
    check_seed(settings.training.seed, "settings.training.seed", bits=SEVERAL_RUNS_SEED_BITS)
    check_flag(ask_about_test, "ask_about_test")
    if settings.patience is not None:
        raise ArgumentError(
            "settings.patience",
            f"expected None, so that all students train equally long, got {settings.patience}",
        )
    budget = check_count(budget, "budget")
    test_set = None if test is None else convert_images(test, "test", teacher)
    teacher, image_set = convert_inputs(teacher, images, test_set)
    plan = plan_comparison(
        budget,
        teacher.classes,
        None if image_set is None else len(image_set),
        strategies,
        seeds=check_count(seeds, "seeds"),
        test_images=len(test_set) if test_set is not None and ask_about_test else 0,
        held_out=settings.held_out,
        noun=input_noun(teacher.image_shape),
        proxies=settings.proxies > 0,
    )
    if image_set is not None:
        image_set = check_images(image_set, teacher)
    if test_set is not None:
        check = check_test_images if ask_about_test else check_test
        test_set = check(test_set, teacher)
    batch_size = settings.training.batch_size
    made, proxies = make_networks(
        student,
        teacher,
        settings,
        min(each.training_batch(batch_size) for each in plan.plans.values()),
    )
    first = settings.training.seed
    return PreparedComparison(
        teacher=teacher,
        images=image_set,
        budget=budget,
        student=made,
        proxies=proxies,
        student_like=student,
        settings=settings,
        plan=plan,
        test=test_set,
        asked=test_set if ask_about_test else None,
        used_seeds=range(first, first + plan.seeds),
        price_per_1000=price_of_run(price_per_1000, out, resume),
        rare_classes=rare_classes,
        out=None if out is None else Path(out),
        resume=resume,
        consistency_check=ConsistencyCheck(consistency_checks, accept_changed_teacher),
    )
