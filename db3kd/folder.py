"""Run folders: Parquet shards beside a manifest that says where they come from.

    run/manifest.json                        settings, seed, versions, fingerprints, totals
    run/labels-0000000000-7f3a90c2.parquet   one shard, named by the position of its first row and
    run/labels-0000000512-01b4e65d.parquet   the CRC-32 of its bytes
    …

What a run holds, labels or pseudo samples, is its `Kind`; its columns are its owner's business. A
shard appears whole or not at all, and a byte that changes in it later is noticed. One process at a
time writes a folder. Shards need pyarrow.
"""

import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from db3kd.disk import FolderLock, is_leftover, sync_folder, write_atomically
from db3kd.manifest import MANIFEST, plain, read_manifest, write_manifest

if TYPE_CHECKING:
    import pyarrow

_SHARD = re.compile(r"-(\d{10})-([0-9a-f]{8})\.parquet")


@dataclass(frozen=True)
class Kind:
    """What a run folder holds.

    name: plural, in the format and in the names of the shards. version: of its columns.
    """

    name: str
    version: int

    @property
    def format(self) -> str:
        """What the manifest says."""
        return f"db3kd {self.name} {self.version}"

    def shard_name(self, position: int, content: bytes) -> str:
        return f"{self.name}-{position:010d}-{zlib.crc32(content):08x}.parquet"

    def shards(self, folder: str | Path) -> dict[int, Path]:
        """The shards in a folder by position, in ascending order.

        Raises:
            ValueError: two lie at one position.
        """
        files: dict[int, Path] = {}
        for file in sorted(Path(folder).glob(f"{self.name}-*.parquet")):
            match = _SHARD.fullmatch(file.name.removeprefix(self.name))
            if match is None:
                continue
            position = int(match[1])
            if position in files:
                raise ValueError(
                    f"{folder}: expected one shard at {position}, found {files[position].name} and "
                    f"{file.name}; keep the one that this run wrote"
                )
            files[position] = file
        return files


def check_free(path: str | Path) -> None:
    """Raises FileExistsError where no run can be begun: a file, or a folder with files."""
    path = Path(path)
    if path.is_dir():
        found = [file.name for file in path.iterdir() if not is_leftover(file)]
    elif path.exists():
        raise FileExistsError(f"{path}: expected a new or an empty folder for the run, got a file")
    else:
        return
    if MANIFEST in found:
        raise FileExistsError(f"{path}: holds a run already; choose another folder, or remove it")
    if found:
        raise FileExistsError(
            f"{path}: expected a new or an empty folder for the run, got a folder with files; "
            "choose another, or remove it"
        )


class RunFolder:
    """Writes one run. It keeps no shard in memory, however many are written.

    Holds the folder's lock until closed. As a context manager it takes itself away again where an
    error ends it before anything was paid for, so that the same run can be tried again.
    """

    def __init__(
        self, path: Path, kind: Kind, manifest: dict[str, Any], lock: FolderLock, made: bool
    ) -> None:
        self.path = path
        self.kind = kind
        self.manifest = manifest
        self._lock = lock
        self._made = made
        self._shards = kind.shards(path)
        self._schema: pyarrow.Schema | None = None

    @classmethod
    def create(cls, path: str | Path, kind: Kind, manifest: Mapping[str, Any]) -> Self:
        """Makes the folder, with its parents, and writes the manifest.

        Raises:
            FileExistsError: as `check_free`.
            BlockingIOError: another process is writing it.
        """
        path = Path(path)
        made = not path.exists()
        check_free(path)
        path.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent)
        lock = FolderLock(path)
        try:
            check_free(path)
            head = {"format": kind.format, "state": "running", "started": _now()}
            run = cls(path, kind, head | plain(manifest), lock, made)
            run._write_manifest()
        except BaseException:
            lock.release()
            raise
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._holds_anything():
            with suppress(OSError):  # the error that ended the run is the one to hear of
                (self.path / MANIFEST).unlink()
        self.close()
        if kind is not None and self._made:
            with suppress(OSError):  # what it holds stays
                self.path.rmdir()

    def close(self) -> None:
        """Lets other processes write the folder."""
        self._lock.release()

    def has_shard(self, position: int) -> bool:
        return position in self._shards

    def write_shard(self, position: int, table: "pyarrow.Table") -> Path:
        """Commits a shard: once this returns it outlives a crash; before, there is none.

        Args:
            position: in the run, of the shard's first row; shards are read in this order.
            table: the shard, with the columns of the run's other shards.

        Raises:
            FileExistsError: the run has a shard at `position`.
            ValueError: the columns differ from those of the run's first shard.
            OSError: the disk is full or may not be written; what was committed before stays.
        """
        if position in self._shards:
            raise FileExistsError(f"{self.path}: this run has a shard at {position} already")
        self._check_columns(table.schema)
        content = _to_parquet(table)
        file = self.path / self.kind.shard_name(position, content)
        write_atomically(file, content)
        self._shards[position] = file
        self._schema = table.schema
        return file

    def finish(self, totals: Mapping[str, Any]) -> None:
        """Writes the manifest again, with the run's totals: `samples`, its rows, and others."""
        self.manifest |= {"state": "finished", "finished": _now(), "totals": plain(totals)}
        self._write_manifest()

    def _holds_anything(self) -> bool:
        return bool(self._shards)

    def _check_columns(self, schema: "pyarrow.Schema") -> None:
        if not self._shards:
            return
        if self._schema is None:
            self._schema = read_shard(next(iter(self._shards.values()))).schema
        wrong = [
            f"{name}: expected {_type(self._schema, name)}, got {_type(schema, name)}"
            for name in dict.fromkeys([*self._schema.names, *schema.names])
            if _type(self._schema, name) != _type(schema, name)
        ]
        if wrong:
            raise ValueError(f"shard: not of the columns of the others: {'; '.join(wrong)}")

    def _write_manifest(self) -> None:
        write_manifest(self.path / MANIFEST, self.manifest)


def read_shards(path: str | Path, kind: Kind) -> Iterator[tuple[int, "pyarrow.Table"]]:
    """The shards of a run and their positions, one by one, in the run's order.

    Raises:
        FileNotFoundError: the folder holds no run, or no shard yet.
        ValueError: the run is of another kind, a shard is damaged, or one is missing from a
            finished run.
    """
    content = read_manifest(path, kind.format)
    files = kind.shards(path)
    if not files:
        raise FileNotFoundError(
            f"{path}: expected at least one shard ({kind.name}-*.parquet), found none"
        )
    finished = content.get("state") == "finished"
    rows = 0
    for position, file in files.items():
        if finished and position != rows:
            raise _missing(path, rows)
        table = read_shard(file)
        rows += len(table)
        yield position, table
    if finished and rows != content["totals"].get("samples", rows):
        raise _missing(path, rows)


def read_shard(file: Path) -> "pyarrow.Table":
    """One shard, whole and as it was written.

    Raises:
        ValueError: it is damaged.
    """
    arrow, parquet = import_pyarrow()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: could not be read: {error}") from error
    written, found = file.stem.rpartition("-")[2], f"{zlib.crc32(content):08x}"
    if written != found:
        raise ValueError(
            f"{file}: damaged: its checksum is {found}, expected {written}; remove it and resume "
            "the run to have its samples again"
        )
    try:
        return parquet.ParquetFile(arrow.BufferReader(content)).read()
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{file}: expected a Parquet file: {error}") from error


def import_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet, imported late: what is not written to disk needs neither."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('runs on disk need pyarrow: pip install "db3kd[cli]"') from error
    return pyarrow, pyarrow.parquet


def _to_parquet(table: "pyarrow.Table") -> bytes:
    arrow, parquet = import_pyarrow()
    sink = arrow.BufferOutputStream()
    parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _type(schema: "pyarrow.Schema", name: str) -> str:
    return str(schema.field(name).type) if name in schema.names else "no such column"


def _missing(path: str | Path, position: int) -> ValueError:
    return ValueError(
        f"{path}: expected a shard at {position} of this finished run, found none; resume the run "
        "to have its samples again"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
