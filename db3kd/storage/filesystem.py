"""What a disk keeps through a crash: files put in place whole, folders that one process writes."""

import errno
import os
import secrets
import time
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: nothing keeps a second process out there
    fcntl = None

LOCK = ".lock"

_HELPERS = ".helpers"

LOCKS = (LOCK, _HELPERS)
"""Files that keep processes apart, and hold nothing."""

_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""A folder may be somebody else's, with links in it to files that are not to be written."""

_HELPERS_END_SECONDS = 15.0
"""How long the helpers of a process that was killed may take to notice."""


def write_atomically(path: Path, content: bytes) -> None:
    """Once this returns the file outlives a crash; before, there is none, or the one of before.

    Raises OSError, naming `path`, where the disk is full or may not be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
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


def open_no_follow(path: Path, flags: int) -> int:
    """A descriptor of the file at `path` itself, as `os.open`.

    Raises:
        OSError: it cannot be opened, or is a symbolic link.
    """
    try:
        return os.open(path, flags | _NO_LINKS, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and path.is_symlink():
            raise OSError(
                error.errno, "expected a file, found a symbolic link; remove it", str(path)
            ) from error
        raise


def truncate(path: Path, size: int) -> None:
    """Cuts off what the file at `path` holds beyond `size` bytes; a link is an error."""
    descriptor = open_no_follow(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """A new name lasts only once its folder is on disk too. Windows has no way to ask for that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def named(error: OSError, path: Path) -> OSError:
    """The same error with the file it is about; a full disk does not say by itself."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def is_leftover(file: Path) -> bool:
    """Whether a killed process left this behind: a lock, or a file that was not yet in place."""
    return file.name in LOCKS or (file.name.startswith(".") and file.name.endswith(".tmp"))


class FolderLock:
    """Keeps every other writer out of a folder, until released or until the process ends.

    The kernel lets go of it with the process, so a kill leaves no lock behind, at most its file.

    Raises:
        BlockingIOError: somebody else holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file = _open_lock(self._path)
        while not self._acquire(folder):
            self._file.close()
            self._file = _open_lock(self._path)

    def release(self) -> None:
        """Lets others write; more than once does no harm."""
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()

    def _acquire(self, folder: Path) -> bool:
        """False where the holder before took the file away between our opening and locking it."""
        if fcntl is None:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise BlockingIOError(
                f"{folder}: another process is writing this run; wait for it, or stop it first"
            ) from error
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False


class SharedLock:
    """Says that this process writes into a folder for the one that holds its lock.

    It says so until the process ends, or until released: helpers outlive a holder that was killed,
    and nobody else may write as long as they do. The holder sees to it that a helper has said so
    before it is given work.
    """

    def __init__(self, folder: Path) -> None:
        self._file = _open_lock(folder / _HELPERS)
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_SH)

    def release(self) -> None:
        self._file.close()


def wait_for_workers(folder: Path, seconds: float | None = None) -> None:
    """Waits until no process is `SharedLock` any more. To be called by the holder of the lock.

    seconds: at most; by default as long as those of a process that was killed need to notice.

    Raises:
        BlockingIOError: one still is.
    """
    path = folder / _HELPERS
    if not path.exists():
        return
    end = time.monotonic() + (_HELPERS_END_SECONDS if seconds is None else seconds)
    with _open_lock(path) as file:
        while not _alone(file):
            if time.monotonic() >= end:
                raise BlockingIOError(
                    f"{folder}: workers of a run that was stopped are still writing it; wait for "
                    "them, or stop them first"
                )
            time.sleep(0.1)
        path.unlink(missing_ok=True)


def _open_lock(path: Path) -> BinaryIO:
    """The file of a lock, to be held open as long as the lock is."""
    return os.fdopen(open_no_follow(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")


def _alone(file: BinaryIO) -> bool:
    """Whether nobody else has this file locked."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
