"""Where a value of a table is, for error messages: its file, its column and its row."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TableSource:
    """What error messages call a table, its columns and its rows.

    Rows in memory are counted from 0, as Python does, and rows in files from 1, as programs that
    show tables do.

    Attributes:
        name: The name of its file, or of its set of files; None for a table in memory.
        parts: The files that its rows come from, in order, and the number of rows of each.
    """

    name: str | None = None
    parts: Sequence[tuple[Path, int]] = ()

    def column(self, name: str) -> str:
        """Returns what messages call a column."""
        return f"column {name!r}" if self.name is None else f"{self.name}, column {name!r}"

    def row(self, row: int) -> str:
        """Returns what messages call a row.

        Args:
            row: Its number in the whole table, from 0.
        """
        for path, count in self.parts:
            if row < count:
                file = f" of {path}" if len(self.parts) > 1 else ""
                header = " without the header" if path.suffix == ".csv" else ""
                return f"row {row + 1:,}{file}, counted from 1{header}"
            row -= count
        return f"row {row}, counted from 0"


_MEMORY = TableSource()

_SOURCE: ContextVar[TableSource] = ContextVar("source", default=_MEMORY)


@contextmanager
def reading(source: TableSource) -> Iterator[None]:
    """Lets the errors of the calls inside name the files that a table was read from.

    Args:
        source: The files.
    """
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Lets errors name a table in memory, unless it is known which files it was read from.

    Args:
        name: What messages call the table.
    """
    source = _SOURCE.get()
    with reading(TableSource(name) if source is _MEMORY else source):
        yield


def table_named(name: str) -> str:
    """Returns what messages call the table that is read, which has this name in memory."""
    return _SOURCE.get().name or name


def in_files() -> bool:
    """Returns whether the table that is read comes from files."""
    return bool(_SOURCE.get().parts)


def column_named(name: str) -> str:
    """Returns what messages call a column of the table that is read."""
    return _SOURCE.get().column(name)


def row_numbered(row: int) -> str:
    """Returns what messages call a row of the table that is read, whose number counts from 0."""
    return _SOURCE.get().row(row)
