"""The folder of a comparison: decisions for test images, and the students that are finished."""

import dataclasses
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from db3kd.data.image_set import ImageSet
from db3kd.errors import InputError
from db3kd.pipelines.run_notes import RunNotes, notes_of
from db3kd.progress import ProgressListener
from db3kd.progress.answers import show_answers
from db3kd.querying.driver import decide_all
from db3kd.report import ComparedStudent
from db3kd.storage.column_values import check_range, invalid_shard, read_column
from db3kd.storage.kinds import DifferenceRules, Kind
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.run_journals import answers_in_stage
from db3kd.storage.shards import import_pyarrow, read_shards
from db3kd.teachers import Teacher
from db3kd.wording import counted, input_noun, plural

TEST_DECISIONS = Kind("test-decisions", 2, differences=DifferenceRules(budget="settings.budget"))
"""The kind of run folder that a comparison writes. Its column is `decision`.

Each student has a run of its own in a subfolder.
"""

STEPS = "steps"
"""The note of the training steps of every student."""


def student_folder(path: Path, strategy: str, seed: int) -> Path:
    """Returns the run folder of a student, in the folder of a comparison."""
    return path / _student(strategy, seed)


def stored_steps(path: Path) -> int | None:
    """Returns the steps of every student within the time limit; None if unknown yet."""
    return RunNotes(path).get(STEPS)


def stored_test_decisions(path: Path) -> Tensor:
    """Returns the teacher's classes of the first test images, [n] int64; none without any."""
    for _, table in read_shards(path, TEST_DECISIONS, missing_ok=True):
        return read_column(table, "decision", torch.int64)
    return torch.from_numpy(answers_in_stage(path, TEST_DECISIONS, 0))


class ComparisonFolder:
    """Keeps what a resumed comparison must not query or train again.

    Attributes:
        run: The folder, opened for writing.
        notes: Its notes.
    """

    def __init__(self, folder: RunFolder, notes: RunNotes) -> None:
        self.path = folder.path
        self.run = folder
        self.notes = notes

    def decide_test(
        self, teacher: Teacher, test: ImageSet | None, progress: ProgressListener | bool
    ) -> Tensor | None:
        """Returns the teacher's classes of the test images, [n] int64, and queries them only once.

        Raises:
            TeacherError: If the teacher fails. The journal keeps the answers so far.
            ValueError: If the stored decisions are damaged.
        """
        if test is None:
            return None
        if self.run.has_shard(0):
            return _read_decisions(self.run, teacher.classes, len(test))
        nouns = plural(input_noun(teacher.image_shape))
        with (
            show_answers(f"querying test {nouns}", len(test), nouns, progress) as on_answers,
            self.run.journal(0, teacher.classes) as journal,
        ):
            decisions = decide_all(
                teacher,
                test.read,
                torch.arange(len(test)),
                on_answers=on_answers,
                journal=journal,
            )
        arrow, _ = import_pyarrow()
        self.run.write_shard(0, arrow.table({"decision": decisions.numpy()}))
        return decisions

    def finished_student(
        self, strategy: str, seed: int, tested: str | None = None
    ) -> ComparedStudent | None:
        """Returns the results of a student; None if it is not finished.

        Args:
            strategy: Its strategy.
            seed: Its seed.
            tested: The fingerprint of test images that are not queried. A student
                whose accuracy was measured on others is measured again.
        """
        known = self.notes.get(_student(strategy, seed))
        if known is None or known["tested_on"] != tested:
            return None
        values, matches = known["values"], known["test_matches"]
        return ComparedStudent(
            **{**values, "held_out": tuple(values["held_out"])},
            test_matches=None if matches is None else _unpacked(matches),
        )

    def keep_student(
        self, strategy: str, student: ComparedStudent, tested: str | None = None
    ) -> None:
        """Writes the results of a finished student; `tested` as for `finished_student`."""
        values = dataclasses.asdict(student)
        matches = values.pop("test_matches")
        packed = None if matches is None else _packed(matches)
        kept = {"tested_on": tested, "test_matches": packed, "values": values}
        self.notes.put(_student(strategy, student.seed), kept)

    def timed_student(self, strategy: str, seed: int) -> AbstractContextManager[None]:
        """Adds the seconds that a block takes to those of a student, even if it is interrupted."""
        return self.notes.timed(_seconds_of(strategy, seed))

    def student_seconds(self, strategy: str, seed: int) -> float:
        """Returns the seconds of a student, in all processes that worked on it."""
        return float(self.notes.get(_seconds_of(strategy, seed)) or 0.0)

    def finish(self, test_queries: int) -> None:
        """Marks the comparison as finished."""
        if not self.run.verify_finished():
            self.run.finish({"samples": test_queries, "queries": test_queries})


def _student(strategy: str, seed: int) -> str:
    return f"{strategy}-{seed}"


def _seconds_of(strategy: str, seed: int) -> str:
    return f"{_student(strategy, seed)} seconds"


def _packed(matches: NDArray[np.bool_]) -> dict[str, Any]:
    """Returns [n] bool as plain values, with eight of them in a byte."""
    return {"images": len(matches), "bits": b64encode(np.packbits(matches).tobytes()).decode()}


def _unpacked(packed: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Returns the [n] bool of `_packed`."""
    packed_bits = np.frombuffer(b64decode(packed["bits"]), np.uint8)
    return np.unpackbits(packed_bits, count=packed["images"]).astype(bool)


def _read_decisions(folder: RunFolder, classes: int, count: int) -> Tensor:
    (position, table), *_ = read_shards(folder.path, folder.kind)
    try:
        decisions = read_column(table, "decision", torch.int64)
        check_range("decision", decisions, 0, classes, "a class")
        if len(decisions) != count:
            raise InputError(f"expected {counted(count, 'row')}, got {len(decisions):,}")
    except (KeyError, ValueError, IndexError) as error:
        raise invalid_shard(folder.path, folder.kind, position, error) from error
    return decisions


@contextmanager
def open_comparison(
    path: Path, manifest: Mapping[str, Any], *, resume: bool
) -> Iterator[ComparisonFolder]:
    """Opens the folder of a comparison, and removes it on an error unless it holds paid answers."""
    with (
        RunFolder.open(path, TEST_DECISIONS, manifest, resume=resume) as folder,
        notes_of(folder, RunNotes) as notes,
    ):
        yield ComparisonFolder(folder, notes)
