"""The manifest beside a result: what one needs to know to repeat it, and to tell it from others."""

import dataclasses
import enum
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from db3kd.storage.filesystem import write_atomically

MANIFEST = "_manifest.json"

CLASS_NAMES = "class_names"
"""Setting of a run whose classes have names: these, in the order of their numbers."""

_IDENTITY = ("seed", "settings", "teacher", "data")
"""What makes two runs the same; the rest of a manifest are circumstances."""

_LISTS = {
    "resumed": ("queries_in_flight",),
    "lost_workers": ("queries_in_flight",),
    "consistency": ("asked", "changed"),
}
"""Lists that a manifest may have, and the counts in each of their entries."""
_CHOOSES_IMAGES = ("seed:", "settings.limit:", "settings.source.")
"""Entries of a manifest that say which images a run is of."""


def manifest(
    settings: object,
    *,
    seed: int,
    teacher_fingerprint: str,
    data_fingerprint: str | None,
) -> dict[str, Any]:
    """What one needs to know to repeat a run, ready for `RunFolder.create`.

    Nothing is taken from the environment but versions; an absolute path among the settings
    keeps only its file name. Secrets do not belong into the settings.

    Args:
        settings: a mapping or a dataclass of plain values.
        seed: the run's seed.
        teacher_fingerprint: a digest that changes with the teacher.
        data_fingerprint: a digest that changes with the images; None where there are none.
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
    """Writes what `manifest` made, and what has come of the run, as JSON; whole or not at all."""
    text = json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())


def read_manifest(path: str | Path, format: str | None = None) -> dict[str, Any]:
    """The manifest of the run folder at `path`, of the given format where one is given.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another format.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{path}: expected a run folder, found no {MANIFEST}")
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
    """Whether there is a run whose manifest says that it is finished."""
    return (Path(path) / MANIFEST).is_file() and read_manifest(path).get("state") == "finished"


def differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], apart_from: tuple[str, ...] = ()
) -> list[str]:
    """`name: was …, is …` for each entry in which two manifests are not of the same run.

    apart_from: entries that may differ, as `settings.source.data`.
    """
    was, now = dict(_entries(stored)), dict(_entries(plain(wanted)))
    return [
        f"{name}: was {json.dumps(was.get(name))}, is {json.dumps(now.get(name))}"
        for name in sorted(was.keys() | now.keys())
        if name not in apart_from and was.get(name) != now.get(name)
    ]


def describe_differences(differences: Sequence[str]) -> str:
    """What `differences` found, and what to do where only their images explain one."""
    others = [each for each in differences if not each.startswith("data:")]
    if any(each.startswith(_CHOOSES_IMAGES) for each in others):
        return "; ".join(others)  # other settings, and therefore other images
    listed = "; ".join(differences)
    if len(others) == len(differences):
        return listed
    return (
        f"{listed}; the images or their labels are not those that the run was begun with: put them "
        "back, or begin another run in another folder"
    )


def identity(content: Mapping[str, Any], apart_from: Sequence[str] = ()) -> str:
    """What tells the run of a manifest from all others, as text.

    apart_from: entries that are left out, as `settings.source.data`.
    """
    entries = dict(_entries(plain(content)))
    return json.dumps(
        {name: value for name, value in entries.items() if name not in apart_from}, sort_keys=True
    )


def check_state(path: str | Path, content: Mapping[str, Any]) -> None:
    """Checks what readers of a run folder rely on.

    Raises:
        ValueError: an entry is missing, or is not what a run writes there.
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
    """`value` in what JSON has: no paths of this machine, no numbers that JSON cannot say."""
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
    """Names of classes stay as they are: one may well look like a path, as `/m/01g317` does."""
    if key == CLASS_NAMES and value is not None:
        return [str(name) for name in value]
    return plain(value)


def _entries(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted names and values of what identifies a run."""
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
