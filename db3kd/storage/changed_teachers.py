"""Runs that continue with another teacher, because the caller says that their answers stay valid.

The fingerprint of a function changes with its code, even if no answer does. A run keeps the
fingerprint that it was begun with, which its journals depend on, and lists the later ones.
"""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from db3kd.argument_types import check_flag
from db3kd.storage.existing_runs import holds_run
from db3kd.storage.filesystem import FolderLock, wait_for_workers
from db3kd.storage.manifest import CHANGED_TEACHERS, MANIFEST, read_manifest, write_manifest
from db3kd.storage.run_names import record_change, with_current_names

_LOG = logging.getLogger(__name__)


def check_accepts_teacher(accept_changed_teacher: bool, resume: bool) -> None:
    """Checks the argument that lets a run continue with another teacher.

    Raises:
        TypeError: If it is not a bool.
        ValueError: If no run is resumed.
    """
    check_flag(accept_changed_teacher, "accept_changed_teacher")
    if accept_changed_teacher and not resume:
        raise ValueError("accept_changed_teacher: needs resume=True")


def accept_teacher(folders: Iterable[str | Path], fingerprint: str) -> None:
    """Lets runs continue with another teacher, and records it in their manifests.

    Args:
        folders: Folders of runs; one that holds none is left as it is.
        fingerprint: The fingerprint of the teacher.

    Raises:
        BlockingIOError: Another process is writing one of the folders.
        ValueError: A manifest is damaged.
    """
    for folder in map(Path, folders):
        if holds_run(folder):
            _accept(folder, fingerprint)


def _accept(folder: Path, fingerprint: str) -> None:
    lock = FolderLock(folder)
    try:
        wait_for_workers(folder)
        manifest = read_manifest(folder)
        if with_current_names(manifest)["teacher"] == fingerprint:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record_change(manifest, CHANGED_TEACHERS, now, fingerprint)
        write_manifest(folder / MANIFEST, manifest)
    finally:
        lock.release()
    _LOG.warning(
        "%s: the teacher changed since the run was started; its answers so far are kept", folder
    )
