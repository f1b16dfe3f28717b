"""Shards: Parquet files whose names hold their place in a run and the checksum of their bytes."""

import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db3kd.storage.manifest import check_state, identity, read_manifest

if TYPE_CHECKING:
    import pyarrow

_PLACE = b"db3kd"
"""Key of a shard's metadata: the run and the position that it was written for."""

_NAMES = ("settings.source.data", "settings.teacher")
"""What things are called tells no run from others; their fingerprints do."""

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

    def shard_prefix(self, position: int) -> str:
        """How the names of a shard's files begin."""
        return f"{self.name}-{position:010d}"

    def shard_name(self, position: int, content: bytes) -> str:
        return f"{self.shard_prefix(position)}-{zlib.crc32(content):08x}.parquet"

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


def read_shards(path: str | Path, kind: Kind) -> Iterator[tuple[int, "pyarrow.Table"]]:
    """The shards of a run and their positions, one by one, in the run's order.

    Raises:
        FileNotFoundError: the folder holds no run, or no shard yet.
        ValueError: the run is of another kind, a shard is damaged, or one is missing from a
            finished run.
    """
    content = read_manifest(path, kind.format)
    check_state(path, content)
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
        table = read_shard(file, place_of(content, position))
        rows += len(table)
        yield position, table
    if finished and rows != content["totals"].get("samples", rows):
        raise _missing(path, rows)


def place_of(manifest: Mapping[str, Any], position: int) -> bytes:
    """What tells a shard from those of other runs, and of other places in its run."""
    run = hashlib.sha256(identity(manifest, _NAMES).encode()).hexdigest()[:16]
    return f"{run} {position}".encode()


def marked(table: "pyarrow.Table", place: bytes) -> "pyarrow.Table":
    """The table, which says where it belongs; see `place_of`."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _PLACE: place})


def read_shard(file: Path, place: bytes) -> "pyarrow.Table":
    """One shard, whole and as it was written.

    place: where it belongs; see `place_of`.

    Raises:
        ValueError: it is damaged, or belongs elsewhere.
    """
    arrow, parquet = import_pyarrow()
    content = checked_bytes(file)
    try:
        table = parquet.ParquetFile(arrow.BufferReader(content)).read()
        table.validate(full=True)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{file}: expected a Parquet file: {error}") from error
    found = (table.schema.metadata or {}).get(_PLACE)
    if found != place:
        raise ValueError(
            f"{file}: a shard of another run, or of another place in this one; remove it and "
            "resume the run to have its samples again"
        )
    return table


def checked_bytes(file: Path) -> bytes:
    """The bytes of a shard's file.

    Raises:
        ValueError: they are not those that were written.
    """
    content = file.read_bytes()
    written, found = file.stem.rpartition("-")[2], f"{zlib.crc32(content):08x}"
    if written != found:
        raise ValueError(
            f"{file}: damaged: its checksum is {found}, expected {written}; remove it and resume "
            "resume the run to have its samples again"
        )
    return content


def read_columns(content: bytes) -> dict[str, str]:
    """The columns in the bytes of a shard, and their types."""
    arrow, parquet = import_pyarrow()
    schema = parquet.read_schema(arrow.BufferReader(content))
    return {name: str(schema.field(name).type) for name in schema.names}


def import_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet, imported late: what is not written to disk needs neither."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('runs on disk need pyarrow: pip install "db3kd[cli]"') from error
    return pyarrow, pyarrow.parquet


def to_parquet(table: "pyarrow.Table") -> bytes:
    """The bytes of a table's file."""
    arrow, parquet = import_pyarrow()
    sink = arrow.BufferOutputStream()
    parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _missing(path: str | Path, position: int) -> ValueError:
    return ValueError(
        f"{path}: expected a shard at {position} of this finished run, found none; resume the run "
        "to have its samples again"
    )
