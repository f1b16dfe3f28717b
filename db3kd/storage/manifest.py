"""Manifests: JSON files that record how a result was made and identify its run."""

import dataclasses
import enum
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from db3kd.storage.filesystem import write_atomically

MANIFEST = "_manifest.json"
"""The file of the manifest in a run folder."""

CLASS_NAMES = "class_names"
"""Setting that holds the names of the classes in the order of their numbers."""

SURROGATES = "surrogate"
"""Entry that describes the surrogate that a run trained itself: a list of one mapping."""

RENAMED = "renamed_classes"
"""Entry that lists the corrections of class names (run_names.py)."""

_IDENTITY = ("seed", "settings", "teacher", "data")
"""Entries that identify a run; the other entries are circumstances."""

NAMES = ("settings.source.data", "settings.teacher")
"""Entries that may differ when a run is resumed: names, of which the fingerprints are compared."""

_MAX_SHOWN = 60
"""Characters of a value in a message."""

_LISTS = {
    "resumed": ("queries_in_flight",),
    "lost_workers": ("queries_in_flight",),
    "consistency": ("asked", "changed"),
    SURROGATES: ("queries",),
    RENAMED: (),
}
"""Lists that a manifest may have, and the counts in each of their entries."""

_NO_ARGUMENTS = ("data",)
"""Entries that describe the images, which may come from anywhere."""

_CHOOSES_IMAGES = ("seed:", "settings.limit:", "settings.source.")
"""Entries that determine which images a run uses."""


@dataclasses.dataclass(frozen=True)
class DecidingEntry:
    """An entry of a manifest that others follow from. If it differs, messages name only it.

    Attributes:
        name: Its name, such as "settings.plan.budget".
        followers: How the names of entries begin that follow from it, unless they decide others.
        optional: How the names of entries begin that follow from it if only one of two runs has
            them.
        is_argument: Whether the caller passes it as an argument of this name.
    """

    name: str
    followers: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    is_argument: bool = True


def make_manifest(
    settings: object,
    *,
    seed: int,
    teacher_fingerprint: str,
    data_fingerprint: str | None,
) -> dict[str, Any]:
    """Returns the manifest of a run, for `RunFolder.open`.

    Only versions are taken from the environment. Of an absolute path among the settings only the
    file name is kept. Settings must not contain secrets.

    Args:
        settings: A mapping or dataclass of plain values.
        seed: Seed of the run.
        teacher_fingerprint: Digest that changes with the teacher.
        data_fingerprint: Digest that changes with the images; None if there are none.
    """
    packages = ("db3kd", "torch", "numpy")
    return {
        "seed": seed,
        "settings": plain(settings),
        "teacher": teacher_fingerprint,
        "data": data_fingerprint,
        "versions": {package: _version(package) for package in packages}
        | {"python": platform.python_version()},
        "platform": f"{platform.system()} {platform.machine()}",
    }


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a manifest as JSON; the file appears whole or not at all."""
    text = json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())


def read_manifest(path: str | Path, format: str | None = None) -> dict[str, Any]:
    """Reads the manifest of a run folder.

    Args:
        path: Run folder.
        format: Expected format; None accepts any.

    Raises:
        FileNotFoundError: The folder has no manifest.
        ValueError: The manifest is damaged or has another format.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{path}: expected a run folder, got a folder without {MANIFEST}")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON, got a damaged file ({error})") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found is None or format not in (None, found):
        raise ValueError(
            f"{file}: expected format {format or 'db3kd …'!r}, got {found!r}{_written_by(content)}"
        )
    return content


def is_finished(path: str | Path) -> bool:
    """Returns whether the folder holds a run whose manifest says that it is finished."""
    return (Path(path) / MANIFEST).is_file() and read_manifest(path).get("state") == "finished"


def differences(
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    apart_from: tuple[str, ...] = (),
    deciding: Sequence[DecidingEntry] = (),
) -> list[str]:
    """Returns `name: was …, is …` for each entry in which two manifests describe different runs.

    Entries that follow from another one that differs are left out.

    Args:
        stored: Manifest of an existing run.
        wanted: Manifest of the requested run.
        apart_from: Entries that may differ, such as `settings.source.data`.
        deciding: Entries that others follow from.
    """
    was, now = dict(_entries(stored)), dict(_entries(plain(wanted)))
    found = [
        name
        for name in sorted(was.keys() | now.keys())
        if name not in apart_from and was.get(name) != now.get(name)
    ]
    one_sided = {name for name in found if None in (was.get(name), now.get(name))}
    return [
        f"{name}: was {_shown(was.get(name))}, is {_shown(now.get(name))}"
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
        if name.startswith(entry.followers) and not decides:
            return True
        if name.startswith(entry.optional) and name in one_sided:
            return True
    return False


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def _with_argument(difference: str, no_arguments: Collection[str]) -> str:
    """Adds the argument that sets an entry, of which the command line makes an option."""
    name = difference.partition(":")[0]
    if name in no_arguments:
        return difference
    return f"{difference} ({name.rpartition('.')[2]}=)"


_ADVICE = "; pass what the run was started with, or start another run in another folder"


def describe_differences(differences: Sequence[str], deciding: Sequence[DecidingEntry] = ()) -> str:
    """Returns the differences as text, with advice if only the images differ.

    Args:
        differences: From `differences`.
        deciding: Entries that others follow from.
    """
    no_arguments = {*_NO_ARGUMENTS, *(each.name for each in deciding if not each.is_argument)}
    differences = [_with_argument(each, no_arguments) for each in differences]
    others = [each for each in differences if not each.startswith("data:")]
    if any(each.startswith(_CHOOSES_IMAGES) for each in others):
        return "; ".join(others) + _ADVICE  # other settings, and therefore other images
    listed = "; ".join(differences)
    if len(others) == len(differences):
        return listed + _ADVICE
    return (
        f"{listed}; the images or their labels are not those that the run was started with: "
        "restore them, or start another run in another folder"
    )


def identity(content: Mapping[str, Any], apart_from: Sequence[str] = ()) -> str:
    """Returns a text that identifies the run of a manifest.

    Args:
        content: The manifest.
        apart_from: Entries that are left out, such as `settings.source.data`.
    """
    entries = dict(_entries(plain(content)))
    return json.dumps(
        {name: value for name, value in entries.items() if name not in apart_from}, sort_keys=True
    )


def check_state(path: str | Path, content: Mapping[str, Any]) -> None:
    """Checks the entries that readers of a run folder rely on.

    Args:
        path: Run folder, for error messages.
        content: Its manifest.

    Raises:
        ValueError: An entry is missing or invalid.
    """
    file = Path(path) / MANIFEST
    state, totals = content.get("state"), content.get("totals")
    if state not in ("running", "finished"):
        raise ValueError(f"{file}: entry state: expected 'running' or 'finished', got {state!r}")
    if not isinstance(content.get("started"), str):
        raise ValueError(f"{file}: entry started: expected a time, got {content.get('started')!r}")
    if not isinstance(content.get("settings", {}), Mapping):
        raise ValueError(f"{file}: entry settings: expected a mapping")
    if state == "finished" and not isinstance(totals, Mapping):
        raise ValueError(f"{file}: entry totals: expected the totals of a finished run, got none")
    for name in ("samples", "queries"):
        value = (totals or {}).get(name, 0) if state == "finished" else 0
        if type(value) is not int or value < 0:
            raise ValueError(f"{file}: entry totals.{name}: expected a count, got {value!r}")
    for name, counts in _LISTS.items():
        entries = content.get(name, [])
        if not isinstance(entries, list) or not all(
            isinstance(entry, Mapping)
            and all(type(entry.get(key)) is int and entry[key] >= 0 for key in counts)
            for entry in entries
        ):
            raise ValueError(f"{file}: entry {name}: expected a list of entries with {counts}")


def plain(value: Any) -> Any:
    """Returns `value` as JSON types, without absolute paths and non-finite numbers."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return Path(value).name if os.path.isabs(value) else value
        case float():
            return value if math.isfinite(value) else str(value)
        case enum.Enum():
            return plain(value.value)
        case os.PathLike():
            return Path(value).name
        case Mapping():
            return {str(key): _plain_item(str(key), item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return str(value)


def _plain_item(key: str, value: Any) -> Any:
    """Keeps class names unchanged: a name such as `/m/01g317` looks like a path."""
    if key == CLASS_NAMES and value is not None:
        return [str(name) for name in value]
    return plain(value)


def _entries(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields dotted names and values of the entries that identify a run."""
    for key in _IDENTITY:
        yield from _flat(key, content.get(key))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    else:
        yield name, value


def _written_by(content: Any) -> str:
    versions = content.get("versions") if isinstance(content, dict) else None
    version = versions.get("db3kd") if isinstance(versions, dict) else None
    return "" if version is None else f", written by db3kd {version}; read it with that version"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
