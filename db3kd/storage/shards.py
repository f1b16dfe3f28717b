"""Shards: Parquet files named by their position in a run and the checksum of their bytes.

This module encodes, reads and checks shards. A `Kind` names them; `RunFolder.write_shard` writes
them.
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db3kd.errors import InputError, InputNotFoundError
from db3kd.extras import import_extra
from db3kd.storage.kinds import Kind
from db3kd.storage.manifest import NAMES, check_state, identity, read_manifest

if TYPE_CHECKING:
    import pyarrow

REPAIR = "remove it, and resume the run to make its rows again, which may cost their queries again"
"""Advice for a shard that cannot be used."""

_PLACE = b"db3kd"
"""Metadata key of the run and position that a shard was written for."""


def read_shards(
    path: str | Path, kind: Kind, *, missing_ok: bool = False
) -> Iterator[tuple[int, "pyarrow.Table"]]:
    """Yields the positions and shards of a run in order.

    Args:
        path: Run folder.
        kind: What it must hold.
        missing_ok: Whether shards may be missing, even all of them, or the run itself.

    Yields:
        The position of the first row, and the table of each shard.

    Raises:
        FileNotFoundError: If the folder holds no run, or no shard yet.
        ValueError: If the run is of another kind, a shard is damaged, or a finished run lacks one.
    """
    files = kind.shards(path)
    if missing_ok and not files:
        return
    content = read_manifest(path, kind.format)
    check_state(path, content, kind)
    if not files:
        raise InputNotFoundError(
            f"{path}: expected at least one shard ({kind.name}-*.parquet), got none"
        )
    complete = content.get("state") == "finished" and not missing_ok
    rows = 0
    for position, file in files.items():
        if complete and position != rows:
            raise _missing(path, rows)
        table = read_shard(file, place_of(content, position))
        rows += len(table)
        yield position, table
    if complete and rows != content["totals"].get("samples", rows):
        raise _missing(path, rows)


def place_of(manifest: Mapping[str, Any], position: int) -> bytes:
    """Returns what identifies a shard: its run and its position."""
    run = hashlib.sha256(identity(manifest, NAMES).encode()).hexdigest()[:16]
    return f"{run} {position}".encode()


def marked(table: "pyarrow.Table", place: bytes) -> "pyarrow.Table":
    """Returns the table with its place (see `place_of`) in the metadata."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _PLACE: place})


def read_shard(file: Path, place: bytes) -> "pyarrow.Table":
    """Reads one shard.

    Args:
        file: File of the shard.
        place: The place it must have; see `place_of`.

    Raises:
        ValueError: If the shard is damaged, or belongs to another place.
    """
    table = parse_parquet(file, checked_bytes(file))
    found = (table.schema.metadata or {}).get(_PLACE)
    if found != place:
        raise InputError(f"{file}: is a shard of another run or position; {REPAIR}")
    return table


def parse_parquet(file: Path, content: bytes, what: str = "a Parquet file") -> "pyarrow.Table":
    """Returns the table in the bytes of a Parquet file.

    Raises:
        ValueError: If the bytes are no valid Parquet file; the error names `file` and `what`.
    """
    arrow, parquet = import_pyarrow()
    try:
        # Threads of pyarrow that have just started can abort a process that ends meanwhile.
        table = parquet.ParquetFile(arrow.BufferReader(content)).read(use_threads=False)
        table.validate(full=True)
    except (arrow.ArrowException, OSError) as error:
        raise InputError(f"{file}: expected {what}: {error}") from error
    return table


def checked_bytes(file: Path) -> bytes:
    """Reads the bytes of a shard and verifies their checksum.

    Raises:
        ValueError: If the bytes changed since they were written.
    """
    content = file.read_bytes()
    written, found = file.stem.rpartition("-")[2], f"{zlib.crc32(content):08x}"
    if written != found:
        raise InputError(f"{file}: is damaged: expected checksum {written}, got {found}; {REPAIR}")
    return content


def read_columns(content: bytes) -> dict[str, str]:
    """Returns the columns of a shard and their types."""
    arrow, parquet = import_pyarrow()
    schema = parquet.read_schema(arrow.BufferReader(content))
    return {name: str(schema.field(name).type) for name in schema.names}


def import_pyarrow() -> tuple[Any, Any]:
    """Imports pyarrow and pyarrow.parquet, which only runs on disk need."""
    names = ("pyarrow", "pyarrow.parquet")
    pyarrow, parquet = (import_extra(name, "cli", "a run on disk") for name in names)
    return pyarrow, parquet


def to_parquet(table: "pyarrow.Table") -> bytes:
    """Returns a table as the bytes of a Parquet file."""
    arrow, parquet = import_pyarrow()
    sink = arrow.BufferOutputStream()
    parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _missing(path: str | Path, position: int) -> ValueError:
    return InputError(
        f"{path}: expected a shard at {position} of this finished run, got none; resume the run to "
        "make its rows again"
    )
