"""Files are put in place whole, and never through a link that somebody planted."""

import secrets
from pathlib import Path

import pytest
import torch

from db3kd.arguments.plain import check_path
from db3kd.errors import NotWritableError
from db3kd.storage import filesystem
from db3kd.storage.filesystem import (
    FolderLock,
    SharedLock,
    check_new_file,
    check_no_folder,
    check_parents,
    truncate,
    wait_for_workers,
    write_atomically,
)
from db3kd.storage.journal import Journal


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    file = tmp_path / "precious"
    file.write_text("data")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def test_a_temporary_file_is_never_written_through_a_link(folder, precious, monkeypatch):
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    link = folder / "._manifest.json.guessed.tmp"
    link.symlink_to(precious)
    with pytest.raises(FileExistsError):
        write_atomically(folder / "_manifest.json", b"{}")
    assert precious.read_text() == "data" and link.is_symlink(), (
        "nothing but what is ours is removed"
    )


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + "/run"])
def test_a_name_that_is_too_long_is_refused_before_the_work(folder, name):
    with pytest.raises(NotWritableError, match=r"^out: cannot create x.* choose a shorter name"):
        check_parents(Path(name))
    with pytest.raises(ValueError, match=r"^path: expected a path, got a name that is too long"):
        check_path(folder / name, "path")
    assert str(check_path(f"http://localhost/{name}", "path")).endswith(name)


@pytest.mark.parametrize("check", [check_new_file, check_no_folder])
def test_a_folder_is_no_place_for_a_file(folder, check):
    with pytest.raises(
        IsADirectoryError, match=r"^path: expected the path of a file, got the fold"
    ):
        check(folder, "path")
    check(folder / "new", "path")
    assert not list(folder.iterdir())


def test_a_file_may_have_the_longest_name(folder):
    file = folder / ("ö" * 127 + "x")  # 255 bytes
    check_new_file(file)
    write_atomically(file, b"content")
    assert file.read_bytes() == b"content" and len(list(folder.iterdir())) == 1


def test_names_of_temporary_files_cannot_be_guessed(folder, monkeypatch):
    names = []
    monkeypatch.setattr("os.replace", lambda source, target: names.append(source.name))
    for _ in range(2):
        write_atomically(folder / "file", b"")
    assert len(set(names)) == 2


def test_a_file_that_is_a_link_is_replaced_and_its_target_stays(folder, precious):
    link = folder / "_manifest.json"
    link.symlink_to(precious)
    write_atomically(link, b"{}")
    assert not link.is_symlink() and precious.read_text() == "data"


@pytest.mark.parametrize("lock, name", [(FolderLock, ".lock"), (SharedLock, ".helpers")])
def test_a_lock_that_is_a_link_is_refused(folder, lock, name):
    (folder / name).symlink_to(folder.parent / "new")
    with pytest.raises(OSError, match=rf"expected a file, got a symbolic link.*{name}"):
        lock(folder)
    assert not (folder.parent / "new").exists()


def after_the_next_open(monkeypatch, action):
    """Runs an action of another process between opening a file and what follows it."""
    opened = filesystem.open_no_follow

    def interrupted(path: Path, flags: int) -> int:
        descriptor = opened(path, flags)
        monkeypatch.setattr(filesystem, "open_no_follow", opened)
        action()
        return descriptor

    monkeypatch.setattr(filesystem, "open_no_follow", interrupted)


def test_a_worker_is_waited_for_if_a_writer_removed_its_file_before_it_was_locked(
    folder, monkeypatch
):
    after_the_next_open(monkeypatch, lambda: wait_for_workers(folder, seconds=0))
    worker = SharedLock(folder)
    with pytest.raises(BlockingIOError, match="workers of a stopped run are still writing"):
        wait_for_workers(folder, seconds=0)
    worker.release()
    wait_for_workers(folder, seconds=0)
    assert list(folder.iterdir()) == []


def test_a_second_writer_is_refused_if_the_last_one_removed_the_file_before_it_was_locked(
    folder, monkeypatch
):
    after_the_next_open(monkeypatch, lambda: FolderLock(folder).release())
    lock = FolderLock(folder)
    with pytest.raises(BlockingIOError, match="another process is writing to this run"):
        FolderLock(folder)
    lock.release()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("target", ["precious", "new"])
def test_a_journal_that_is_a_link_is_refused(folder, precious, target):
    link = folder / "_decisions.journal"
    link.symlink_to(folder.parent / target)
    with Journal(link, 10, "a run") as journal, pytest.raises(OSError, match="symbolic link"):
        journal.ask(torch.arange(3))
    with pytest.raises(OSError, match="symbolic link"):
        truncate(link, 0)
    assert precious.read_text() == "data" and not (folder.parent / "new").exists()
