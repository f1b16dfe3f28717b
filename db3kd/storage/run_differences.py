"""Compares two manifests, and describes their differences."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db3kd.storage.kinds import DifferenceRules, Kind
from db3kd.storage.manifest import CLASS_NAMES, CLASSES, IDENTITY, TEACHER, entries_of, plain

_SOURCE, _CLASS_NAMES = "settings.source", f"settings.{CLASS_NAMES}"

_CAUSES = ("data", f"settings.{CLASSES}")
"""Entries of all kinds of runs that others follow from."""

_FIXED_BUDGET = (
    "; the budget of a run is fixed, because it decides which queries are sent: continue with the "
    "old one, or start another run in another folder, which pays for its answers anew"
)
"""What a user can do who wants another budget."""

_SMALLER_BUDGET = (
    "; a run cannot be continued with a smaller budget: pass the old one, or start another run in "
    "another folder, which pays for its answers anew"
)
"""The same for a run that may accept a larger budget."""

_CHOOSES_IMAGES = ("seed", "settings.limit", _SOURCE)
"""How the names of entries begin that determine which images a run uses."""

_NO_ARGUMENTS = ("data", _CLASS_NAMES)
"""Entries of all kinds of runs that no single argument sets."""

_MAX_LISTED, _MAX_SHOWN = 5, 60
"""Differences in a message, and characters of a value in it."""

_SAME_TEACHER = (
    "; if the answers so far stay valid, for example because only the code of the teacher was "
    "edited, its queries filled a cache, or a class name was corrected that it has not answered "
    "with, keep them and continue with accept_changed_teacher=True"
)
"""Advice if the fingerprint of the teacher or the names of its classes differ."""


@dataclass(frozen=True)
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


def differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], apart_from: Sequence[str] = ()
) -> list[Difference]:
    """Returns the entries in which two manifests describe different runs, sorted by name.

    Devices may differ. If the images are the same, or if those of one run only were loaded by name,
    it does not matter from where they were loaded.

    Args:
        stored: Manifest of an existing run.
        wanted: Manifest of the requested run.
        apart_from: Entries that may differ, such as `settings.source.data`.
    """
    now = plain(wanted)
    loaded = {f"{_SOURCE}.split" in dict(entries_of(each)) for each in (stored, now)}
    any_source = stored.get("data") == now.get("data") or len(loaded) == 2
    found = [
        each for name in IDENTITY for each in _differing(name, stored.get(name), now.get(name))
    ]
    return [
        each
        for each in sorted(found, key=lambda each: each.name)
        if each.name not in apart_from
        and not each.name.endswith(".device")
        and not (any_source and each.name.startswith(_SOURCE))
    ]


def _differing(name: str, was: Any, now: Any) -> Iterator[Difference]:
    """Yields the differences between two values, entry by entry if both are mappings."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in was.keys() | now.keys():
            yield from _differing(f"{name}.{key}", was.get(key), now.get(key))
    elif was != now:
        lists = isinstance(was, list) and isinstance(now, list)
        if name == _CLASS_NAMES and lists and len(was) == len(now):
            changed = [number for number, before in enumerate(was) if before != now[number]]
            was, now = ({number: names[number] for number in changed} for names in (was, now))
        yield Difference(name, _shown(was), _shown(now))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def describe_differences(differences: Sequence[Difference], kind: Kind) -> str:
    """Returns differences as text, with advice; those that may follow from others are left out.

    Args:
        differences: The differences between two runs.
        kind: What both runs hold.
    """
    found, rules = {each.name: each for each in differences}, kind.differences
    if any(name.startswith(_CHOOSES_IMAGES) for name in found):
        found.pop("data", None)  # other settings, and therefore other images
    causes = [name for name in (*_CAUSES, *rules.causes) if name in found]
    causes = causes or [name for name in rules.later_causes if name in found]
    others = [
        name
        for name in found
        if name not in causes
        and not (causes and name.startswith((*rules.following, _CLASS_NAMES)))
        and not ("seed" in found and name.endswith(".seed"))
    ]
    names = [*causes, *others]
    text = "; ".join(_with_argument(found[name], rules) for name in names[:_MAX_LISTED])
    if len(names) > _MAX_LISTED:
        text += f"; and {len(names) - _MAX_LISTED:,} more"
    if not found.keys().isdisjoint(TEACHER):
        text += _SAME_TEACHER
    if "data" not in found and rules.budget in found and len(names) == 1:
        return text + (_SMALLER_BUDGET if rules.larger_budgets else _FIXED_BUDGET)
    if "data" not in found:
        return f"{text}; pass what the run was started with, or start another run in another folder"
    return (
        f"{text}; the images or their labels are not those that the run was started with (their "
        "dtype and shape count too): restore them, or start another run in another folder"
    )


def _with_argument(difference: Difference, rules: DifferenceRules) -> str:
    """Adds the argument that sets an entry, of which the command line makes an option."""
    if difference.name in (*_NO_ARGUMENTS, *rules.no_arguments):
        return str(difference)
    name = difference.name.rpartition(".")[2]
    return f"{difference} ({rules.other_arguments.get(name, name)}=)"
