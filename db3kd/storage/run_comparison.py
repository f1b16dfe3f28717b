"""Checks whether a stored run may be continued, and what may have changed since."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from db3kd.storage.existing_runs import holds_run
from db3kd.storage.manifest import (
    NAMES,
    TEACHER,
    check_state,
    identity,
    read_manifest,
    with_current_teacher,
)
from db3kd.storage.run_differences import describe_differences, differences
from db3kd.storage.run_images import RunImages, current_data, find_changes
from db3kd.storage.run_journals import Journals
from db3kd.storage.shards import Kind


@dataclass(frozen=True)
class ComparedRun:
    """A stored run that another one may continue, and what may have changed since.

    Attributes:
        stored: Its manifest.
        changed: `[n] int64`, the rows of changed images that the teacher was not asked about; None
            if no image changed.
    """

    stored: dict[str, Any]
    changed: np.ndarray | None


@dataclass(frozen=True)
class ExpectedRun:
    """A run that a command makes in a folder, or continues if the folder holds one.

    Attributes:
        path: The folder.
        kind: What the run holds.
        manifest: From `make_manifest`.
        images: Images of the run; see `RunFolder.reopen`.
    """

    path: Path
    kind: Kind
    manifest: Mapping[str, Any]
    images: RunImages | None = None


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
            compare_with_run(run.path, run.kind, run.manifest, run.images, any_teacher=any_teacher)
            found.append(run)
    return found


def compare_with_run(
    path: Path,
    kind: Kind,
    manifest: Mapping[str, Any],
    images: RunImages | None = None,
    *,
    any_teacher: bool = False,
) -> ComparedRun:
    """Compares a run with the one in a folder that it is to continue, and writes nothing.

    Args:
        path: The folder of a run.
        kind: What the run must hold.
        manifest: Manifest to continue with.
        images: Images of the run; see `RunFolder.reopen`.
        any_teacher: Whether the teacher and its class names may be others.

    Raises:
        FileNotFoundError: The folder holds no run.
        ValueError: See `RunFolder.reopen`.
    """
    stored = read_manifest(path, kind.format)
    check_state(path, stored)
    current = with_current_teacher(stored) | {"data": current_data(stored)}
    apart_from = (*NAMES, *TEACHER) if any_teacher else NAMES
    found = differences(current, manifest, apart_from)
    differing = [each.name for each in found]
    journals = Journals(path.absolute(), kind, identity(stored), stored["started"])
    changed = None
    if images is not None and differing == ["data"]:
        answered = journals.answers_of_stage(images.stage)
        changed = find_changes(path, stored, images, answered)
    if found and changed is None:
        raise ValueError(f"{path}: holds a different run: {describe_differences(found)}")
    return ComparedRun(stored, changed)
