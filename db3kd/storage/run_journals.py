"""The journals of a run: one for each shard that is being made, and one for each earlier stage."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from db3kd.storage.filesystem import truncate
from db3kd.storage.journal import Journal
from db3kd.storage.journal_format import Contents, holds_answers, read_journal
from db3kd.storage.kinds import Kind
from db3kd.storage.lost_queries import count_lost
from db3kd.storage.manifest import identity, read_manifest
from db3kd.storage.shards import read_shards

CHECKS = "_check-"
"""Prefix of the names of check journals. Checks repeat known queries, so these are not counted as
answers of a run."""


@dataclass(frozen=True)
class Journals:
    """The journals of a run, for the process that holds its folder and for its workers.

    Attributes:
        folder: Run folder.
        kind: What the run holds.
        run: Identifies the run; see `identity`.
        started: Time at which the run was started.
    """

    folder: Path
    kind: Kind
    run: str
    started: str

    def open(self, of: int | str, classes: int) -> Journal:
        """Opens the journal of the search that makes a shard, or of an earlier stage.

        The journal of a shard is deleted when the shard is committed; that of a stage is kept.

        Args:
            of: Position of the shard, or name of the stage.
            classes: Number of classes of the teacher.
        """
        file = self.file(of)
        begins_run = not self.kind.shards(self.folder) and not any(map(holds_answers, self.files()))
        return Journal(file, classes, _journal_identity(file, self.run), begins_run=begins_run)

    def file(self, of: int | str) -> Path:
        """Returns the file of the journal of a shard or stage."""
        name = of if isinstance(of, str) else self.kind.shard_prefix(of)
        return self.folder / f"_{name}.journal"

    def within_reach(self) -> bool:
        """Returns whether this process can access the run folder; another machine may not."""
        try:
            manifest = read_manifest(self.folder, self.kind.format)
        except (OSError, ValueError):
            return False
        return (identity(manifest), manifest["started"]) == (self.run, self.started)

    def files(self) -> list[Path]:
        """Returns the files of all journals."""
        return sorted(self.folder.glob("*.journal"))

    def read(self, file: Path) -> Contents:
        """Reads one of the files."""
        return read_journal(file, _journal_identity(file, self.run))

    def answers_in(self, file: Path) -> np.ndarray:
        """Returns the answers in one of the files, [n] int64, in the order of the queries."""
        answers = [call.answers for call in self.read(file).calls]
        return np.concatenate(answers or [np.empty(0)]).astype(np.int64)


def queries_unanswered(path: str | Path) -> int:
    """Returns how many queries have no answer since a run ended, and may have been paid for.

    They are sent again when the run is resumed.

    Args:
        path: Run folder; one without a run has none.

    Raises:
        ValueError: If the manifest or a journal is damaged.
    """
    return sum(found.in_flight for found in _read_all(Path(path)).values())


def queries_without_answer(path: str | Path) -> int:
    """Returns how many queries may have been paid for without an answer since a run was opened.

    These are the unanswered queries, and those that a teacher behind a network has sent again. The
    manifest counts those of earlier processes; see `queries_in_flight`.

    Args:
        path: Run folder; one without a run has none.

    Raises:
        ValueError: If the manifest, a journal, or a file of lost queries is damaged.
    """
    return queries_unanswered(path) + count_lost(Path(path))


def journaled_answers(path: str | Path) -> int:
    """Returns the number of answers in the journals of a run, without those of checks.

    The journal of a shard is deleted after the shard is written, so it is not counted if both are
    there; those of stages are kept.

    Args:
        path: Run folder; one without a run has none.

    Raises:
        ValueError: If the manifest or a journal is damaged.
    """
    return sum(_answers_by_journal(Path(path)).values())


def answers_in_stage(path: str | Path, kind: Kind, of: int | str) -> np.ndarray:
    """Returns the answers in a journal of a stored run, [n] int64; none without a run.

    Args:
        path: Run folder.
        kind: What it must hold.
        of: See `Journals.open`.

    Raises:
        ValueError: If the run is of another kind, or its manifest or the journal is damaged.
    """
    try:
        manifest = read_manifest(path, kind.format)
    except FileNotFoundError:
        return np.empty(0, np.int64)
    journals = Journals(Path(path).absolute(), kind, identity(manifest), manifest["started"])
    return journals.answers_in(journals.file(of))


def count_answers(path: str | Path, kind: Kind, *, first: int = 0) -> int:
    """Returns the number of answers of a run whose shards hold one in each row, without checks.

    Args:
        path: Run folder, without its subfolders; one without a run has none.
        kind: What it must hold.
        first: Position from which on shards, and their journals, are counted. The journals of
            stages are counted only if it is 0.

    Raises:
        ValueError: If the run is of another kind, or it is damaged.
    """
    shards = read_shards(path, kind, missing_ok=True)
    stored = sum(len(table) for position, table in shards if position >= first)
    shard, earliest = f"_{kind.name}-", f"_{kind.shard_prefix(first)}"
    return stored + sum(
        answers
        for name, answers in _answers_by_journal(Path(path)).items()
        if not first or (name.startswith(shard) and name >= earliest)
    )


def discard_unanswered(file: Path, found: Contents) -> None:
    """Removes the unanswered queries from a journal, after they were recorded elsewhere."""
    if found.end:
        truncate(file, found.end)
    else:
        file.unlink(missing_ok=True)


def _read_all(path: Path) -> dict[Path, Contents]:
    try:
        run = identity(read_manifest(path))
    except FileNotFoundError:
        return {}
    files = path.glob("*.journal")
    return {file: read_journal(file, _journal_identity(file, run)) for file in files}


def _answers_by_journal(path: Path) -> dict[str, int]:
    """Returns the numbers that `journaled_answers` adds up, by the names of the journals."""
    return {
        file.stem: sum(len(call.answers) for call in found.calls)
        for file, found in _read_all(path).items()
        if not file.name.startswith(CHECKS)
        and not any(path.glob(f"{file.stem.removeprefix('_')}-*.parquet"))
    }


def _journal_identity(file: Path, run: str) -> str:
    """Returns what distinguishes a journal from those of other searches and runs."""
    return f"{file.stem} {run}"
