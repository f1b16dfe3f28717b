"""What a distillation and a comparison have in common before their first query."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from db3kd.data.image_set import ImageSet
from db3kd.models.copying import copy_network
from db3kd.models.networks import build_model
from db3kd.models.random_state import kept_random_state
from db3kd.pipelines.distill_settings import DistillSettings, checked_proxy
from db3kd.pipelines.query_rounds.rounds import Proxies
from db3kd.pipelines.student_network import Student, StudentLike
from db3kd.pipelines.student_warnings import TRIED_INPUTS, probabilities_warning
from db3kd.planning import BudgetPlan, ComparisonPlan
from db3kd.querying.consistency import ConsistencyCheck, warn_if_unchecked
from db3kd.storage.existing_runs import holds_run
from db3kd.storage.manifest import make_manifest
from db3kd.storage.run_comparison import ExpectedRun, compare_with_runs
from db3kd.storage.run_queries import RunQueries
from db3kd.teachers import Teacher, describe
from db3kd.wording import InputNoun, input_noun

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreparedRun(ABC):
    """The checked arguments that `distill` and `compare` share.

    Attributes:
        plan: How the budget is divided.
        teacher: Takes images in [0, 1].
        images: The images, in the teacher's numbering of the classes; None without images.
        student: How students are made.
        proxies: How proxies are made.
        settings: How networks are trained.
        test: Images to measure students on, in the teacher's numbering of the classes, or None.
        price_per_1000: The price of 1,000 queries, or None.
        rare_classes: See `distill`.
        out: The run folder, as the caller names it; None for a temporary one.
        resume: Whether to continue the run in it.
        consistency_check: Checks the teacher before a resumed run continues.
        known_fingerprint: The fingerprint of the images, if they were read for it before.
    """

    plan: BudgetPlan | ComparisonPlan
    teacher: Teacher
    images: ImageSet | None
    student: Student
    proxies: Proxies
    settings: DistillSettings
    test: ImageSet | None
    price_per_1000: float | None
    rare_classes: bool
    out: Path | None
    resume: bool
    consistency_check: ConsistencyCheck
    known_fingerprint: str | None = None

    @property
    def folder(self) -> Path:
        """The run folder; only of a run that is not in a temporary one."""
        assert self.out is not None  # the caller has passed it
        return self.out

    @cached_property
    def data_fingerprint(self) -> str | None:
        """The fingerprint of the images, for which all of them are read at most once."""
        return None if self.images is None else self.known_fingerprint or self.images.fingerprint()

    @cached_property
    def network_warnings(self) -> tuple[str, ...]:
        """What makes the student's network learn worse than it could, found on a few inputs."""
        images = self.test if self.images is None else self.images
        with kept_random_state(seed=0):
            if images is None:
                batch = torch.rand(TRIED_INPUTS, *self.teacher.image_shape, dtype=torch.float32)
            else:
                batch = images.read(range(min(TRIED_INPUTS, len(images))))
            found = probabilities_warning(copy_network(self.student.make(), "student"), batch)
        return () if found is None else (found,)

    @property
    def noun(self) -> InputNoun:
        """What messages call an image."""
        return input_noun(self.teacher.image_shape)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth changing before the first query."""
        return (*self.plan.warnings, *self.network_warnings)

    @abstractmethod
    def expected_runs(self) -> Iterator[ExpectedRun]:
        """Yields the runs that a resumed one may find in its folder."""

    @abstractmethod
    def stored_queries(self) -> RunQueries:
        """Counts the queries of the run in the folder, without comparing it with this one."""

    @abstractmethod
    def known_queries(self) -> int:
        """Returns how many answered queries of the run in the folder can be repeated as checks."""

    def count_queries(self) -> RunQueries:
        """Counts the queries of the run that is resumed; none without a run.

        No query is sent, and nothing is written.

        Raises:
            ValueError: If the folder holds another run, or if it is damaged.
        """
        if not self.resume or self.out is None or not holds_run(self.out):
            return RunQueries()
        any_teacher = self.consistency_check.accept_changed_teacher
        compare_with_runs(self.expected_runs(), any_teacher=any_teacher)
        return self.stored_queries()

    def count_checks(self, so_far: RunQueries) -> int:
        """Returns how many queries of the resumed run repeat known answers.

        Args:
            so_far: From `count_queries`.
        """
        requested = self.consistency_check.queries
        if not requested or not so_far.left(self.plan.queries):
            return 0
        return min(requested, self.known_queries())

    def log_warnings(self) -> None:
        """Logs what to know before the first query, as the command line prints it.

        Raises:
            ValueError: If the teacher shall be checked, and the folder holds another run.
        """
        if self.out is not None and self.consistency_check.queries:
            so_far = self.count_queries()
            checks = self.count_checks(so_far)
            warn_if_unchecked(self.consistency_check.queries, checks, so_far.answered)
        for warning in self.warnings:
            _LOG.warning("%s", warning)

    def manifest_with(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the manifest of the run.

        Args:
            entries: What identifies it besides the teacher, the images and the seed.
        """
        return make_manifest(
            {
                "source": None if self.images is None else {"data": self.images.name},
                "teacher": describe(self.teacher),
                **entries,
            },
            seed=self.settings.training.seed,
            teacher_fingerprint=self.teacher.fingerprint(),
            classes=self.teacher.classes,
            data_fingerprint=self.data_fingerprint,
        )


def make_networks(
    student: StudentLike | None,
    teacher: Teacher,
    settings: DistillSettings,
    batch_size: int,
    *,
    uses_proxies: bool = True,
) -> tuple[Student, Proxies]:
    """Returns how the student and its proxies are made, after checking that both can be trained.

    Args:
        student: As for `distill`.
        teacher: The teacher, for the shape of its images and its classes.
        settings: How networks are trained, and what proxies they have.
        batch_size: Number of images in a training step of the student.
        uses_proxies: Whether the run trains proxies; their number is 0 if not.

    Raises:
        TypeError: See `Student.of`.
        ValueError: See `Student.of` and `checked_proxy`.
    """
    shape, classes = tuple(teacher.image_shape), teacher.classes
    training = replace(settings.training, batch_size=batch_size)
    made = Student.of(student, shape, classes, training)
    proxy = checked_proxy(settings, made.name, shape, classes)
    make_proxy = partial(build_model, proxy, shape, classes)
    return made, Proxies(make_proxy, proxy, settings.proxies if uses_proxies else 0)
