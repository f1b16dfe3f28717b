"""Run folders: Parquet shards and a manifest that records how they were made.

    run/_manifest.json                       settings, seed, versions, fingerprints, totals
    run/labels-0000000000-7f3a90c2.parquet   a shard, named by the position of its first row and the
    run/labels-0000000512-01b4e65d.parquet   CRC-32 of its bytes
    …
    run/_labels-0000001024.journal           answers paid for towards the next shard
    run/_decisions.journal                   answers of a stage that all shards depend on

Readers of Parquet folders skip names that begin with "_" or ".", so they see a table. The `Kind` of
a run defines what it holds, for example labels; storage does not know the columns.

A shard appears whole or not at all, and later changes to its bytes are detected. One process at a
time writes a folder; its workers may write journals there, one per shard, while they hold a
`SharedLock`. A shard is on disk before its journal is deleted, and what a killed process left is
removed when the run is reopened. A kill therefore loses no answer except those in flight, and none
is stored twice. Shards need pyarrow.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from db3kd.errors import ArgumentError, InputError, OutputExistsError
from db3kd.storage.choice_log import choice_files
from db3kd.storage.existing_runs import check_free, holds_run
from db3kd.storage.filesystem import (
    LOCKS,
    FolderLock,
    is_leftover,
    sync_folder,
    wait_for_workers,
    write_atomically,
)
from db3kd.storage.journal import Journal
from db3kd.storage.journal_format import holds_answers
from db3kd.storage.kinds import Kind
from db3kd.storage.lost_queries import (
    add_lost,
    lost_file,
    lost_files,
    note_lost,
    remove_lost,
    take_over_lost,
)
from db3kd.storage.manifest import (
    CLASSES,
    MANIFEST,
    identity,
    plain,
    queries_in_flight,
    read_manifest,
    time_now,
    write_manifest,
)
from db3kd.storage.run_comparison import ExpectedRun, compare_with_run
from db3kd.storage.run_journals import (
    Journals,
    discard_unanswered,
    queries_without_answer,
)
from db3kd.storage.shards import (
    checked_bytes,
    import_pyarrow,
    marked,
    place_of,
    read_columns,
    read_shard,
    to_parquet,
)

if TYPE_CHECKING:
    import pyarrow


class RunFolder:
    """Writes one run, without keeping shards in memory.

    It holds the lock of the folder until it is closed. As a context manager it removes the run if
    an error occurs before anything was paid for, so that the same command can be repeated. If it is
    a part of the run in the parent folder, that run counts the queries whose answers are missing.

    Example:
        >>> with RunFolder.open(path, KIND, make_manifest(...), resume=True) as run:
        ...     for position in range(0, samples, samples_per_shard):
        ...         if not run.has_shard(position):
        ...             with run.journal(position, teacher.classes) as journal:
        ...                 table = search_chunk(position, journal)
        ...             run.write_shard(position, table)
        ...     run.finish(totals)

    Attributes:
        path: The absolute path of the run folder, because a teacher may change the working
            directory.
        kind: What the run holds.
        manifest: Content of the manifest.
        journals: Journals of the run.
    """

    def __init__(
        self, path: Path, kind: Kind, manifest: dict[str, Any], lock: FolderLock, made: bool
    ) -> None:
        self.path = path = path.absolute()
        self.kind = kind
        self.manifest = manifest
        self.journals = Journals(path, kind, run=identity(manifest), started=manifest["started"])
        self._lock = lock
        self._made = made
        self._shards = kind.shards(path)
        self._columns: dict[str, str] = {}
        self._verified = False

    @classmethod
    def create(cls, path: str | Path, kind: Kind, manifest: Mapping[str, Any]) -> Self:
        """Creates the folder, including its parents, and writes the manifest.

        Args:
            path: The folder.
            kind: What the run holds.
            manifest: From `make_manifest`.

        Raises:
            FileExistsError: See `check_free`.
            BlockingIOError: If another process is writing the folder.
            ImportError: If pyarrow is missing.
        """
        import_pyarrow()
        path = Path(path)
        made = not path.exists()
        check_free(path)
        path.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent)
        lock = FolderLock(path)
        try:
            check_free(path)
            head = {"format": kind.format, "state": "running", "started": time_now()}
            run = cls(path, kind, head | plain(manifest), lock, made)
            run._write_manifest()
        except BaseException:
            lock.release()
            if made:
                _remove_if_empty(path)
            raise
        return run

    @classmethod
    def reopen(cls, path: str | Path, kind: Kind, manifest: Mapping[str, Any]) -> Self:
        """Continues a run that was stopped or killed; a finished run is left unchanged.

        Args:
            path: The folder.
            kind: What the run holds.
            manifest: From `make_manifest`, with the seed, settings and fingerprints of the run.

        Raises:
            FileNotFoundError: If the folder holds no run.
            ValueError: If the folder holds another run (the error names what differs), or a
                manifest, shard or journal is damaged.
            BlockingIOError: If another process is writing the folder.
        """
        path = Path(path)
        read_manifest(path, kind.format)
        lock = FolderLock(path)
        try:
            wait_for_workers(path)
            stored = compare_with_run(ExpectedRun(path, kind, manifest))
            run = cls(path, kind, stored, lock, made=False)
            if not run.verify_finished():
                run._clear_up()
        except BaseException:
            lock.release()
            raise
        return run

    @classmethod
    def open(
        cls,
        path: str | Path,
        kind: Kind,
        manifest: Mapping[str, Any],
        *,
        resume: bool = False,
    ) -> Self:
        """Reopens the run if there is one and `resume` is set, and creates it otherwise."""
        if resume and holds_run(path):
            return cls.reopen(path, kind, manifest)
        return cls.create(path, kind, manifest)

    @property
    def holds_anything(self) -> bool:
        """Whether the folder, or the run of a subfolder, has anything that must be kept.

        These are answers, and what an earlier process may have paid for without an answer.
        """
        return (
            self.has_shards
            or queries_in_flight(self.manifest) > 0
            or any(map(holds_answers, self.journals.files()))
            or any(self.path.glob(f"*/{MANIFEST}"))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if error is not None:
            kept = self.holds_anything
            with suppress(OSError, ValueError):  # the error that ended the run matters more
                lost = queries_without_answer(self.path)
                if lost and not kept and holds_run(self.path.parent):
                    # The run that this one is a part of may stay, and notes them on the error.
                    add_lost(lost_file(self.path.with_name(f"_{self.path.name}")), lost)
                else:
                    note_lost(error, lost, kept)
            if not kept:
                with suppress(OSError):
                    for file in (
                        *self.journals.files(),
                        *lost_files(self.path),
                        *choice_files(self.path),
                        self.path / MANIFEST,
                    ):
                        file.unlink()
        self.close()
        if error is not None and self._made:
            _remove_if_empty(self.path)

    def close(self) -> None:
        """Releases the folder for other processes."""
        with suppress(OSError):  # workers that still write make the next writer wait
            wait_for_workers(self.path, seconds=0)
        self._lock.release()

    def verify_finished(self) -> bool:
        """Returns whether the run is finished and has all its rows.

        The first call reads and checks all shards of a finished run. Nobody else may change them
        while the folder is open, so further calls read nothing.

        Raises:
            ValueError: If a shard is damaged, or belongs to another run.
        """
        if self.manifest["state"] != "finished":
            return False
        if not self._verified:
            rows = sum(
                len(read_shard(file, place_of(self.manifest, position)))
                for position, file in self._shards.items()
            )
            self._verified = rows == self.manifest["totals"]["samples"]
        return self._verified

    @property
    def has_shards(self) -> bool:
        """Whether any shard is committed."""
        return bool(self._shards)

    def has_shard(self, position: int) -> bool:
        """Returns whether the shard at a position is committed."""
        return position in self._shards

    def journal(self, of: int | str, classes: int) -> Journal:
        """Opens a journal; see `Journals.open`.

        Raises:
            ValueError: If the run has another number of classes, or the journal is damaged.
        """
        begun_with = (self.manifest.get("settings") or {}).get(CLASSES, classes)
        if begun_with != classes:
            raise InputError(
                f"{self.path}: the number of classes of the teacher changed from {begun_with} to "
                f"{classes} during the run; make it declare the same number throughout, then resume"
            )
        return self.journals.open(of, classes)

    def record_lost_worker(self, position: int, unseen: int = 0) -> None:
        """Prepares a shard for another worker after one died, and records what was in flight.

        Args:
            position: Position of the shard.
            unseen: Queries that the worker may have asked without a journal.
        """
        file = self.journals.file(position)
        found = self.journals.read(file)
        lost = {"at": time_now(), "shard": position, "queries_in_flight": found.in_flight + unseen}
        self.note("lost_workers", lost)
        discard_unanswered(file, found)

    def note(self, key: str, entry: Mapping[str, Any]) -> None:
        """Appends an entry to a list in the manifest and writes the manifest.

        Args:
            key: Name of the list.
            entry: The entry.
        """
        self.manifest[key] = [*self.manifest.get(key, []), plain(entry)]
        self._write_manifest()

    def continue_with(self, key: str, entries: Sequence[Mapping[str, Any]]) -> None:
        """Replaces a list in the manifest that says what the run, finished or not, has to do.

        Args:
            key: Name of the list.
            entries: Its entries.
        """
        self.manifest |= {"state": "running", key: plain(entries)}
        self._write_manifest()

    def write_shard(self, position: int, table: "pyarrow.Table") -> Path:
        """Commits a shard, which survives a crash as soon as this returns.

        Args:
            position: Position of the first row of the shard; shards are read in this order.
            table: The shard, with the columns of the other shards.

        Returns:
            The file of the shard.

        Raises:
            FileExistsError: If the run already has a shard at `position`.
            ValueError: If the columns differ from those of the first shard.
            OSError: If the disk is full or not writable; earlier shards are kept.
        """
        if position in self._shards:
            raise OutputExistsError(f"{self.path}: this run already has a shard at {position}")
        content = to_parquet(marked(table, place_of(self.manifest, position)))
        self._check_columns(read_columns(content))
        file = self.path / self.kind.shard_name(position, content)
        write_atomically(file, content)
        self._shards[position] = file
        self.journals.file(position).unlink(missing_ok=True)
        return file

    def finish(self, totals: Mapping[str, Any]) -> None:
        """Marks the run as finished.

        Args:
            totals: Totals for the manifest; `samples` is the number of rows.
        """
        take_over_lost(self.path, self.manifest, time_now())
        self.manifest |= {"state": "finished", "finished": time_now(), "totals": plain(totals)}
        self._write_manifest()
        remove_lost(self.path)

    def update_totals(self, totals: Mapping[str, Any]) -> None:
        """Replaces some totals of a finished run that do not describe its shards.

        Args:
            totals: The totals to replace.
        """
        self.manifest["totals"] = self.manifest["totals"] | plain(totals)
        self._write_manifest()

    def _clear_up(self) -> None:
        """Removes what a killed process left unfinished, and records what was in flight."""
        for position in self._shards:
            self.journals.file(position).unlink(missing_ok=True)
        for file in filter(is_leftover, self.path.iterdir()):
            if file.name not in LOCKS:
                file.unlink()
        found = {file: self.journals.read(file) for file in self.journals.files()}
        stop = {
            "at": time_now(),
            "queries_in_flight": sum(part.in_flight for part in found.values()),
        }
        self.manifest["resumed"] = [*self.manifest.get("resumed", []), stop]
        self.manifest["state"] = "running"
        take_over_lost(self.path, self.manifest, time_now())
        self._write_manifest()
        remove_lost(self.path)
        for file, part in found.items():
            discard_unanswered(file, part)

    def _check_columns(self, columns: dict[str, str]) -> None:
        if not self._columns:
            first = next(iter(self._shards.values()), None)
            self._columns = columns if first is None else read_columns(checked_bytes(first))
        wrong = [
            f"{name}: expected {self._columns.get(name)}, got {columns.get(name)}"
            for name in dict.fromkeys([*self._columns, *columns])
            if self._columns.get(name) != columns.get(name)
        ]
        if wrong:
            raise ArgumentError(
                "shard", f"expected the columns of the other shards: {'; '.join(wrong)}"
            )

    def _write_manifest(self) -> None:
        write_manifest(self.path / MANIFEST, self.manifest)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # a folder with files stays
        folder.rmdir()
