"""Class names of a run, which may be corrected as long as no answer depends on them.

A service that answers with class names is asked with a list of them. If the list has a wrong name,
the run stops at the first answer with the right one. What was paid for until then stays valid, so
the run continues with a corrected list if each class that the teacher answered with keeps its name.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from db3kd.storage.fingerprints import split_fingerprint
from db3kd.storage.manifest import CHANGED_TEACHERS, CLASS_NAMES, RENAMED
from db3kd.storage.run_journals import Journals
from db3kd.storage.shards import place_of, read_shard
from db3kd.wording import counted

_LOG = logging.getLogger(__name__)

_DECISION = "decision"
"""The column of a shard that holds the teacher's classes."""

_NUMBER = "number"
"""The place of an entry among the entries of both lists that change the teacher's fingerprint."""

_SETTING = f"settings.{CLASS_NAMES}"
_MAX_LISTED = 10


def with_current_names(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a manifest with the current class names and the current fingerprint of the teacher.

    The run may have begun with others.
    """
    renamed = manifest.get(RENAMED, [])
    current = dict(manifest)
    if renamed:
        current["settings"] = {**manifest["settings"], CLASS_NAMES: renamed[-1][CLASS_NAMES]}
    changes = _changes_of_teacher(manifest)
    if changes:
        current["teacher"] = max(changes, key=_place)["teacher"]
    return current


def record_change(
    manifest: dict[str, Any], name: str, when: str, teacher: str, **entries: object
) -> None:
    """Adds an entry with a new fingerprint of the teacher to one of the lists of such changes.

    Args:
        manifest: Updated in place.
        name: The list, `RENAMED` or `CHANGED_TEACHERS`.
        when: Time, for the entry.
        teacher: The fingerprint.
        entries: What else the entry holds.
    """
    number = len(_changes_of_teacher(manifest))
    entry = {"at": when, _NUMBER: number, "teacher": teacher} | entries
    manifest[name] = [*manifest.get(name, []), entry]


def current_names(manifest: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Returns the current class names of a run, if its classes have names."""
    names = with_current_names(manifest)["settings"].get(CLASS_NAMES)
    return None if names is None else tuple(names)


def find_renamed(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], differing: Iterable[str]
) -> list[int] | None:
    """Finds the classes that have another name than in the stored run.

    Args:
        stored: Manifest of the run, with its current names.
        wanted: Manifest to continue with.
        differing: The names of the entries in which they differ.

    Returns:
        The numbers of the classes; None if anything else differs, or the number of classes.
    """
    differing = set(differing)
    if _SETTING not in differing or not differing <= {_SETTING, "teacher"}:
        return None
    was, now = stored["settings"].get(CLASS_NAMES), wanted["settings"].get(CLASS_NAMES)
    if was is None or now is None or len(was) != len(now):
        return None
    if split_fingerprint(stored["teacher"])[0] != split_fingerprint(wanted["teacher"])[0]:
        return None
    return [number for number, names in enumerate(zip(was, now, strict=True)) if len({*names}) > 1]


def check_unanswered(
    folder: Path,
    manifest: Mapping[str, Any],
    wanted: Mapping[str, Any],
    renamed: Sequence[int],
    journals: Journals,
) -> None:
    """Checks that the teacher has not answered with any of the renamed classes.

    Args:
        folder: Run folder.
        manifest: Manifest of the run.
        wanted: Manifest to continue with.
        renamed: From `find_renamed`.
        journals: Journals of the run.

    Raises:
        ValueError: The teacher has answered with one of them; or a shard or journal is damaged.
    """
    answered = _answered(folder, manifest, journals)
    fixed = [number for number in renamed if answered is None or number in answered]
    if fixed:
        raise ValueError(
            f"{folder}: the names of {counted(len(renamed), 'class')} changed since the "
            f"run was started, and the teacher has already answered with {len(fixed)} of them: "
            f"{_changes(fixed, manifest, wanted)}. Restore these names (those of other classes may "
            "change), or start another run in another folder"
        )


def accept_names(
    wanted: Mapping[str, Any], renamed: Sequence[int], when: str, manifest: dict[str, Any]
) -> None:
    """Records new class names in the manifest of a run.

    Args:
        wanted: Manifest to continue with.
        renamed: From `find_renamed`.
        when: Time, for the manifest.
        manifest: Updated in place.
    """
    _LOG.warning(
        "class names changed since the run was started: %s; the run continues with the new ones, "
        "because the teacher has not answered with these classes yet",
        _changes(renamed, manifest, wanted),
    )
    names = {CLASS_NAMES: wanted["settings"][CLASS_NAMES]}
    record_change(manifest, RENAMED, when, wanted["teacher"], **names)


def _changes_of_teacher(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*manifest.get(RENAMED, []), *manifest.get(CHANGED_TEACHERS, [])]


def _place(change: Mapping[str, Any]) -> tuple[int, str]:
    """Returns what sorts the changes in the order in which they were recorded.

    Clocks may be set back, so their times count only among entries of earlier versions, which have
    no numbers.
    """
    return change.get(_NUMBER, -1), change["at"]


def _answered(folder: Path, manifest: Mapping[str, Any], journals: Journals) -> set[int] | None:
    """Returns the classes that the teacher has answered with; None if they are not known."""
    found: set[int] = set()
    for file in journals.files():
        for call in journals.read(file).calls:
            found.update(np.unique(call.answers).tolist())
    for position, file in journals.kind.shards(folder).items():
        table = read_shard(file, place_of(manifest, position))
        if _DECISION not in table.column_names:
            return None
        found.update(table[_DECISION].unique().to_pylist())
    return found


def _changes(numbers: Sequence[int], manifest: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    was, now = current_names(manifest) or (), wanted["settings"][CLASS_NAMES]
    shown = [f"class {n} was {was[n]!r}, is {now[n]!r}" for n in numbers[:_MAX_LISTED]]
    return "; ".join(shown) + ("; …" if len(numbers) > _MAX_LISTED else "")
