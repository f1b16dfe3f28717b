"""Label runs on disk: a folder of Parquet shards and a manifest that says where they come from.

    run/manifest.json               settings, seed, versions, fingerprints, totals
    run/labels-0000000000.parquet   one shard, named by the position of its first sample
    run/labels-0000000512.parquet   …

A shard appears whole or not at all, so what a run has paid for outlives its process. Anything that
reads Parquet reads it; the columns are those of `Labels`, with each snapshot in a column of its own
(`distances_at_1000`). Reading and writing need pyarrow.
"""

import dataclasses
import enum
import importlib.metadata
import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pyarrow

FORMAT = "db3kd labels 1"
STATUSES = ("ok", "partly reached", "unreached", "budget")

_MANIFEST = "manifest.json"
_SHARDS = "labels-*.parquet"
_SNAPSHOT = re.compile(r"distances_at_(\d+)")


@dataclass(frozen=True)
class Labels:
    """What a run has learnt of n samples against C classes.

    Attributes:
        index: [n] int64, each sample's index in its data set.
        decision: [n] int64, the teacher's class for the sample: its own class.
        distances: [n, C] float32, L2 in input units; +inf where a class was not reached. The own
            column means nothing.
        queries: [n, C] int64, queries spent per class; the own column holds those of the sample's
            own decision.
        status: [n] of `STATUSES`: "ok" (every class reached), "partly reached", "unreached" (none
            reached), "budget" (a budget ended the search).
        label: [n] int64, the data set's own class, -1 where it has none; or None.
        snapshots: distances as above, by the number of queries per class they had cost.
        soft_labels: [n, C] float32, rows sum to 1; or None.

    Raises:
        ValueError: a shape, dtype or status is not as above.
    """

    index: Tensor
    decision: Tensor
    distances: Tensor
    queries: Tensor
    status: list[str]
    label: Tensor | None = None
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    soft_labels: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.index)
        classes = self.distances.shape[-1] if self.distances.ndim == 2 else "C"
        _check("index", self.index, (n,), torch.int64)
        _check("decision", self.decision, (n,), torch.int64)
        _check("distances", self.distances, (n, classes), torch.float32)
        _check("queries", self.queries, (n, classes), torch.int64)
        if self.label is not None:
            _check("label", self.label, (n,), torch.int64)
        for count, distances in self.snapshots.items():
            _check(f"snapshots[{count}]", distances, (n, classes), torch.float32)
        if self.soft_labels is not None:
            _check("soft_labels", self.soft_labels, (n, classes), torch.float32)
        if len(self.status) != n or not set(self.status) <= set(STATUSES):
            raise ValueError(
                f"status: expected {n} of {STATUSES}, got {len(self.status)}: "
                f"{sorted(set(self.status))}"
            )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def classes(self) -> int:
        return self.distances.shape[1]

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """One `Labels` of all parts, in their order.

        Raises:
            ValueError: there are no parts, or they differ in classes or in what they hold.
        """
        if not parts:
            raise ValueError("parts: expected at least one Labels, got none")
        first = parts[0]
        for part in parts[1:]:
            if part._layout() != first._layout():
                raise ValueError(
                    f"parts: expected {first._layout()} in every part, got {part._layout()}"
                )

        def join(tensors: list[Tensor | None]) -> Tensor | None:
            return None if tensors[0] is None else torch.cat(tensors)

        return cls(
            index=join([part.index for part in parts]),
            decision=join([part.decision for part in parts]),
            distances=join([part.distances for part in parts]),
            queries=join([part.queries for part in parts]),
            status=[status for part in parts for status in part.status],
            label=join([part.label for part in parts]),
            snapshots={
                count: join([part.snapshots[count] for part in parts]) for count in first.snapshots
            },
            soft_labels=join([part.soft_labels for part in parts]),
        )

    def _layout(self) -> str:
        """What must agree for two `Labels` to lie in one run."""
        return (
            f"{self.classes} classes, {'a' if self.label is not None else 'no'} label, "
            f"snapshots at {sorted(self.snapshots)}, "
            f"{'with' if self.soft_labels is not None else 'without'} soft labels"
        )


def _check(name: str, tensor: Tensor, shape: tuple[int | str, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        wanted = ", ".join(map(str, shape))
        raise ValueError(
            f"{name}: expected [{wanted}] {dtype}, got {list(tensor.shape)} {tensor.dtype}"
        )


def manifest(
    settings: object,
    *,
    seed: int,
    teacher_fingerprint: str,
    data_fingerprint: str,
) -> dict[str, Any]:
    """What one needs to know to repeat a run, ready for `RunFolder.create`.

    Nothing is taken from the environment but versions; an absolute path among the settings
    keeps only its file name. Secrets do not belong into the settings.

    Args:
        settings: a mapping or a dataclass of plain values.
        seed: the run's seed.
        teacher_fingerprint: a digest that changes with the teacher.
        data_fingerprint: a digest that changes with the images.
    """
    packages = ("db3kd", "torch", "numpy")
    return {
        "seed": seed,
        "settings": _plain(settings),
        "teacher": teacher_fingerprint,
        "data": data_fingerprint,
        "versions": {package: _version(package) for package in packages}
        | {"python": platform.python_version()},
        "platform": f"{platform.system()} {platform.machine()}",
    }


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Writes what `manifest` made, and what has come of the run, as JSON; whole or not at all."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False) + "\n"
    _write_atomically(path, lambda file: file.write(text.encode()))


def check_free(path: str | Path) -> None:
    """Raises FileExistsError where no run can be written: a file, or a folder with files."""
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(
            f"{path}: expected a new or an empty folder for the label run, got "
            f"{'a folder with files' if path.is_dir() else 'a file'}; choose another, or remove it"
        )


class RunFolder:
    """Writes one label run. It keeps no shard in memory, however many are written.

    As a context manager it takes itself away again where an error ends it before its first shard,
    so that the same run can be tried again.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], made: bool) -> None:
        self.path = path
        self._manifest = manifest
        self._made = made
        self._layout: str | None = None

    @classmethod
    def create(cls, path: str | Path, manifest: Mapping[str, Any]) -> Self:
        """Makes the folder, with its parents, and writes the manifest.

        Raises:
            FileExistsError: as `check_free`.
        """
        check_free(path)
        path = Path(path)
        made = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        _sync_folder(path.parent)
        head = {"format": FORMAT, "state": "running", "started": _now()}
        run = cls(path, head | _plain(manifest), made)
        run._write_manifest()
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or self._layout is not None:
            return
        with suppress(OSError):  # the error that ended the run is the one to hear of
            (self.path / _MANIFEST).unlink()
            if self._made:
                self.path.rmdir()

    def write_shard(self, first_index: int, labels: Labels) -> Path:
        """Commits a shard: once this returns it outlives a crash; before, there is none.

        Args:
            first_index: position in the run of the shard's first sample; names the file, so
                shards are read in this order.
            labels: the shard, of the same layout as the run's other shards.

        Raises:
            FileExistsError: the run has a shard at `first_index`.
            ValueError: the layout differs from the run's first shard.
        """
        layout = labels._layout()
        if self._layout not in (None, layout):
            raise ValueError(f"labels: expected {self._layout} as in the first shard, got {layout}")
        path = self.path / f"labels-{first_index:010d}.parquet"
        if path.exists():
            raise FileExistsError(f"{path.name}: this run has a shard at {first_index} already")
        table = _to_table(labels)
        _, parquet = _import_pyarrow()
        _write_atomically(path, lambda file: parquet.write_table(table, file))
        self._layout = layout
        return path

    def finish(self, totals: Mapping[str, Any]) -> None:
        """Writes the manifest again, with the run's totals (samples, queries, …)."""
        self._manifest |= {"state": "finished", "finished": _now(), "totals": _plain(totals)}
        self._write_manifest()

    def _write_manifest(self) -> None:
        write_manifest(self.path / _MANIFEST, self._manifest)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of the run folder at `path`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another format.
    """
    file = Path(path) / _MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{path}: expected a label run, found no {_MANIFEST}")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: expected JSON, got a damaged file ({error})") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"{file}: expected format {FORMAT!r}, got {found!r}")
    return content


def load_labels(path: str | Path) -> Labels:
    """All labels of the run folder at `path`, finished or not, in the run's order.

    Raises:
        FileNotFoundError, ValueError: as `read_manifest` and `iterate_shards`.
    """
    return Labels.concat(list(iterate_shards(path)))


def iterate_shards(path: str | Path) -> Iterator[Labels]:
    """The run's shards one by one, so that a reader's memory need not grow with the run.

    Raises:
        FileNotFoundError: the folder holds no label run, or no shard yet.
        ValueError: a shard is damaged or is not of this format.
    """
    read_manifest(path)
    files = sorted(Path(path).glob(_SHARDS))
    if not files:
        raise FileNotFoundError(f"{path}: expected at least one shard ({_SHARDS}), found none")
    for file in files:
        yield _read_shard(file)


def _to_table(labels: Labels) -> "pyarrow.Table":
    arrow, _ = _import_pyarrow()

    def rows(values: Tensor, kind: "pyarrow.DataType") -> "pyarrow.Array":
        flat = arrow.array(values.flatten().cpu().numpy()).cast(kind)
        return arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])

    label = torch.full_like(labels.index, -1) if labels.label is None else labels.label
    columns = {
        "index": arrow.array(labels.index.cpu().numpy()),
        "decision": arrow.array(labels.decision.cpu().numpy()).cast(arrow.int32()),
        "label": arrow.array(label.cpu().numpy()).cast(arrow.int32()),
        "status": arrow.array(labels.status, arrow.string()),
        "queries": rows(labels.queries, arrow.int32()),
        "distances": rows(labels.distances, arrow.float32()),
    }
    for count, distances in sorted(labels.snapshots.items()):
        columns[f"distances_at_{count}"] = rows(distances, arrow.float32())
    if labels.soft_labels is not None:
        columns["soft_label"] = rows(labels.soft_labels, arrow.float32())
    return arrow.table(columns)


def _read_shard(file: Path) -> Labels:
    arrow, parquet = _import_pyarrow()
    try:
        table = parquet.ParquetFile(file).read()
        return _from_table(table)
    except (arrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{file}: not a shard of {FORMAT!r}, or a damaged one: {error}") from error


def _from_table(table: "pyarrow.Table") -> Labels:
    def column(name: str, dtype: torch.dtype) -> Tensor:
        array = table.column(name).combine_chunks()
        width = getattr(array.type, "list_size", None)
        flat = array if width is None else array.flatten()
        values = torch.tensor(flat.to_numpy(zero_copy_only=False)).to(dtype)
        return values if width is None else values.reshape(-1, width)

    snapshots = (_SNAPSHOT.fullmatch(name) for name in table.column_names)
    return Labels(
        index=column("index", torch.int64),
        decision=column("decision", torch.int64),
        distances=column("distances", torch.float32),
        queries=column("queries", torch.int64),
        status=table.column("status").to_pylist(),
        label=column("label", torch.int64),
        snapshots={int(match[1]): column(match[0], torch.float32) for match in snapshots if match},
        soft_labels=column("soft_label", torch.float32)
        if "soft_label" in table.column_names
        else None,
    )


def _write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes beside `path` under a name no reader looks for, then puts it in place at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """A rename lasts only once its folder is on disk too. Windows has no way to ask for that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    """`value` in what JSON has: no paths of this machine, no numbers that JSON cannot say."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return Path(value).name if os.path.isabs(value) else value
        case float():
            return value if math.isfinite(value) else str(value)
        case enum.Enum():
            return _plain(value.value)
        case os.PathLike():
            return Path(value).name
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return str(value)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _import_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet, imported late: `Labels` alone needs neither."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('label runs on disk need pyarrow: pip install "db3kd[cli]"') from error
    return pyarrow, pyarrow.parquet
