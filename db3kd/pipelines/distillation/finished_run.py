"""The result of a distillation run: the student, how it was trained, and what is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.answers.answers import Answers
from db3kd.arguments.images import are_equal
from db3kd.labels.labels import Labels
from db3kd.pipelines.distill_notes import TimedPart
from db3kd.pipelines.distillation.prepared import PreparedDistillation
from db3kd.pipelines.student_training.student_trainer import Choice
from db3kd.pipelines.student_warnings import (
    FEW_HELD_OUT,
    LONGER_RUN,
    absent_classes_warning,
    few_held_out,
    short_training_warning,
    skewed_answers_warning,
    student_warnings,
    time_limit_warning,
)
from db3kd.planning.held_out import LEAST_HELD_OUT, few_answers_warning
from db3kd.querying.consistency import queries_of_checks
from db3kd.report.measurement import most_frequent
from db3kd.training.constant_answer import constant_answer_warning
from db3kd.wording import InputNoun


@dataclass(frozen=True, eq=False)
class TrainedStudent:
    """A trained student, and how it was trained.

    Attributes:
        network: The student, in eval mode.
        steps: Its training steps.
        taught_by: Who taught it, such as "decisions and 2 proxies".
        why: A sentence on why.
        choices: What was chosen by validation agreement.
        proxies: The proxies that labelled images for it; none if it learned from decisions alone or
            from soft labels of distances.
        left_out: A sentence for each proxy that has learned nothing, and so did not.
    """

    network: nn.Module
    steps: int
    taught_by: str
    why: str
    choices: Sequence[Choice] = ()
    proxies: Sequence[nn.Module] = ()
    left_out: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """The result of a distillation run, of which its report is written.

    Attributes:
        prepared: The checked arguments of the distillation.
        trained: The student, and how it was trained.
        folder: The run folder, as the report names it.
        answers: All answers, those for held-out images included.
        labels: The labels of a strategy that measures distances; otherwise None.
        predicted: [n] int64, the student's classes of the held-out images, in their order.
        correct: Number of test images that the student classifies correctly, and of all test
            images; None without them.
        curve: Numbers of queries, and the agreement of proxies trained on their answers.
        seconds: Time by part of the run.
        manifest: The manifest of the run.
        paid_twice: At most how many queries were paid twice, because an answer was lost.
    """

    prepared: PreparedDistillation
    trained: TrainedStudent
    folder: Path
    answers: Answers
    labels: Labels | None
    predicted: Tensor
    correct: tuple[int, int] | None
    curve: Sequence[tuple[int, float]]
    seconds: Mapping[TimedPart, float]
    manifest: Mapping[str, Any]
    paid_twice: int

    @property
    def noun(self) -> InputNoun:
        """What messages call an image."""
        return self.prepared.noun

    @property
    def label_queries(self) -> int:
        """Queries for distances."""
        return count_label_queries(self.labels)

    @property
    def queries(self) -> int:
        """The queries of the plan, without those of checks."""
        return len(self.answers) + self.label_queries

    @property
    def check_queries(self) -> int:
        """Queries that repeated known answers."""
        return queries_of_checks(self.manifest)

    @cached_property
    def warnings(self) -> list[str]:
        """What makes the student or its agreement less useful than it seems, if anything does."""
        prepared, noun = self.prepared, self.noun
        names, images = prepared.class_names, prepared.images
        classes, limit = prepared.teacher.classes, prepared.settings.time_limit
        decisions = None if self.labels is None else self.decisions
        found = student_warnings(
            self.answers,
            self.predicted,
            names,
            noun,
            decisions,
            at_random=self._drawn_at_random,
            pseudo_samples=images is None,
        )
        if not found and self.held_out < LEAST_HELD_OUT:
            useless = self._constant_answer_warning()
            found += [] if useless is None else [useless]
        absent = absent_classes_warning(
            self.decisions, classes, names, noun, pseudo_samples=images is None
        )
        if absent is not None and not are_equal(self.decisions):
            found.append(absent)
        if images is not None:
            skewed = skewed_answers_warning(self.answers, names, noun)
            answers = count_trained_on(self.answers, self.labels)
            few = few_answers_warning(len(images), answers, classes, prepared.plan.strategy, noun)
            found += [each for each in (skewed, few) if each is not None]
        if self.held_out < FEW_HELD_OUT:
            tested, without = self.correct is not None, images is None
            found.append(few_held_out(self.held_out, tested, noun, pseudo_samples=without))
        cut = None
        if limit is not None:
            cut = time_limit_warning(limit, self.trained.steps, self.full_steps, LONGER_RUN)
        cut = cut or short_training_warning(self.trained.steps, self.default_steps)
        # Too short a training explains the other findings, so it comes first.
        first = [] if cut is None else [cut]
        return [*first, *found, *self.trained.left_out, *prepared.network_warnings]

    @property
    def decisions(self) -> Tensor:
        """[m] int64, the teacher's classes of all images and augmented images that were queried.

        Strategies that measure distances keep the classes of the training images in the labels.
        """
        if self.labels is None:
            return self.answers.decisions
        measured = self.labels.decision
        return torch.cat([measured[measured >= 0], self.answers.decisions])

    @property
    def _drawn_at_random(self) -> Tensor | None:
        """[m] int64, the classes of the queried images that no proxy chose; None if they are all.

        These are the held-out images, and those of the first round.
        """
        if self.labels is not None or not self.curve:
            return None
        first = self.answers.training.select(torch.arange(self.prepared.plan.rounds[0]))
        return torch.cat([each.clean.decisions for each in (self.answers.held_out, first)])

    def _constant_answer_warning(self) -> str | None:
        """Returns a warning if the student has learned nothing about its training images."""
        network, names = self.trained.network, self.prepared.class_names
        if self.labels is not None:
            images, decisions = self.prepared.training_images(), self.labels.decision
            return constant_answer_warning(network, images, decisions, class_names=names)
        known = self.answers.training.clean
        return constant_answer_warning(
            network, known.as_source(), known.decisions, class_names=names
        )

    @property
    def full_steps(self) -> int:
        """Training steps of the student without a time limit."""
        return self.prepared.full_steps(count_trained_on(self.answers, self.labels))

    @property
    def default_steps(self) -> int:
        """Training steps of the student by default, with the answers of this run."""
        return self.prepared.default_steps(count_trained_on(self.answers, self.labels))

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

    @property
    def constant_answer(self) -> tuple[int, int]:
        """The teacher's most frequent class of the held-out images, and their number."""
        return most_frequent(self.answers.held_out.clean.decisions)


def count_trained_on(answers: Answers, labels: Labels | None) -> int:
    """Returns the number of answers, or else of labels, that a student is trained on.

    Args:
        answers: All answers, those for held-out images included.
        labels: The labels of a strategy that measures distances; otherwise None.
    """
    return len(answers.training) if labels is None else len(labels)


def count_label_queries(labels: Labels | None) -> int:
    """Returns the number of queries for distances."""
    return 0 if labels is None else int(labels.queries.sum())
