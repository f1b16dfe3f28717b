"""Runs that continue with another teacher, because the caller says that their answers stay valid.

The fingerprint of a function changes with its code, even if no answer does, and a name of a class
that the teacher has not answered with may be corrected. A run keeps the fingerprint and the class
names that it was begun with, which its journals depend on, and lists the later ones.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from db3kd.arguments.plain import check_flag
from db3kd.errors import ArgumentError
from db3kd.storage.filesystem import FolderLock, wait_for_workers
from db3kd.storage.manifest import (
    CHANGED_TEACHERS,
    CLASS_NAMES,
    MANIFEST,
    NAMES,
    TEACHER,
    read_manifest,
    time_now,
    with_current_teacher,
    write_manifest,
)
from db3kd.storage.run_comparison import ExpectedRun, compare_with_runs
from db3kd.storage.run_differences import Difference, differences

_LOG = logging.getLogger(__name__)


def check_accepts_teacher(accept_changed_teacher: bool, resume: bool) -> None:
    """Checks the argument that lets a run continue with another teacher.

    Raises:
        TypeError: If it is not a bool.
        ValueError: If no run is resumed.
    """
    check_flag(accept_changed_teacher, "accept_changed_teacher")
    if accept_changed_teacher and not resume:
        raise ArgumentError("accept_changed_teacher", "needs resume=True")


def compare_or_accept_teacher(runs: Iterable[ExpectedRun], *, accept_changed_teacher: bool) -> None:
    """Compares the runs that a command continues, and then lets them continue with its teacher.

    Args:
        runs: All runs of the command; see `compare_with_runs`.
        accept_changed_teacher: Whether the stored runs may have had another teacher. Their
            manifests record this one.

    Raises:
        ValueError: If a folder holds another run, or a damaged manifest; no folder has changed.
        BlockingIOError: If another process is writing one of the folders; no folder has changed.
    """
    found = compare_with_runs(runs, any_teacher=accept_changed_teacher)
    if accept_changed_teacher:
        _accept_teacher(found)


def _accept_teacher(runs: Sequence[ExpectedRun]) -> None:
    """Records the teachers of expected runs in the manifests of the stored ones.

    All manifests are read before the first one is written. They are written in reverse order: if
    the process is killed in between, the first folder, which is opened first, still requires that
    the teacher is accepted.
    """
    with ExitStack() as locks:
        accepted = []
        for run in runs:
            locks.callback(FolderLock(run.path).release)
            wait_for_workers(run.path)
            manifest = read_manifest(run.path)
            if found := add_accepted(manifest, run.manifest):
                accepted.append((run.path, manifest, found))
        for folder, manifest, _ in reversed(accepted):
            write_manifest(folder / MANIFEST, manifest)
    for folder, _, found in accepted:
        _LOG.warning(
            "%s: the teacher changed since the run was started (%s); its answers so far are kept",
            folder,
            "; ".join(map(str, found)),
        )


def add_accepted(stored: dict[str, Any], wanted: Mapping[str, Any]) -> list[Difference]:
    """Adds an accepted teacher to the manifest of a run.

    Args:
        stored: Updated in place, unless it has this teacher already.
        wanted: The manifest with the teacher.

    Returns:
        In what the teacher differs from the one before; nothing if it was not added.
    """
    found = differences(with_current_teacher(stored), wanted, NAMES)
    found = [each for each in found if each.name in TEACHER]
    if found:
        entry = {
            "at": time_now(),
            "teacher": wanted["teacher"],
            CLASS_NAMES: wanted["settings"].get(CLASS_NAMES),
        }
        stored[CHANGED_TEACHERS] = [*stored.get(CHANGED_TEACHERS, []), entry]
    return found
