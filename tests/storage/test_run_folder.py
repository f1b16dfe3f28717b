"""Run folders: a shard is there whole or not at all, and one process at a time writes."""

import gc
import os
import stat
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from forked import forked_processes

from db3kd.cli.outputs import hint_at_resuming
from db3kd.storage import filesystem as disk
from db3kd.storage import shards
from db3kd.storage.existing_runs import queries_paid_twice
from db3kd.storage.filesystem import FolderLock, SharedLock
from db3kd.storage.kinds import Kind
from db3kd.storage.manifest import (
    MANIFEST,
    make_manifest,
    queries_in_flight,
    read_manifest,
    write_manifest,
)
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.run_journals import count_answers, queries_unanswered
from db3kd.storage.shards import read_shards

pyarrow = pytest.importorskip("pyarrow")

KIND = Kind("rows", 3)


def some_rows(count: int, first: int = 0) -> "pyarrow.Table":
    return pyarrow.table({"index": list(range(first, first + count))})


def indices(path: Path) -> list[int]:
    return [row for _, table in read_shards(path, KIND) for row in table["index"].to_pylist()]


@pytest.fixture
def a_manifest() -> dict:
    return make_manifest(
        {"noise": "gaussian"}, seed=7, teacher_fingerprint="t", classes=None, data_fingerprint="d"
    )


@pytest.fixture
def run(tmp_path: Path, a_manifest: dict) -> Iterator[RunFolder]:
    run = RunFolder.create(tmp_path / "deep" / "run", KIND, a_manifest)
    yield run
    run.close()


def test_shards_are_read_in_the_order_of_the_run_not_of_their_writing(run):
    run.write_shard(10, some_rows(2, first=10))
    run.write_shard(0, some_rows(3))

    assert indices(run.path) == [0, 1, 2, 10, 11]
    assert [position for position, _ in read_shards(run.path, KIND)] == [0, 10]


def test_a_written_shard_is_not_kept_in_memory(run):
    rows = some_rows(4)
    kept = weakref.ref(rows)
    run.write_shard(0, rows)
    del rows
    gc.collect()
    assert kept() is None


def test_a_shard_is_on_disk_before_its_name_is(run, monkeypatch):
    steps: list[str] = []

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def replace(source: Path, target: Path, rename=os.replace) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    run.write_shard(0, some_rows(4))
    assert steps == ["file", "rename", "folder"]


def test_a_shard_that_fails_leaves_nothing_behind(run, monkeypatch):
    run.write_shard(0, some_rows(4))
    before = sorted(run.path.iterdir())

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"No space left on device: .*rows-0000000004-\w+\.parquet"):
        run.write_shard(4, some_rows(4, first=4))
    assert sorted(run.path.iterdir()) == before
    assert indices(run.path) == [0, 1, 2, 3]


def test_what_a_killed_writer_left_is_not_read(run):
    run.write_shard(0, some_rows(2))
    (run.path / ".rows-0000000002-00000000.parquet.1.tmp").write_bytes(b"PAR1 half a shard")
    (run.path / "rows-of-mine.parquet").write_bytes(b"mine")
    assert indices(run.path) == [0, 1]


def test_answers_of_a_shard_and_of_its_journal_are_counted_once(run):
    with run.journal(0, 10) as journal:
        journal.ask(torch.zeros(4, dtype=torch.int64))
        journal.answer(torch.arange(4))
    assert count_answers(run.path, KIND) == 4
    journaled = run.journals.file(0).read_bytes()
    run.write_shard(0, some_rows(4))
    run.journals.file(0).write_bytes(journaled)  # a kill came before it was deleted

    assert count_answers(run.path, KIND) == 4


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "unanswered"])
def test_the_run_around_a_removed_one_counts_its_lost_queries_if_it_stays(
    answered, tmp_path, a_manifest
):
    path = tmp_path / "run"

    def fail(resume: bool) -> BaseException:
        """Starts a part of a part of the run, whose first call fails with 5 queries."""
        with (
            pytest.raises(ConnectionError) as raised,
            RunFolder.open(path, KIND, a_manifest, resume=resume) as run,
        ):
            if answered and not run.has_shards:
                run.write_shard(0, some_rows(4))
            with (
                RunFolder.create(path / "part", KIND, a_manifest),
                RunFolder.create(path / "part" / "labels", KIND, a_manifest) as inner,
                inner.journal(0, 10) as journal,
            ):
                journal.ask(torch.zeros(5, dtype=torch.int64))
                raise ConnectionError
        return raised.value

    for failures in (1, 2):
        (note,) = fail(resume=answered and failures > 1).__notes__
        assert note.startswith("up to 5 of the queries")
        assert note.endswith("the run counts them" if answered else "no run is kept")
        assert queries_paid_twice(path) == (5 * failures if answered else 0)
        assert path.exists() == answered and not (path / "part").exists()


def test_a_shard_is_never_overwritten(run):
    run.write_shard(0, some_rows(4))
    with pytest.raises(FileExistsError, match="has a shard at 0"):
        run.write_shard(0, some_rows(5))


def test_two_shards_at_one_position_are_not_both_read(run):
    shard = run.write_shard(0, some_rows(4))
    shard.with_name("rows-0000000000-00000000.parquet").write_bytes(shard.read_bytes())
    with pytest.raises(ValueError, match="expected one shard at 0, got rows-"):
        indices(run.path)


def test_all_shards_of_a_run_have_the_same_columns(run):
    run.write_shard(0, some_rows(4))
    with pytest.raises(ValueError, match="index: expected int64, got string; class: expected None"):
        run.write_shard(4, pyarrow.table({"index": ["a"], "class": [1]}))


def test_a_folder_with_something_in_it_is_refused(tmp_path, a_manifest):
    (tmp_path / "precious").write_text("data")
    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        RunFolder.create(tmp_path, KIND, a_manifest)
    with pytest.raises(FileExistsError, match="got a file"):
        RunFolder.create(tmp_path / "precious", KIND, a_manifest)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="got a link to nowhere, which does not exist"):
        RunFolder.create(tmp_path / "link", KIND, a_manifest)
    with pytest.raises(NotADirectoryError, match=r"but .*link is a link to nothing"):
        RunFolder.create(tmp_path / "link" / "run", KIND, a_manifest)
    assert {file.name for file in tmp_path.iterdir()} == {"precious", "link"}


def test_a_folder_of_a_run_killed_before_its_manifest_is_free(tmp_path, a_manifest):
    (tmp_path / ".lock").touch()
    (tmp_path / "._manifest.json.1.tmp").write_text("{")
    RunFolder.create(tmp_path, KIND, a_manifest).close()
    assert read_manifest(tmp_path)["format"] == "db3kd rows 3"


def test_a_run_that_fails_before_its_first_shard_leaves_nothing(tmp_path, a_manifest):
    with pytest.raises(KeyboardInterrupt), RunFolder.create(tmp_path / "new", KIND, a_manifest):
        raise KeyboardInterrupt
    (tmp_path / "empty").mkdir()
    with pytest.raises(KeyboardInterrupt), RunFolder.create(tmp_path / "empty", KIND, a_manifest):
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.rglob("*")] == ["empty"], "a folder found is kept"


def test_a_folder_whose_manifest_cannot_be_written_is_removed(tmp_path, a_manifest, monkeypatch):
    def full_disk(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(disk.os, "replace", full_disk)
    for name in ("new", "empty"):
        with pytest.raises(OSError, match=r"No space left on device: .*_manifest.json"):
            RunFolder.create(tmp_path / name, KIND, a_manifest)
    assert [file.name for file in tmp_path.rglob("*")] == ["empty"], "a folder found is kept"


def test_a_run_that_fails_after_its_first_shard_keeps_it(run):
    with pytest.raises(KeyboardInterrupt), run:
        run.write_shard(0, some_rows(4))
        raise KeyboardInterrupt
    assert indices(run.path) == [0, 1, 2, 3]
    assert read_manifest(run.path)["state"] == "running"


def test_an_interrupt_says_what_may_be_lost(run, capsys):
    def hint() -> str:
        with pytest.raises(KeyboardInterrupt), hint_at_resuming(run.path, run.path / "none"):
            raise KeyboardInterrupt
        return capsys.readouterr().err

    with run.journal(0, 10) as journal:
        journal.ask(torch.arange(1200))
        assert queries_unanswered(run.path) == 1200
        assert "up to 1,200 queries of the last call may have been paid without" in hint()
        journal.answer(torch.ones(1200, dtype=torch.int64))
        assert queries_unanswered(run.path) == 0
        assert hint() == "the answers so far are kept; continue with --resume\n"
    assert queries_unanswered(run.path / "none") == 0


def test_what_others_put_beside_a_failed_run_is_kept(run):
    with pytest.raises(KeyboardInterrupt), run:
        (run.path / "notes.txt").write_text("mine")
        raise KeyboardInterrupt
    assert [file.name for file in run.path.iterdir()] == ["notes.txt"]


def take(folder: Path, answer: Path) -> None:
    try:
        FolderLock(folder)
    except BlockingIOError as error:
        answer.write_text(str(error))
    else:
        answer.write_text("taken")


def test_no_second_process_writes_a_run(run, tmp_path):
    def other_process() -> str:
        process = forked_processes().Process(target=take, args=(run.path, tmp_path / "answer"))
        process.start()
        process.join()
        return (tmp_path / "answer").read_text()

    assert "another process is writing" in other_process()
    run.close()
    assert other_process() == "taken"


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a run folder"):
        indices(tmp_path)


def test_a_run_without_a_shard_says_so(run):
    with pytest.raises(FileNotFoundError, match="at least one shard"):
        indices(run.path)


def test_a_run_of_another_version_says_which(run):
    with pytest.raises(ValueError, match="expected format 'db3kd rows 4', got 'db3kd rows 3'"):
        list(read_shards(run.path, Kind("rows", 4)))


def test_a_changed_byte_anywhere_in_a_shard_is_noticed(run):
    shard = run.write_shard(0, some_rows(50))
    whole = shard.read_bytes()
    for place in range(0, len(whole), 7):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=f"{shard.name}: is damaged"):
            indices(run.path)


def test_a_shard_cut_short_is_noticed(run):
    shard = run.write_shard(0, some_rows(4))
    for length in (0, 100, shard.stat().st_size - 1):
        shard.write_bytes(shard.read_bytes()[:length])
        with pytest.raises(ValueError, match=f"{shard.name}: is damaged"):
            indices(run.path)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_shard_that_a_finished_run_lacks_is_missed(run, lost):
    shards = [run.write_shard(first, some_rows(2, first)) for first in (0, 2, 4)]
    run.finish({"samples": 6})
    assert indices(run.path) == list(range(6))

    shards[lost].unlink()

    with pytest.raises(ValueError, match=f"expected a shard at {2 * lost} of this finished run"):
        indices(run.path)


def test_without_pyarrow_a_run_says_what_to_install_before_it_begins(
    tmp_path, a_manifest, monkeypatch
):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install"):
        RunFolder.create(tmp_path / "run", KIND, a_manifest)
    assert not (tmp_path / "run").exists()


def stop(run: RunFolder) -> None:
    """As a kill does: nothing is tidied up."""
    run._lock._file.close()


def note(run: RunFolder, of: int | str, asked: int, answered: int | None) -> None:
    with run.journal(of, 10) as journal:
        journal.ask(torch.arange(asked))
        if answered is not None:
            journal.answer(torch.zeros(answered, dtype=torch.int64))


def test_a_run_killed_before_its_first_shard_is_reopened(run, a_manifest):
    stop(run)
    with RunFolder.open(run.path, KIND, a_manifest, resume=True) as again:
        assert not again.has_shards and not again.verify_finished()
        again.write_shard(0, some_rows(2))
    assert indices(run.path) == [0, 1]


def test_the_shards_of_a_finished_run_are_read_once_while_it_is_open(run, a_manifest, monkeypatch):
    for first in range(0, 6, 2):
        run.write_shard(first, some_rows(2, first=first))
    run.finish({"samples": 6})
    stop(run)
    read, reader = [], shards.checked_bytes
    monkeypatch.setattr(shards, "checked_bytes", lambda file: read.append(file) or reader(file))

    with RunFolder.reopen(run.path, KIND, a_manifest) as again:
        assert again.verify_finished() and again.verify_finished()
    assert sorted(read) == sorted(run.path.glob("*.parquet")) and len(read) == 3


def test_where_there_is_no_run_resuming_begins_one(tmp_path, a_manifest):
    with RunFolder.open(tmp_path / "new", KIND, a_manifest, resume=True) as run:
        assert read_manifest(run.path)["state"] == "running"


def test_a_journal_outlives_its_process_and_goes_with_its_shard(run, a_manifest):
    note(run, "decisions", 3, 3)
    note(run, 0, 5, 5)
    stop(run)

    with RunFolder.reopen(run.path, KIND, a_manifest) as again:
        with again.journal(0, 10) as journal:
            assert len(journal.take(torch.arange(5))) == 5
        again.write_shard(0, some_rows(5))

    assert [file.name for file in run.path.glob("*.journal")] == ["_decisions.journal"]
    assert "resumed" in read_manifest(run.path)


def test_a_journal_that_its_shard_left_behind_is_cleared_away(run, a_manifest, monkeypatch):
    note(run, 0, 5, 5)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # killed before it could
    run.write_shard(0, some_rows(5))
    (run.path / ".rows-0000000005-00000000.parquet.1.tmp").touch()
    stop(run)
    monkeypatch.undo()

    RunFolder.reopen(run.path, KIND, a_manifest).close()

    assert sorted(file.suffix for file in run.path.iterdir()) == [".json", ".parquet"]


def test_queries_in_flight_at_each_stop_add_up(run, a_manifest):
    note(run, 0, 5, 5)
    note(run, 0, 7, None)
    note(run, 8, 2, None)
    stop(run)
    for _ in range(2):  # once they are noted they are in flight no more
        run = RunFolder.reopen(run.path, KIND, a_manifest)
        assert queries_in_flight(run.manifest) == 9
        stop(run)
    note(run, 8, 4, None)
    with RunFolder.reopen(run.path, KIND, a_manifest) as run:
        assert queries_in_flight(read_manifest(run.path)) == 13


def test_what_was_in_flight_where_a_worker_died_is_counted_once(run, a_manifest):
    note(run, 0, 5, 5)
    note(run, 0, 7, None)
    run.record_lost_worker(0)
    run.record_lost_worker(8, unseen=20)
    stop(run)
    with RunFolder.reopen(run.path, KIND, a_manifest) as again:
        assert queries_in_flight(read_manifest(run.path)) == 27
        assert [lost["shard"] for lost in again.manifest["lost_workers"]] == [0, 8]
        with again.journal(0, 10) as journal:
            assert len(journal.take(torch.arange(5))) == 5


def test_a_run_waits_for_workers_that_outlived_the_process_they_helped(
    run, a_manifest, monkeypatch
):
    worker = SharedLock(run.path)
    stop(run)
    with monkeypatch.context() as patch, pytest.raises(BlockingIOError, match="still writing to"):
        patch.setattr(disk, "_WORKERS_END_SECONDS", 0.0)
        RunFolder.reopen(run.path, KIND, a_manifest)

    threading.Timer(0.3, worker.release).start()

    with RunFolder.reopen(run.path, KIND, a_manifest):
        pass
    assert [file.name for file in run.path.iterdir()] == ["_manifest.json"]


def test_a_run_that_paid_for_answers_keeps_them(tmp_path, a_manifest):
    with (
        pytest.raises(KeyboardInterrupt),
        RunFolder.create(tmp_path / "a", KIND, a_manifest) as run,
    ):
        note(run, 0, 5, 1)
        raise KeyboardInterrupt
    assert (tmp_path / "a" / "_rows-0000000000.journal").exists()


def test_another_run_is_not_reopened_and_stays_as_it_is(run, a_manifest):
    stop(run)
    before = {file: file.read_bytes() for file in run.path.iterdir()}
    message = r"holds a different run.*: seed: was 7, is 8 \(seed=\); pass what"
    with pytest.raises(ValueError, match=message):
        RunFolder.reopen(run.path, KIND, a_manifest | {"seed": 8})
    with pytest.raises(ValueError, match="expected format 'db3kd rows 4'"):
        RunFolder.reopen(run.path, Kind("rows", 4), a_manifest)
    assert {file: file.read_bytes() for file in run.path.iterdir() if file.name != ".lock"} == {
        file: content for file, content in before.items() if file.name != ".lock"
    }


def test_a_damaged_journal_is_an_error_before_anything_is_asked(run, a_manifest):
    for _ in range(3):
        note(run, 0, 5, 5)
    file = run.path / "_rows-0000000000.journal"
    content = file.read_bytes()
    file.write_bytes(content[:50] + b"?" + content[51:])
    stop(run)
    with pytest.raises(ValueError, match=r"_rows-0000000000\.journal: damaged at byte"):
        RunFolder.reopen(run.path, KIND, a_manifest)


def test_a_folder_that_may_not_be_written_says_so(a_manifest):
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o555)
        user = os.geteuid()
        try:
            if user == 0:  # whom nothing is forbidden
                os.seteuid(65534)
            with pytest.raises(OSError, match=parent):
                RunFolder.create(Path(parent) / "run", KIND, a_manifest)
            with pytest.raises(OSError, match=parent):
                RunFolder.create(parent, KIND, a_manifest)
        finally:
            os.seteuid(user)
            os.chmod(parent, 0o755)
        assert os.listdir(parent) == []


def test_queries_paid_twice_are_those_of_all_folders(tmp_path, a_manifest):
    begun = a_manifest | {"format": KIND.format, "state": "running", "started": "2026-01-01"}
    for name, lost in (("one", (3, 4)), ("two", (5,))):
        (tmp_path / name).mkdir()
        stops = [{"at": "2026-01-01T00:00:00+00:00", "queries_in_flight": count} for count in lost]
        write_manifest(tmp_path / name / MANIFEST, begun | {"resumed": stops})

    assert queries_paid_twice(tmp_path / "one", tmp_path / "two", tmp_path / "none") == 12


def test_a_shard_is_read_without_starting_threads(tmp_path):
    """A thread that has just started aborts a process that ends at that moment."""
    script = """
import os, sys
import pyarrow, pyarrow.parquet
from pathlib import Path
from db3kd.storage.shards import marked, read_shard, to_parquet
import zlib

columns = {f"c{number}": list(range(1000)) for number in range(8)}
content = to_parquet(marked(pyarrow.table(columns), b"here"))
file = Path(sys.argv[1], f"answers-0000000000-{zlib.crc32(content):08x}.parquet")
file.write_bytes(content)
before = len(os.listdir("/proc/self/task"))
assert len(read_shard(file, b"here")) == 1000
print(len(os.listdir("/proc/self/task")) - before)
"""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("threads are counted in /proc")
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], check=True, capture_output=True, text=True
    )
    assert done.stdout == "0\n"
