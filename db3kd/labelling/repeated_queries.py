"""Queries that repeat known answers of a run: their journals, their count, and what they showed.

A check has a journal of its own. When it has ended, the manifest records it and its journal is
removed. If the process is killed before that, the answers of the check are recorded as lost and the
check is repeated, so the manifest counts each answer that the teacher gave.
"""

import torch
from torch import Tensor

from db3kd.labelling.check_results import CONSISTENCY, CheckRecord, checks_of
from db3kd.querying.driver import decide_all
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.run_journals import CHECKS
from db3kd.teachers.base import Teacher, TeacherChangedError, describe


def ask_again(folder: RunFolder, teacher: Teacher, images: Tensor, part: str = "first") -> Tensor:
    """Asks a teacher about images again, with a separate journal.

    Args:
        folder: The folder of the run.
        teacher: The teacher.
        images: `[n, *image_shape]`, the images.
        part: The name of the journal, for the queries before the next record in the manifest.

    Returns:
        `[n] int64`, their classes.
    """
    record_lost(folder, part)
    with folder.journal(_journal(folder, part), teacher.classes) as journal:
        return decide_all(
            teacher,
            images.__getitem__,
            torch.arange(len(images)),
            len(images),
            journal=journal,
        )


def record_lost(folder: RunFolder, part: str = "first") -> None:
    """Counts the answers of a check that was killed.

    Args:
        folder: The folder of the run.
        part: See `ask_again`.
    """
    file = folder.journals.file(_journal(folder, part))
    lost = sum(len(call.answers) for call in folder.journals.read(file).calls)
    if lost:
        record_check(folder, CheckRecord(when="lost", asked=lost, changed=0, flagged=False))
    file.unlink(missing_ok=True)


def record_check(folder: RunFolder, check: CheckRecord) -> None:
    """Writes what a check found into the manifest, and removes its journals."""
    folder.note(CONSISTENCY, check.to_entry())
    for file in folder.path.glob(f"{CHECKS}*.journal"):
        file.unlink()


def changed_answers_error(
    folder: RunFolder, teacher: Teacher, changed: int, asked: int
) -> TeacherChangedError:
    """Returns the error that refuses to resume a run whose teacher's answers have changed.

    Args:
        folder: The folder of the run.
        teacher: The teacher.
        changed: How many of its answers differ.
        asked: How many were repeated.
    """
    return TeacherChangedError(
        f"teacher {describe(teacher)} changed {changed} of {asked} answers since the "
        f"run in {folder.path} was stopped, so it was replaced or is noisy. Start a run "
        "in another folder, or keep the old answers with accept_changed_teacher=True"
    )


def _journal(folder: RunFolder, part: str) -> str:
    return f"{CHECKS.removeprefix('_')}{len(checks_of(folder.manifest))}-{part}"
