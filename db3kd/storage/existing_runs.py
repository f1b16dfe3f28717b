"""What a folder holds before a run is opened in it, and whether a run may begin there."""

import difflib
from pathlib import Path
from typing import Any

from db3kd.errors import InputNotFoundError, OutputExistsError
from db3kd.storage.filesystem import check_parents, check_writable, is_leftover
from db3kd.storage.lost_queries import count_lost
from db3kd.storage.manifest import MANIFEST, queries_in_flight, read_manifest
from db3kd.wording import shortened

_MAX_SUGGESTED = 3
"""Runs that an error suggests."""


def holds_run(path: str | Path) -> bool:
    """Returns whether a folder holds a run."""
    return (Path(path) / MANIFEST).is_file()


def begun_with(path: str | Path, format: str | None = None) -> dict[str, Any]:
    """Returns the settings that the run in a folder was begun with.

    Args:
        path: The folder.
        format: The expected format of the run; None accepts any.

    Returns:
        The settings as the manifest has them, unchecked; empty without a run.

    Raises:
        ValueError: If the manifest is damaged or has another format.
    """
    if not holds_run(path):
        return {}
    settings = read_manifest(path, format).get("settings")
    return settings if isinstance(settings, dict) else {}


def data_of_run(path: str | Path) -> object:
    """Returns the fingerprint of the images of the run in a folder; None without a run or images.

    Raises:
        ValueError: If the manifest is damaged.
    """
    return read_manifest(path).get("data") if holds_run(path) else None


def check_output(path: str | Path, resume: bool, format: str) -> None:
    """Checks that a run can be started in a folder, or that there is a folder to resume.

    Args:
        path: See `check_resumable`.
        resume: Whether a run is to be resumed.
        format: See `check_resumable`.

    Raises:
        FileNotFoundError: See `check_resumable`.
        FileExistsError, NotADirectoryError, OSError: See `check_free`.
    """
    check_resumable(path, resume, format)
    check_free(path, resume)


def check_free(path: str | Path, resume: bool = False, *, can_resume: bool = True) -> None:
    """Checks that a run can be started in a folder.

    Args:
        path: The folder, which need not exist.
        resume: Whether a folder that holds a run is acceptable.
        can_resume: Whether the caller offers to continue a run, for the error.

    Raises:
        FileExistsError: If the path is a file, or a folder with files.
        NotADirectoryError: If the path leads through a file.
        OSError: If nothing can be written at the path.
    """
    path = Path(path)
    if resume and holds_run(path):
        return
    check_parents(path)
    if path.is_dir():
        found = [file.name for file in path.iterdir() if not is_leftover(file)]
    elif path.exists():
        raise OutputExistsError(
            f"{path}: expected a new or an empty folder for the run, got a file"
        )
    elif path.is_symlink():
        raise OutputExistsError(
            f"{path}: expected a new or an empty folder for the run, got a link to "
            f"{path.readlink()}, which does not exist; create that folder, or choose another"
        )
    else:
        return
    if MANIFEST in found:
        advice = "continue it with resume=True, or choose" if can_resume else "choose"
        raise OutputExistsError(f"{path}: already holds a run; {advice} another folder")
    if found:
        raise OutputExistsError(
            f"{path}: expected a new or an empty folder for the run, got a folder with files; "
            "choose another"
        )
    check_writable(path)


def check_resumable(path: str | Path, resume: bool, format: str | None = None) -> None:
    """Checks that the folder of a run to resume exists, because a new run would pay again.

    An empty folder is accepted, so that a supervisor can start and continue a run with the same
    call.

    Args:
        path: The folder, or the weights file of a surrogate, which lies beside its folder.
        resume: Whether a run is to be resumed; if not, nothing is checked.
        format: The format of runs that the error may suggest; None for any.

    Raises:
        FileNotFoundError: If there is nothing at the path.
    """
    path = Path(path)
    if not resume or path.exists():
        return
    check_parents(path)
    found = _runs_beside(path, format)
    beside = f"; beside it: {shortened(found, _MAX_SUGGESTED)}" if found else ""
    raise InputNotFoundError(
        f"{path}: expected the folder of the run to resume, got no such folder{beside}. To start a "
        "new run, leave out resume=True, or create this folder first"
    )


def _runs_beside(path: Path, format: str | None) -> list[Path]:
    """Returns the runs in the parent folder, those with a similar name first."""
    if not path.parent.is_dir():
        return []

    def likeness(other: Path) -> float:
        return difflib.SequenceMatcher(None, path.name, other.name).ratio()

    runs = [each for each in sorted(path.parent.iterdir()) if _is_run(each, format)]
    return sorted(runs, key=likeness, reverse=True)


def _is_run(path: Path, format: str | None) -> bool:
    try:
        return holds_run(path) and (format is None or read_manifest(path)["format"] == format)
    except (OSError, ValueError, KeyError):  # not a folder of this user, or damaged
        return False


def queries_paid_twice(*folders: str | Path) -> int:
    """Returns at most how many queries of stored runs were paid twice; see `queries_in_flight`.

    A folder without a run has none.
    """
    return sum(
        queries_in_flight(read_manifest(each)) + count_lost(Path(each))
        for each in folders
        if holds_run(each)
    )
