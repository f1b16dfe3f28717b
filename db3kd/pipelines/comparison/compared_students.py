"""The students of a comparison: each is trained and measured once, and kept."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from db3kd.models.weights import STUDENT_FILE, read_saved_model
from db3kd.pipelines.comparison.folder import ComparisonFolder, student_folder
from db3kd.pipelines.comparison.prepared import PreparedComparison
from db3kd.pipelines.distillation.distill import DistillResult, run_distillation
from db3kd.pipelines.distillation.prepared import stored_queries
from db3kd.planning import Strategy
from db3kd.progress import ProgressListener
from db3kd.report import ComparedStudent, ComparisonRow
from db3kd.storage.existing_runs import holds_run
from db3kd.training.callbacks import TrainingCallback, check_callbacks
from db3kd.training.evaluation import predict, share_equal

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ComparedStudents:
    """Trains each student of a comparison once.

    Attributes:
        folder: Keeps what is finished.
        shown: The path of the folder, as reports name it.
        prepared: The checked arguments of the comparison.
        steps: The training steps of every student.
        decisions: [n] int64, the teacher's classes of the test images; None if not queried.
        progress: See `compare`.
        callbacks: See `compare`.
        on_student: See `compare`.
    """

    folder: ComparisonFolder
    shown: Path
    prepared: PreparedComparison
    steps: int
    decisions: Tensor | None
    progress: ProgressListener | bool
    callbacks: Callable[[str, int], Sequence[TrainingCallback]] | None
    on_student: Callable[[str, ComparedStudent], None] | None

    def row(self, strategy: Strategy) -> ComparisonRow:
        """Returns the results of a student for each seed, and why they did not spend the budget."""
        found = tuple(self.get(strategy, seed) for seed in self.prepared.used_seeds)
        plan = self.prepared.plan.plans[strategy]
        unspent = plan.why_unused
        if unspent is None and any(each.queries < plan.budget for each in found):
            unspent = "its searches needed no more queries"
        return ComparisonRow(strategy, found, unspent=unspent)

    def get(self, strategy: Strategy, seed: int) -> ComparedStudent:
        """Returns the results of a student, after training it if necessary."""
        student = self.folder.finished_student(strategy, seed, self._tested)
        if student is None or self._is_made_again(strategy, seed):
            student = self._measure(seed, *self._timed_run(strategy, seed))
            self.folder.keep_student(strategy, student, self._tested)
        if self.on_student is not None:
            self.on_student(strategy, student)
        return student

    @cached_property
    def _tested(self) -> str | None:
        """The fingerprint of test images that are not queried; None without any."""
        test = self.prepared.test
        return None if test is None or self.decisions is not None else test.fingerprint()

    def _is_made_again(self, strategy: Strategy, seed: int) -> bool:
        """Returns whether the file of a finished student is lost, but its answers are not.

        Without the answers, its figures are all that is left, and making it again would send all
        its queries again. A warning then says what is missing.

        Raises:
            ValueError: If the stored answers cannot be read.
        """
        out = student_folder(self.folder.path, strategy, seed)
        problem = _problem_with(out / STUDENT_FILE)
        if problem is None:
            return False
        file = student_folder(self.shown, strategy, seed) / STUDENT_FILE
        if holds_run(out):
            distillation = self.prepared.distillation(strategy, seed, self.steps)
            if stored_queries(out, distillation.plan).finished:
                _LOG.warning("%s: %s; it is made again from its stored answers", file, problem)
                return True
        _LOG.warning(
            "%s: %s, and not all of its answers are stored, so only its figures are left; to make "
            "it again, which sends its queries again, start a comparison in another folder",
            file,
            problem,
        )
        return False

    def _timed_run(self, strategy: Strategy, seed: int) -> tuple[DistillResult, float]:
        """Returns the result of a run, and its seconds in all processes that worked on it."""
        callbacks = () if self.callbacks is None else self.callbacks(strategy, seed)
        check_callbacks(callbacks)
        with self.folder.timed_student(strategy, seed):
            result = run_distillation(
                self.prepared.distillation(strategy, seed, self.steps),
                progress=self.progress,
                callbacks=callbacks,
                shown=student_folder(self.shown, strategy, seed),
            )
        return result, self.folder.student_seconds(strategy, seed)

    def _measure(self, seed: int, result: DistillResult, seconds: float) -> ComparedStudent:
        accuracy = agreement = matches = None
        test = self.prepared.test
        if test is not None:
            predicted = predict(result.student, test)
            if test.labels is not None:
                accuracy = share_equal(predicted, test.labels)
                matches = predicted == test.labels
            if self.decisions is not None:
                agreement = share_equal(predicted, self.decisions)
                matches = predicted == self.decisions
        return ComparedStudent(
            seed=seed,
            queries=result.queries,
            held_out=(result.matches, result.held_out),
            accuracy=accuracy,
            test_agreement=agreement,
            seconds=seconds,
            test_matches=None if matches is None else matches.numpy(),
        )


def _problem_with(file: Path) -> str | None:
    """Returns what is wrong with the weights file of a student; None if it can be read."""
    if not file.is_file():
        return "expected the student, got no such file"
    try:
        read_saved_model(file)
    except (OSError, ValueError, SafetensorError) as error:
        return f"expected the student, got a file that cannot be read ({error})"
    return None
