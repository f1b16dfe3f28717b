"""Checks whether a stored run may be continued."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db3kd.errors import InputError
from db3kd.storage.existing_runs import holds_run
from db3kd.storage.kinds import Kind
from db3kd.storage.manifest import (
    NAMES,
    TEACHER,
    check_state,
    read_manifest,
    with_current_teacher,
)
from db3kd.storage.run_differences import describe_differences, differences


@dataclass(frozen=True)
class ExpectedRun:
    """A run that a command makes in a folder, or continues if the folder holds one.

    Attributes:
        path: The folder.
        kind: What the run holds.
        manifest: From `make_manifest`.
    """

    path: Path
    kind: Kind
    manifest: Mapping[str, Any]


def compare_with_runs(
    runs: Iterable[ExpectedRun], *, any_teacher: bool = False
) -> list[ExpectedRun]:
    """Compares all runs of a command with those that their folders hold, and writes nothing.

    A command with several folders calls this before it opens the first one, so that no folder has
    changed if another one holds a different run.

    Args:
        runs: The runs; folders that hold none are passed over. Each is compared before the next one
            is requested.
        any_teacher: See `compare_with_run`.

    Returns:
        The runs whose folders hold one.

    Raises:
        ValueError: See `RunFolder.reopen`.
    """
    found = []
    for run in runs:
        if holds_run(run.path):
            compare_with_run(run, any_teacher=any_teacher)
            found.append(run)
    return found


def compare_with_run(run: ExpectedRun, *, any_teacher: bool = False) -> dict[str, Any]:
    """Compares a run with the one in its folder, which it is to continue, and writes nothing.

    Args:
        run: The run.
        any_teacher: Whether the teacher and its class names may be others.

    Returns:
        The manifest of the stored run.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: See `RunFolder.reopen`.
    """
    stored = read_manifest(run.path, run.kind.format)
    check_state(run.path, stored, run.kind)
    apart_from = (*NAMES, *TEACHER) if any_teacher else NAMES
    found = differences(with_current_teacher(stored), run.manifest, apart_from)
    if found:
        text = describe_differences(found, run.kind)
        raise InputError(f"{run.path}: holds a different run: {text}")
    return stored
