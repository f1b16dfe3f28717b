"""Files that appear whole or not at all, and folders that one process writes at a time."""

import errno
import fcntl
import json
import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO

from db3kd.errors import NotAFileError, NotAFolderError, NotWritableError

LOCK = ".lock"

_WORKERS = ".helpers"

LOCKS = (LOCK, _WORKERS)
"""Names of lock files, which are empty."""

_NO_LINKS = os.O_NOFOLLOW | os.O_CLOEXEC
"""A folder may come from somebody else and hold links to files that must not be written."""

_NAME_BYTES = 200
"""Most bytes of a file's name in the name of its temporary file, which has at most 255 bytes."""

_WORKERS_END_SECONDS = 15.0
"""How long the workers of a killed process may take to notice."""


def check_new_file(path: Path, argument: str = "out") -> None:
    """Checks, before any work, that a file could be written at a path, or replaced.

    Args:
        path: The path.
        argument: The argument that has it, for errors.

    Raises:
        IsADirectoryError: If there is a folder at the path.
        NotADirectoryError: If the path leads through a file.
        OSError: If the folder above it takes no new files, or the name is too long.
    """
    check_no_folder(path, argument)
    check_parents(path, argument)


def check_no_folder(path: Path, argument: str) -> None:
    """Checks that there is no folder at the path of a file.

    Raises:
        IsADirectoryError: If there is one.
    """
    if path.is_dir():
        raise NotAFileError(f"{argument}: expected the path of a file, got the folder {path}")


def check_parents(path: Path, argument: str = "out") -> None:
    """Checks, before any work, that a file or folder could be made at a path.

    Args:
        path: The path, at which nothing need exist.
        argument: The argument that has it, for errors.

    Raises:
        NotADirectoryError: If the path leads through a file.
        OSError: If the folder above it takes no new files, or a name in it is too long.
    """
    try:
        # A link to nothing is no folder, and none can be made in its place.
        parents = path.absolute().parents
        parent = next((each for each in parents if each.exists() or each.is_symlink()), None)
        exists = _exists(path)
    except OSError as error:
        raise _cannot_create(str(path), error, argument) from error
    if parent is not None and not parent.is_dir():
        raise NotAFolderError(
            f"{path}: expected a path in a folder, but {parent} is a "
            f"{'link to nothing' if parent.is_symlink() else 'file'}; pass another {argument}="
        )
    if parent is not None and not exists:
        check_writable(parent, path, argument)


def _exists(path: Path) -> bool:
    """Returns whether there is something at a path.

    Raises:
        OSError: If nothing can be there, for example because its name is too long.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def check_writable(folder: Path, path: Path | None = None, argument: str = "out") -> None:
    """Checks that a folder takes new files, by making an empty one in it for a moment.

    Permissions do not tell this: they mean nothing to root, and file systems may be read-only.

    Args:
        folder: A folder that exists.
        path: What would be made in it, for the error; by default the folder's own files.
        argument: The argument that has the path, for the error.

    Raises:
        OSError: If the folder takes no new files.
    """
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
    except OSError as error:
        made = f"files in {folder}" if path is None else str(path)
        raise _cannot_create(made, error, argument) from error


def _cannot_create(made: str, error: OSError, argument: str) -> NotWritableError:
    """Returns the error of an output that cannot be made."""
    is_long = error.errno == errno.ENAMETOOLONG
    advice = "choose a shorter name" if is_long else "choose a writable folder"
    return NotWritableError(f"{argument}: cannot create {made} ({error.strerror}); {advice}")


def names_beside(path: Path) -> list[str]:
    """Returns the names in the folder of a path, to suggest one for a wrong path."""
    try:
        return [each.name for each in path.parent.iterdir()]
    except OSError:
        return []


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that survives a crash as soon as this returns.

    A crash before that leaves the previous file, or none.

    Raises:
        OSError: If the disk is full or not writable; the error names `path`.
    """
    name = os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])
    temporary = path.with_name(f".{name}.{secrets.token_hex(8)}.tmp")
    created = False
    try:
        with os.fdopen(
            open_no_follow(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb"
        ) as file:
            created = True
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        if created:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise named(error, path) from error
        raise


def json_bytes(content: Any) -> bytes:
    """Returns plain values as indented JSON in UTF-8.

    Paths that are not UTF-8 contain lone surrogates, which UTF-8 cannot hold. They become escapes,
    which a reader of JSON turns back into the same path.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def open_no_follow(path: Path, flags: int) -> int:
    """Opens a file like `os.open`, but refuses symbolic links.

    Raises:
        OSError: If the file cannot be opened, or is a symbolic link.
    """
    try:
        return os.open(path, flags | _NO_LINKS, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
            raise OSError(
                error.errno, "expected a file, got a symbolic link; remove it", str(path)
            ) from error
        raise


def truncate(path: Path, size: int) -> None:
    """Truncates a file to `size` bytes. Symbolic links are refused."""
    descriptor = open_no_follow(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flushes a folder to disk, so that new names in it survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def named(error: OSError, path: Path) -> OSError:
    """Returns the same error with the name of the file, which a full disk does not state."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def is_leftover(file: Path) -> bool:
    """Returns whether a killed process may have left this: a lock, or a temporary file."""
    return file.name in LOCKS or (file.name.startswith(".") and file.name.endswith(".tmp"))


class FolderLock:
    """Locks a folder for one writer, until it is released or the process ends.

    The kernel releases the lock with the process, so a kill leaves at most the empty file.

    Raises:
        BlockingIOError: If another process holds the lock.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder.absolute() / LOCK
        try:
            self._file = _lock(self._path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"{folder}: another process is writing to this run; wait until it ends, or stop it"
            ) from error

    def release(self) -> None:
        """Releases the lock. Further calls do nothing."""
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()


class SharedLock:
    """Marks a worker that writes into a folder for the process that holds the `FolderLock`.

    Workers may outlive a killed holder, and no other process may write while they do. A worker
    takes this lock before it receives work, and keeps it until it is released or the process ends.
    """

    def __init__(self, folder: Path) -> None:
        self._file = _lock(folder / _WORKERS, fcntl.LOCK_SH)

    def release(self) -> None:
        """Releases the lock."""
        self._file.close()


def wait_for_workers(folder: Path, seconds: float | None = None) -> None:
    """Waits until no worker holds a `SharedLock`. Called by the holder of the `FolderLock`.

    Args:
        folder: Folder of the run.
        seconds: Maximum wait; by default as long as workers of a killed process need to notice.

    Raises:
        BlockingIOError: If a worker still holds the lock.
    """
    path = folder / _WORKERS
    if not path.exists():
        return
    end = time.monotonic() + (_WORKERS_END_SECONDS if seconds is None else seconds)
    while True:
        try:
            file = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise BlockingIOError(
                    f"{folder}: workers of a stopped run are still writing to it; wait until they "
                    "end, or stop them"
                ) from error
            time.sleep(0.1)
        else:
            path.unlink(missing_ok=True)
            file.close()
            return


def _lock(path: Path, mode: int) -> BinaryIO:
    """Opens and locks the file of a lock; the lock lasts while the file is open.

    The previous holder may remove the file between opening and locking it. Nobody else would see
    a lock on the removed file, so another file is opened then.

    Raises:
        BlockingIOError: If another process holds the lock, and `mode` has `LOCK_NB`.
    """
    while True:
        file = os.fdopen(open_no_follow(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
        try:
            fcntl.flock(file, mode)
            if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()
