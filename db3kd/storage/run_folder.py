"""Run folders: Parquet shards beside a manifest that says where they come from.

    run/_manifest.json                       settings, seed, versions, fingerprints, totals
    run/labels-0000000000-7f3a90c2.parquet   one shard, named by the position of its first row and
    run/labels-0000000512-01b4e65d.parquet   the CRC-32 of its bytes
    …
    run/_labels-0000001024.journal           the answers paid for so far towards the next shard
    run/_decisions.journal                   those to a stage that all shards rest on
    run/_images-9f86d081884c7d65             what tells each image from others (run_images.py)

Readers of Parquet folders skip names that begin with "_" or ".", so to them the folder is a table.
What a run holds, labels or pseudo samples, is its `Kind`; its columns are its owner's business. A
shard appears whole or not at all, and a byte that changes in it later is noticed. One process at a
time writes a folder; others write journals there for it (`RunFolder.journals`), one a shard, as
long as it says so. Shards need pyarrow.

A shard is in place and on disk before its journal goes, and what a killed process left behind is
cleared away when the run is reopened, so that a kill at any moment loses no answer but those in
flight (see db3kd.storage.journal) and leaves none twice.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from db3kd.storage.filesystem import (
    LOCKS,
    FolderLock,
    is_leftover,
    sync_folder,
    truncate,
    wait_for_workers,
    write_atomically,
)
from db3kd.storage.journal import Contents, Journal, read_journal
from db3kd.storage.manifest import (
    MANIFEST,
    check_state,
    describe_differences,
    differences,
    identity,
    plain,
    read_manifest,
    write_manifest,
)
from db3kd.storage.run_images import (
    RunImages,
    accept_changes,
    current_data,
    find_changes,
    images_files,
    remove_old_images,
    write_images,
)
from db3kd.storage.shards import (
    Kind,
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


def holds_run(path: str | Path) -> bool:
    """Whether a run was begun there."""
    return (Path(path) / MANIFEST).is_file()


def check_free(path: str | Path, resume: bool = False) -> None:
    """Raises FileExistsError where no run can be begun: a file, or a folder with files.

    resume: a folder with a run is fine.
    """
    path = Path(path)
    if resume and holds_run(path):
        return
    if path.is_dir():
        found = [file.name for file in path.iterdir() if not is_leftover(file)]
    elif path.exists():
        raise FileExistsError(f"{path}: expected a new or an empty folder for the run, got a file")
    else:
        return
    if MANIFEST in found:
        raise FileExistsError(
            f"{path}: holds a run already; continue it with --resume (resume=True), or choose "
            "another folder"
        )
    if found:
        raise FileExistsError(
            f"{path}: expected a new or an empty folder for the run, got a folder with files; "
            "choose another, or remove it"
        )


def queries_in_flight(manifest: Mapping[str, Any]) -> int:
    """Queries that were asked, but not answered, whenever a run was stopped or lost a worker.

    They were asked again, so at most as many were paid twice. Totals count them once.
    """
    ends = (*manifest.get("resumed", ()), *manifest.get("lost_workers", ()))
    return sum(end["queries_in_flight"] for end in ends)


def queries_unanswered(path: str | Path) -> int:
    """Queries that were asked when the run at `path` ended, and are not in its journals.

    So many, at most, are paid for again when it is resumed. 0 if there is no run.

    Raises:
        ValueError: the manifest or a journal is damaged.
    """
    path = Path(path)
    if not holds_run(path):
        return 0
    run = identity(read_manifest(path))
    journals = path.glob("*.journal")
    return sum(read_journal(file, _journal_identity(file, run)).in_flight for file in journals)


@dataclass(frozen=True)
class Journals:
    """The journals of a run, for the process that holds its folder and for those that help it.

    run: what tells the run from all others. started: when it was begun.
    """

    folder: Path
    kind: Kind
    run: str
    started: str

    def open(self, of: int | str, classes: int) -> Journal:
        """The journal of the search that makes a shard, or of a stage that all shards rest on.

        That of a shard goes when the shard is committed; that of a stage stays.

        of: the shard's position, or the stage's name. classes: of the teacher.
        """
        file = self.file(of)
        return Journal(file, classes, _journal_identity(file, self.run))

    def file(self, of: int | str) -> Path:
        name = of if isinstance(of, str) else self.kind.shard_prefix(of)
        return self.folder / f"_{name}.journal"

    def within_reach(self) -> bool:
        """Whether this process has the run's folder on its disk: on another machine it may not."""
        try:
            manifest = read_manifest(self.folder, self.kind.format)
        except (OSError, ValueError):
            return False
        return (identity(manifest), manifest["started"]) == (self.run, self.started)

    def files(self) -> list[Path]:
        """Those that are there."""
        return sorted(self.folder.glob("*.journal"))

    def read(self, file: Path) -> Contents:
        """What one of the files holds."""
        return read_journal(file, _journal_identity(file, self.run))


class RunFolder:
    """Writes one run. It keeps no shard in memory, however many are written.

        with RunFolder.open(path, KIND, manifest(...), resume=True) as run:
            for position in range(0, samples, samples_a_shard):
                if not run.has_shard(position):
                    with run.journal(position, teacher.classes) as journal:
                        ...  # db3kd.querying.driver.run(search, teacher, ledger, journal=journal)
                    run.write_shard(position, table)
            run.finish(totals)

    Holds the folder's lock until closed. As a context manager it takes itself away again where an
    error ends it before anything was paid for, so that the same run can be tried again.
    """

    def __init__(
        self, path: Path, kind: Kind, manifest: dict[str, Any], lock: FolderLock, made: bool
    ) -> None:
        self.path = path
        self.kind = kind
        self.manifest = manifest
        self.journals = Journals(
            path.absolute(), kind, run=identity(manifest), started=manifest["started"]
        )
        self._lock = lock
        self._made = made
        self._shards = kind.shards(path)
        self._columns: dict[str, str] = {}

    @classmethod
    def create(
        cls,
        path: str | Path,
        kind: Kind,
        manifest: Mapping[str, Any],
        images: RunImages | None = None,
    ) -> Self:
        """Makes the folder, with its parents, and writes the manifest.

        images: those of the run, if it is to go on where some change that nobody asked about.

        Raises:
            FileExistsError: as `check_free`.
            BlockingIOError: another process is writing it.
            ImportError: pyarrow is missing, said before anything is paid for.
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
            head = {"format": kind.format, "state": "running", "started": _now()}
            run = cls(path, kind, head | plain(manifest), lock, made)
            run._write_manifest()
            if images is not None:
                write_images(path, images.digests)
        except BaseException:
            lock.release()
            raise
        return run

    @classmethod
    def reopen(
        cls,
        path: str | Path,
        kind: Kind,
        manifest: Mapping[str, Any],
        apart_from: tuple[str, ...] = (),
        images: RunImages | None = None,
    ) -> Self:
        """Goes on with a run that was stopped or killed at any moment; a finished one stays as is.

        manifest: as for `create`; seed, settings and fingerprints must be those of the run.
        apart_from: entries that may differ, as `settings.source.data`.
        images: as for `create`. Those that changed are accepted, and noted in the manifest, if the
            teacher was not asked about any of them.

        Raises:
            FileNotFoundError: there is no run.
            ValueError: it is another run, and in what; or its manifest, a shard or a journal is
                damaged; or images changed that the teacher was asked about.
            BlockingIOError: another process is writing it.
        """
        path = Path(path)
        read_manifest(path, kind.format)
        lock = FolderLock(path)
        try:
            wait_for_workers(path)
            stored = read_manifest(path, kind.format)
            check_state(path, stored)
            found = differences(stored | {"data": current_data(stored)}, manifest, apart_from)
            changed = None
            if images is not None and [each.partition(":")[0] for each in found] == ["data"]:
                answered = _count_answers(path, kind, stored, images.stage)
                changed = find_changes(path, stored, images, answered)
            if found and changed is None:
                raise ValueError(
                    f"{path}: holds another run than the one asked for: "
                    f"{describe_differences(found)}"
                )
            run = cls(path, kind, stored, lock, made=False)
            if changed is not None:
                accept_changes(path, images, changed, _now(), run.manifest)
                run._write_manifest()
            if images is not None:
                write_images(path, images.digests)
                remove_old_images(path, images.digests)
            if not run.finished:
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
        apart_from: tuple[str, ...] = (),
        images: RunImages | None = None,
    ) -> Self:
        """As `reopen` where there is a run and it may be resumed, else as `create`."""
        if resume and holds_run(path):
            return cls.reopen(path, kind, manifest, apart_from, images)
        return cls.create(path, kind, manifest, images)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not self._holds_anything():
            with suppress(OSError):  # the error that ended the run is the one to hear of
                for file in (
                    *self.journals.files(),
                    *images_files(self.path),
                    self.path / MANIFEST,
                ):
                    file.unlink()
        self.close()
        if kind is not None and self._made:
            with suppress(OSError):  # what it holds stays
                self.path.rmdir()

    def close(self) -> None:
        """Lets other processes write the folder."""
        with suppress(OSError):  # helpers that still write keep the next writer waiting
            wait_for_workers(self.path, seconds=0)
        self._lock.release()

    @property
    def finished(self) -> bool:
        """Whether it is done, and all its shards are still there."""
        if self.manifest["state"] != "finished":
            return False
        rows = sum(
            len(read_shard(file, place_of(self.manifest, position)))
            for position, file in self._shards.items()
        )
        return rows == self.manifest["totals"]["samples"]

    @property
    def has_shards(self) -> bool:
        """Whether any is committed."""
        return bool(self._shards)

    def has_shard(self, position: int) -> bool:
        """Whether the shard at this position is committed."""
        return position in self._shards

    def journal(self, of: int | str, classes: int) -> Journal:
        """As `Journals.open`."""
        return self.journals.open(of, classes)

    def record_lost_worker(self, position: int, unseen: int = 0) -> None:
        """Readies a shard for another worker where one died, and notes what was in flight.

        unseen: queries that it may have asked beside its journal.
        """
        file = self.journals.file(position)
        found = self.journals.read(file)
        lost = {"at": _now(), "shard": position, "queries_in_flight": found.in_flight + unseen}
        self.manifest["lost_workers"] = [*self.manifest.get("lost_workers", []), lost]
        self._write_manifest()
        _cut_off_unanswered(file, found)

    def note(self, key: str, entry: Mapping[str, Any]) -> None:
        """Adds an entry to a list of the manifest's, which is on disk once this returns."""
        self.manifest[key] = [*self.manifest.get(key, []), plain(entry)]
        self._write_manifest()

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
        content = to_parquet(marked(table, place_of(self.manifest, position)))
        self._check_columns(read_columns(content))
        file = self.path / self.kind.shard_name(position, content)
        write_atomically(file, content)
        self._shards[position] = file
        self.journals.file(position).unlink(missing_ok=True)
        return file

    def finish(self, totals: Mapping[str, Any]) -> None:
        """Writes the manifest again, with the run's totals: `samples`, its rows, and others."""
        self.manifest |= {"state": "finished", "finished": _now(), "totals": plain(totals)}
        self._write_manifest()

    def _holds_anything(self) -> bool:
        return self.has_shards or any(file.stat().st_size for file in self.journals.files())

    def _clear_up(self) -> None:
        """Takes away what a killed process left half done, and notes what was in flight."""
        for position in self._shards:
            self.journals.file(position).unlink(missing_ok=True)
        for file in filter(is_leftover, self.path.iterdir()):
            if file.name not in LOCKS:
                file.unlink()
        found = {file: self.journals.read(file) for file in self.journals.files()}
        stop = {"at": _now(), "queries_in_flight": sum(part.in_flight for part in found.values())}
        self.manifest["resumed"] = [*self.manifest.get("resumed", []), stop]
        self.manifest["state"] = "running"
        self._write_manifest()
        for file, part in found.items():
            _cut_off_unanswered(file, part)

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
            raise ValueError(f"shard: not of the columns of the others: {'; '.join(wrong)}")

    def _write_manifest(self) -> None:
        write_manifest(self.path / MANIFEST, self.manifest)


def _journal_identity(file: Path, run: str) -> str:
    """What tells a journal from those of other searches and runs."""
    return f"{file.stem} {run}"


def _count_answers(path: Path, kind: Kind, manifest: Mapping[str, Any], stage: str) -> int | None:
    """How many answers a run has to its first stage; None if it has gone beyond that."""
    journals = Journals(path.absolute(), kind, identity(manifest), manifest["started"])
    first = journals.file(stage)
    later = [file for file in journals.files() if not file.name.startswith("_check-")]
    if kind.shards(path) or any(file != first for file in later):
        return None
    return sum(len(call.answers) for call in journals.read(first).calls)


def _cut_off_unanswered(file: Path, found: Contents) -> None:
    """Once they are noted: else they would be counted again."""
    if found.end:
        truncate(file, found.end)
    else:
        file.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
