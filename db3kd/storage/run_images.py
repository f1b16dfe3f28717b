"""Digests of the images of a run, which tell which images changed since the run was started.

A run continues with changed images if its teacher was not asked about any of them, for example
after a broken file was repaired.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from db3kd.storage.filesystem import write_atomically
from db3kd.storage.image_digests import ImageDigests
from db3kd.wording import counted

_LOG = logging.getLogger(__name__)

_PREFIX = "_images-"
_DATA_NOW = "data_now"


@dataclass(frozen=True)
class RunImages:
    """What a run folder needs to know about the images of the run.

    Attributes:
        digests: Digests of the N images.
        name_of: Returns the name of the image at a row, for errors.
        order: [n] int64, rows that may be asked about, in the order in which they are decided.
        stage: Name of the journal of these decisions.
    """

    digests: ImageDigests
    name_of: Callable[[int], str]
    order: np.ndarray
    stage: str


def current_data(manifest: Mapping[str, Any]) -> str | None:
    """Returns the fingerprint of the current images; entry `data` is that of the first ones."""
    return manifest.get(_DATA_NOW, manifest.get("data"))


def images_files(folder: Path) -> list[Path]:
    """Returns the files that `write_images` wrote into a run folder."""
    return sorted(folder.glob(f"{_PREFIX}*"))


def write_images(folder: Path, digests: ImageDigests) -> None:
    """Writes the digests into a run folder, unless they exist."""
    file = _file(folder, digests.fingerprint)
    if not file.exists():
        write_atomically(file, digests.content)


def find_changes(
    folder: Path, manifest: Mapping[str, Any], images: RunImages, answered: int | None
) -> np.ndarray | None:
    """Finds the images of a run that changed.

    Args:
        folder: Run folder.
        manifest: Manifest of the run.
        images: The current images.
        answered: How many of `images.order` have been decided; None if all may have been.

    Returns:
        [n] int64, the rows of changed images, none of which was asked about. None if images cannot
        be matched: the run has no digests, or the number or shape of the images differs.

    Raises:
        ValueError: An image changed that the teacher was asked about.
    """
    fingerprint = current_data(manifest) or ""
    file = _file(folder, fingerprint)
    before = ImageDigests.read(file.read_bytes(), fingerprint) if file.is_file() else None
    changed = None if before is None else before.changed(images.digests)
    if changed is None:
        return None
    asked = np.intersect1d(changed, images.order[:answered])
    if len(asked):
        raise ValueError(
            f"{folder}: {len(changed)} of its {counted(len(images.digests), 'image')}, or their "
            f"labels, changed since the run was started, and {len(asked)} of these were already "
            f"sent to the teacher, the first being {images.name_of(int(asked[0]))}; restore "
            "them, pass the data that the run was started with, or start another run in another "
            "folder"
        )
    return changed


def accept_changes(
    folder: Path, images: RunImages, changed: np.ndarray, when: str, manifest: dict[str, Any]
) -> None:
    """Records changed images in a run folder and in its manifest.

    Args:
        folder: Run folder.
        images: The current images.
        changed: [n] int64, rows of changed images.
        when: Time, for the manifest.
        manifest: Updated in place.
    """
    names = [images.name_of(int(row)) for row in changed[:10]]
    _LOG.warning(
        "%s: %d images changed since the run was started (%s%s); the run continues with the "
        "current images, because the teacher was not asked about them yet",
        folder,
        len(changed),
        ", ".join(names),
        ", …" if len(changed) > len(names) else "",
    )
    write_images(folder, images.digests)
    note = {"at": when, "images": len(changed), "first": names}
    manifest["changed_images"] = [*manifest.get("changed_images", []), note]
    manifest[_DATA_NOW] = images.digests.fingerprint


def remove_old_images(folder: Path, digests: ImageDigests) -> None:
    """Removes files that `write_images` wrote for other images."""
    for file in images_files(folder):
        if file != _file(folder, digests.fingerprint):
            file.unlink(missing_ok=True)


def _file(folder: Path, fingerprint: str) -> Path:
    return folder / f"{_PREFIX}{fingerprint[:16]}"
