"""The images of a run beside its manifest, so that it is known which of them changed since.

A run goes on with images that changed if its teacher was not asked about any of them yet: a broken
file is repaired and the run resumed.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from db3kd.storage.filesystem import write_atomically
from db3kd.storage.image_digests import ImageDigests

_LOG = logging.getLogger(__name__)

_PREFIX = "_images-"
_DATA_NOW = "data_now"


@dataclass(frozen=True)
class RunImages:
    """The images of a run, as its folder needs to know them.

    Attributes:
        digests: of the N images.
        name_of: what errors call the image at a row.
        order: int64 [n], the rows that may be asked about, in the order in which they are decided.
        stage: the name of the journal that holds these decisions.
    """

    digests: ImageDigests
    name_of: Callable[[int], str]
    order: np.ndarray
    stage: str


def current_data(manifest: Mapping[str, Any]) -> str | None:
    """The fingerprint of a run's images as they are now; `data` is of those it was begun with."""
    return manifest.get(_DATA_NOW, manifest.get("data"))


def images_files(folder: Path) -> list[Path]:
    """The files in a run's folder that `write_images` wrote."""
    return sorted(folder.glob(f"{_PREFIX}*"))


def write_images(folder: Path, digests: ImageDigests) -> None:
    """Keeps the digests in a run's folder; nothing happens if they are there."""
    file = _file(folder, digests.fingerprint)
    if not file.exists():
        write_atomically(file, digests.content)


def find_changes(
    folder: Path, manifest: Mapping[str, Any], images: RunImages, answered: int | None
) -> np.ndarray | None:
    """The rows of a run's images that changed, none of which has been asked about.

    Args:
        folder: of the run.
        manifest: of the run.
        images: as they are now.
        answered: how many of `images.order` have been decided; None if all of them may have been.

    Returns:
        int64 [n], or None if it is not known which image is which: the run keeps no digests, or the
        images are more or fewer or of another shape.

    Raises:
        ValueError: images changed that the teacher was asked about.
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
            f"{folder}: {len(changed)} of its {len(images.digests)} images, or their labels, "
            f"changed since the run was begun, and the teacher was asked about {len(asked)} of "
            f"these already, the first being {images.name_of(int(asked[0]))}: put them back, "
            "give the data that the run was begun with, or begin another run in another folder"
        )
    return changed


def accept_changes(
    folder: Path, images: RunImages, changed: np.ndarray, when: str, manifest: dict[str, Any]
) -> None:
    """Notes in a run's folder, and in `manifest`, that images changed."""
    names = [images.name_of(int(row)) for row in changed[:10]]
    _LOG.warning(
        "%s: %d images changed since the run was begun (%s%s), and go into it as they are now: "
        "the teacher was not asked about them yet",
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
    """Removes what `write_images` wrote for other images than these."""
    for file in images_files(folder):
        if file != _file(folder, digests.fingerprint):
            file.unlink(missing_ok=True)


def _file(folder: Path, fingerprint: str) -> Path:
    return folder / f"{_PREFIX}{fingerprint[:16]}"
