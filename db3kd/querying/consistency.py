"""Consistency checks: a resumed run repeats known queries before it continues.

A fingerprint does not notice that a service, or a file behind a function, was replaced. The answers
of two teachers would be mixed, and nothing would show it.

The queries of a check are in addition to the budget. A check has a journal of its own. When it has
ended, the manifest counts its queries, and the journal is removed; if it was interrupted, the next
process does so. The journal is named by the number of checks that the manifest counts, so that a
kill between these two steps counts no query twice.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from db3kd.arguments.arrays import seeded_permutation
from db3kd.arguments.plain import check_count
from db3kd.errors import ArgumentError
from db3kd.querying.driver import decide_all
from db3kd.storage.manifest import CONSISTENCY
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.run_journals import CHECKS
from db3kd.teachers.base import Teacher, TeacherChangedError, describe
from db3kd.wording import counted

_LOG = logging.getLogger(__name__)


def check_consistency_checks(checks: int, resume: bool) -> None:
    """Checks the argument `consistency_checks`.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not an integer of at least 0, or above 0 although no run is resumed.
    """
    if check_count(checks, "consistency_checks", least=0) and not resume:
        raise ArgumentError(
            "consistency_checks",
            "needs resume=True; only the answers of a run that is resumed are repeated",
        )


NOTHING_TO_CHECK = "none, because no new query is left to send"
"""Why a resumed run checks nothing."""


def is_unchecked(requested: int, checks: int, answered: int) -> bool:
    """Returns whether no known answer of a run is repeated, although this was requested.

    Args:
        requested: The argument `consistency_checks`.
        checks: How many queries repeat known answers.
        answered: The number of answered queries; without any, there is nothing to repeat.
    """
    return requested > 0 and checks == 0 and answered > 0


def warn_if_unchecked(requested: int, checks: int, answered: int) -> None:
    """Logs a warning if `is_unchecked`."""
    if is_unchecked(requested, checks, answered):
        _LOG.warning("consistency_checks: %s", NOTHING_TO_CHECK)


@dataclass(frozen=True)
class ConsistencyCheck:
    """How the teacher of a resumed run is checked.

    Attributes:
        queries: Maximum number of known queries that are repeated.
        accept_changed_teacher: Whether the run continues even if answers have changed.
    """

    queries: int = 0
    accept_changed_teacher: bool = False

    def repeat(
        self,
        folder: RunFolder,
        teacher: Teacher,
        read: Callable[[Tensor], Tensor],
        rows: Tensor,
        decisions: Tensor,
    ) -> None:
        """Repeats known queries of a run, and counts those of an interrupted check.

        The images are drawn by the seed of the run. A run that was refused is therefore refused
        again, unless it gets its teacher back.

        Args:
            folder: The folder of the run, opened for writing.
            teacher: The teacher.
            read: Returns the images with the given numbers, as for `decide_all`.
            rows: [n] int64, the numbers of the images whose classes are known.
            decisions: [n] int64, these classes.

        Raises:
            TeacherChangedError: If a class has changed, and `accept_changed_teacher` is False.
            TeacherError: If the teacher fails.
        """
        _count_interrupted(folder)
        order = seeded_permutation(len(rows), folder.manifest["seed"])
        chosen = order[: self.queries].sort().values
        if not len(chosen):
            return
        stage = _stage(folder)
        with folder.journal(stage, teacher.classes) as journal:
            answers = decide_all(teacher, read, rows[chosen], journal=journal)
        changed = int((answers != decisions[chosen]).sum())
        folder.note(CONSISTENCY, {"asked": len(chosen), "changed": changed})
        folder.journals.file(stage).unlink(missing_ok=True)
        if not changed:
            return
        asked = counted(len(chosen), "answer")
        if not self.accept_changed_teacher:
            raise TeacherChangedError(
                f"teacher {describe(teacher)} changed {changed} of {asked} since the run in "
                f"{folder.path} was stopped, so it was replaced or is noisy. Start a run in "
                "another folder, or keep the old answers with accept_changed_teacher=True"
            )
        _LOG.warning(
            "%s: teacher %s changed %d of %s since the run was stopped; its earlier answers are "
            "kept",
            folder.path,
            describe(teacher),
            changed,
            asked,
        )


def queries_of_checks(manifest: Mapping[str, Any]) -> int:
    """Returns how many queries of a run repeated known ones, in addition to its other queries."""
    return sum(check["asked"] for check in manifest.get(CONSISTENCY, ()))


def describe_checks(manifest: Mapping[str, Any]) -> str:
    """Describes what the checks of a run found; empty if there were none."""
    checks = manifest.get(CONSISTENCY, ())
    found = [f"{each['changed']} of {each['asked']}" for each in checks if "changed" in each]
    interrupted = sum(each["asked"] for each in checks if "changed" not in each)
    texts = [f"answers that changed: {', '.join(found)}"] if found else []
    if interrupted:
        texts.append(f"{counted(interrupted, 'query')} in checks that were interrupted")
    return "; ".join(texts)


def _stage(folder: RunFolder) -> str:
    """Returns the name of the journal of the next check."""
    return f"{CHECKS.removeprefix('_')}{len(folder.manifest.get(CONSISTENCY, ()))}"


def _count_interrupted(folder: RunFolder) -> None:
    """Counts the queries of a check that was interrupted, and removes its journal."""
    found = folder.journals.read(folder.journals.file(_stage(folder)))
    if asked := found.in_flight + sum(len(call.answers) for call in found.calls):
        folder.note(CONSISTENCY, {"asked": asked})
    for file in folder.path.glob(f"{CHECKS}*.journal"):
        file.unlink()
