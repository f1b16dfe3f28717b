"""What a disk keeps through a crash: files put in place whole, folders that one process writes."""

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing keeps a second process out there
    fcntl = None

LOCK = ".lock"


def write_atomically(path: Path, content: bytes) -> None:
    """Once this returns the file outlives a crash; before, there is none, or the one of before.

    Raises OSError, naming `path`, where the disk is full or may not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise named(error, path) from error
        raise


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
    return file.name == LOCK or (file.name.startswith(".") and file.name.endswith(".tmp"))


class FolderLock:
    """Keeps every other writer out of a folder, until released or until the process ends.

    The kernel lets go of it with the process, so a kill leaves no lock behind, at most its file.

    Raises:
        BlockingIOError: somebody else holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._file = open(self._path, "ab")  # noqa: SIM115 - held open as long as the lock
        while not self._acquire(folder):
            self._file.close()
            self._file = open(self._path, "ab")  # noqa: SIM115

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
