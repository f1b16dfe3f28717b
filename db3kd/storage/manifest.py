"""Manifests: JSON files that record how a result was made and identify its run."""

import dataclasses
import enum
import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from db3kd.arguments.arrays import tensor_bytes
from db3kd.errors import InputError, InputNotFoundError
from db3kd.storage.filesystem import json_bytes, write_atomically
from db3kd.storage.kinds import Kind, describe_format
from db3kd.version import __version__

MANIFEST = "_manifest.json"
"""The file of the manifest in a run folder."""

CLASS_NAMES = "class_names"
"""Setting that holds the names of the classes in the order of their numbers."""

CLASSES = "classes"
"""Setting that holds the teacher's number of classes."""

CONSISTENCY = "consistency"
"""Entry that lists the consistency checks of a run: the queries of each, and how many answers had
changed, which is missing if it was interrupted (querying/consistency.py)."""

CHANGED_TEACHERS = "changed_teachers"
"""Entry that lists the teachers with which the run was continued: fingerprint and class names of
each. The last one is the current teacher (changed_teachers.py)."""

LOST = "lost_answers"
"""Entry that counts queries that were sent again, because an answer may have been lost."""

IDENTITY = ("seed", "settings", "teacher", "data")
"""Entries that identify a run; the other entries are circumstances."""

NAMES = ("settings.source.data", "settings.teacher")
"""Entries that may differ when a run is resumed: names, of which the fingerprints are compared."""

TEACHER = ("teacher", f"settings.{CLASS_NAMES}")
"""Entries that describe the teacher: its fingerprint and the names of its classes."""

_LISTS = {
    "resumed": ("queries_in_flight",),
    "lost_workers": ("queries_in_flight",),
    LOST: ("queries",),
    CONSISTENCY: ("asked",),
    CHANGED_TEACHERS: (),
}
"""Lists that manifests of all kinds may have, and the counts in each of their entries."""


def make_manifest(
    settings: object,
    *,
    seed: int,
    teacher_fingerprint: str,
    classes: int | None,
    data_fingerprint: str | None,
) -> dict[str, Any]:
    """Returns the manifest of a run, for `RunFolder.open`.

    Only versions are taken from the environment. Of an absolute path among the settings only the
    file name is kept. Settings must not contain secrets.

    Args:
        settings: A mapping or dataclass of plain values.
        seed: Seed of the run.
        teacher_fingerprint: Digest that changes with the teacher.
        classes: The teacher's number of classes, which its fingerprint need not depend on; added to
            the settings. None if nothing is asked.
        data_fingerprint: Digest that changes with the images; None if there are none.
    """
    packages = ("db3kd", "torch", "numpy")
    entries = plain(settings)
    if classes is not None:
        entries[CLASSES] = classes
    return {
        "seed": seed,
        "settings": entries,
        "teacher": teacher_fingerprint,
        "data": data_fingerprint,
        "versions": {package: _version(package) for package in packages}
        | {"python": platform.python_version()},
        "platform": f"{platform.system()} {platform.machine()}",
    }


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a manifest as JSON; the file appears whole or not at all."""
    write_atomically(path, json_bytes(plain(content)))


def read_manifest(path: str | Path, format: str | None = None) -> dict[str, Any]:
    """Reads the manifest of a run folder.

    Args:
        path: Run folder.
        format: Expected format; None accepts any.

    Raises:
        FileNotFoundError: If the folder has no manifest.
        ValueError: If the manifest is damaged or has another format.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise InputNotFoundError(f"{path}: expected a run folder, got a folder without {MANIFEST}")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file}: expected JSON, got a damaged file ({error})") from error
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(found, str):
        raise InputError(f"{file}: expected the manifest of a run of db3kd, got another JSON file")
    if format not in (None, found):
        raise InputError(f"{path}: {_wrong_format(content, found, str(format))}")
    return content


def time_now() -> str:
    """Returns the time in UTC, to the second, as manifests have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def dates_of_run(manifest: Mapping[str, Any]) -> str:
    """Returns when a run was started and finished: `2026-03-01 09:30 to 2026-03-02 10:00 (UTC)`."""
    times = [manifest["started"], manifest.get("finished")]
    shown = [str(each)[:16].replace("T", " ") for each in times if each is not None]
    return f"{' to '.join(shown)} (UTC)"


def is_finished(path: str | Path) -> bool:
    """Returns whether the folder holds a run whose manifest says that it is finished."""
    return (Path(path) / MANIFEST).is_file() and read_manifest(path).get("state") == "finished"


def identity(content: Mapping[str, Any], apart_from: Sequence[str] = ()) -> str:
    """Returns a text that identifies the run of a manifest, without the entries `apart_from`."""
    entries = dict(entries_of(plain(content)))
    return json.dumps(
        {name: value for name, value in entries.items() if name not in apart_from}, sort_keys=True
    )


def check_state(path: str | Path, content: Mapping[str, Any], kind: Kind) -> None:
    """Checks the entries that readers of a run folder rely on.

    Args:
        path: The run folder, for the error.
        content: Its manifest.
        kind: What it holds.

    Raises:
        ValueError: If an entry is missing or invalid.
    """
    file = Path(path) / MANIFEST
    state, totals = content.get("state"), content.get("totals")
    if state not in ("running", "finished"):
        raise InputError(f"{file}: entry state: expected 'running' or 'finished', got {state!r}")
    if not isinstance(content.get("started"), str):
        raise InputError(f"{file}: entry started: expected a time, got {content.get('started')!r}")
    if not isinstance(content.get("settings", {}), Mapping):
        raise InputError(f"{file}: entry settings: expected a mapping")
    if state == "finished" and not isinstance(totals, Mapping):
        raise InputError(f"{file}: entry totals: expected the totals of a finished run, got none")
    for name in ("samples", "queries"):
        value = (totals or {}).get(name, 0) if state == "finished" else 0
        if type(value) is not int or value < 0:
            raise InputError(f"{file}: entry totals.{name}: expected a count, got {value!r}")
    for name, counts in {**_LISTS, **kind.lists}.items():
        entries = content.get(name, [])
        if not isinstance(entries, list) or not all(
            isinstance(entry, Mapping)
            and all(type(entry.get(key)) is int and entry[key] >= 0 for key in counts)
            for entry in entries
        ):
            noun = "count" if len(counts) == 1 else "counts"
            named = f" with the {noun} {' and '.join(counts)}" if counts else ""
            raise InputError(f"{file}: entry {name}: expected a list of entries{named}")


def queries_in_flight(manifest: Mapping[str, Any]) -> int:
    """Returns how many queries of a run were sent without a usable answer.

    They were in flight when the run stopped, when its teacher failed or when a worker died, or a
    teacher behind a network sent them again. At most this many were paid twice. Totals count them
    once.
    """
    ends = (*manifest.get("resumed", ()), *manifest.get("lost_workers", ()))
    repeated = sum(entry["queries"] for entry in manifest.get(LOST, ()))
    return repeated + sum(end["queries_in_flight"] for end in ends)


def with_current_teacher(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a manifest with the fingerprint and the class names of the current teacher.

    The run may have begun with another one; see `CHANGED_TEACHERS`.
    """
    current = dict(content)
    if changes := content.get(CHANGED_TEACHERS):
        current["teacher"] = changes[-1]["teacher"]
        current["settings"] = {**content["settings"], CLASS_NAMES: changes[-1][CLASS_NAMES]}
    return current


def current_names(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Returns the current class names of a run, if its classes have names."""
    names = with_current_teacher(content)["settings"].get(CLASS_NAMES)
    return None if names is None else tuple(names)


def plain(value: Any) -> Any:
    """Returns `value` as JSON types, without absolute paths and non-finite numbers.

    NumPy's numbers become Python's, and arrays and tensors become digests of their values.
    """
    match value:
        case np.floating():
            return plain(float(value))
        case np.generic():
            item = value.item()
            return str(item) if isinstance(item, np.generic) else plain(item)
        case np.ndarray() if value.dtype.hasobject:
            return plain(value.tolist())
        case np.ndarray() | Tensor():
            return _digest(value)
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


def _digest(values: np.ndarray | Tensor) -> str:
    """Returns a digest, because the text of a large array leaves most of its values out."""
    digest = hashlib.sha256(f"{values.dtype} {list(values.shape)}\n".encode())
    digest.update(tensor_bytes(values) if isinstance(values, Tensor) else values.tobytes())
    return digest.hexdigest()


def _plain_item(key: str, value: Any) -> Any:
    """Keeps class names unchanged: a name such as `/m/01g317` looks like a path."""
    if key == CLASS_NAMES and value is not None:
        return [str(name) for name in value]
    return plain(value)


def entries_of(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields dotted names and values of the entries that identify a run."""
    for key in IDENTITY:
        yield from _flat(key, content.get(key))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    else:
        yield name, value


def _wrong_format(content: Mapping[str, Any], found: str, expected: str) -> str:
    """Describes a run of another kind, or of another version of the same kind."""
    if found.rpartition(" ")[0] != expected.rpartition(" ")[0]:
        return f"expected {describe_format(expected)}, got {describe_format(found)}"
    versions = content.get("versions")
    version = versions.get("db3kd") if isinstance(versions, Mapping) else None
    known = isinstance(version, str) and version != __version__
    writer = f"db3kd {version}" if known else "another version of db3kd"
    return (
        f"expected format {expected!r}, got {found!r}, written by {writer}; use that version, or "
        "start another run in another folder"
    )


def _version(package: str) -> str:
    if package == "db3kd":
        return __version__  # the installed metadata may be older, in an editable installation
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
