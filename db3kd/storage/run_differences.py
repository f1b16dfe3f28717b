"""Compares two manifests, and describes their differences."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from db3kd.storage.manifest import CLASS_NAMES, CLASSES, entries_of, plain

_ADDED_LATER = (f"settings.{CLASSES}",)
"""Entries that runs of earlier versions lack, whatever their kind."""

_DEVICE = ".device"
"""How the names of entries end that never identify a run: it may be resumed on another machine."""

_MAX_SHOWN = 60
"""Characters of a value in a message."""

_ABSENT = json.dumps(None)
"""How an entry is shown that a manifest lacks."""

_NO_ARGUMENTS = ("data",)
"""Entries that describe the images, which may come from anywhere."""

_CHOOSES_IMAGES = ("seed", "settings.limit")
_SOURCE = "settings.source."
"""Entries that determine which images a run uses, and how the names of others begin that do."""

_LOADED = "settings.source.split"
"""An entry that all runs have whose images were loaded by name, and no others."""

_ADVICE = "; pass what the run was started with, or start another run in another folder"

SAME_TEACHER = (
    "; if the teacher still gives the same answers, for example because only its code was edited "
    "or its queries filled a cache, keep those of the run and continue with "
    "accept_changed_teacher=True"
)
"""Advice if the fingerprint of the teacher differs, as it does if code or state of an object do."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """An entry in which two manifests differ.

    Attributes:
        name: Its name, such as "settings.plan.budget".
        was: Its value in the stored manifest, as a message shows it.
        now: Its value in the other manifest, as a message shows it.
    """

    name: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.name}: was {self.was}, is {self.now}"


@dataclasses.dataclass(frozen=True)
class DecidingEntry:
    """An entry of a manifest that others follow from. If it differs, messages name only it.

    Attributes:
        name: Its name, such as "settings.plan.budget".
        followers: How the names of entries begin that follow from it. An entry that decides others
            follows only if its whole name is listed.
        optional: How the names of entries begin that follow from it if only one of two runs has
            them.
        is_argument: Whether the caller passes it as an argument.
        argument: The name of the argument that decides whether a run has the entry; empty if the
            last part of the entry's name is the argument that sets it.
    """

    name: str
    followers: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    is_argument: bool = True
    argument: str = ""


_CLASSES_DECIDE = DecidingEntry(f"settings.{CLASSES}", followers=(f"settings.{CLASS_NAMES}",))


def differences(
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    apart_from: tuple[str, ...] = (),
    deciding: Sequence[DecidingEntry] = (),
    added_later: tuple[str, ...] = (),
) -> list[Difference]:
    """Returns the entries in which two manifests describe different runs, sorted by name.

    Entries that follow from another one that differs are left out, and so are devices. If the
    images are the same, or if those of one run only were loaded by name, it does not matter from
    where they were loaded.

    Args:
        stored: Manifest of an existing run.
        wanted: Manifest of the requested run.
        apart_from: Entries that may differ, such as `settings.source.data`.
        deciding: Entries that others follow from.
        added_later: Entries that runs of earlier versions lack. They are compared if both manifests
            have them.
    """
    added_later += _ADDED_LATER
    was, now = dict(entries_of(stored)), dict(entries_of(plain(wanted)))
    same_images = "data" in was and was["data"] == now.get("data")
    # Images that are passed have no such settings. If they are others, the data say so.
    loaded_once = (_LOADED in was) != (_LOADED in now)
    found = [
        name
        for name in sorted(was.keys() | now.keys())
        if name not in apart_from
        and not name.endswith(_DEVICE)
        and not ((same_images or loaded_once) and name.startswith(_SOURCE))
        and not (name in added_later and (name not in was or name not in now))
        and was.get(name) != now.get(name)
    ]
    deciding = (*deciding, _CLASSES_DECIDE)
    one_sided = {name for name in found if None in (was.get(name), now.get(name))}
    return [
        Difference(name, _shown(was, name), _shown(now, name))
        for name in found
        if not _follows(name, found, one_sided, deciding)
    ]


def _follows(
    name: str,
    found: Sequence[str],
    one_sided: Collection[str],
    deciding: Sequence[DecidingEntry],
) -> bool:
    """Returns whether an entry differs only because another one does, which is named instead."""
    decides = any(entry.name == name for entry in deciding)
    for entry in deciding:
        if entry.name not in found or entry.name == name:
            continue
        if name in entry.followers or (name.startswith(entry.followers) and not decides):
            return True
        if name.startswith(entry.optional) and name in one_sided:
            return True
    return False


def _shown(entries: Mapping[str, Any], name: str) -> str:
    if name not in entries and any(each.startswith(f"{name}.") for each in entries):
        return "a group of entries"
    text = json.dumps(entries.get(name))
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def _with_argument(difference: Difference, deciding: Sequence[DecidingEntry]) -> str:
    """Adds the argument that sets an entry, of which the command line makes an option."""
    name = difference.name
    entry = next((each for each in deciding if each.name == name), DecidingEntry(name))
    one_sided = _ABSENT in (difference.was, difference.now)
    if name in _NO_ARGUMENTS or not entry.is_argument or (entry.argument and not one_sided):
        return str(difference)
    return f"{difference} ({entry.argument or name.rpartition('.')[2]}=)"


def describe_differences(
    differences: Sequence[Difference], deciding: Sequence[DecidingEntry] = ()
) -> str:
    """Returns the differences as text, with advice if only the images differ.

    Args:
        differences: From `differences`.
        deciding: Entries that others follow from.
    """
    described = {each.name: _with_argument(each, deciding) for each in differences}
    others = [name for name in described if name != "data"]
    if any(name in _CHOOSES_IMAGES or name.startswith(_SOURCE) for name in others):
        # other settings, and therefore other images
        return "; ".join(described[name] for name in others) + _ADVICE
    listed = "; ".join(described.values())
    if "teacher" in described:
        listed += SAME_TEACHER
    if "data" not in described:
        return listed + _ADVICE
    return (
        f"{listed}; the images or their labels are not those that the run was started with: "
        "restore them, or start another run in another folder"
    )
