"""The folder of a run: the caller's, or a temporary one that is kept if it holds paid answers.

Errors that end a run after answers were paid for get a note that says where these are.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db3kd.errors import ArgumentError
from db3kd.storage.existing_runs import check_free, holds_run
from db3kd.teachers import TeacherChangedError, TeacherError
from db3kd.teachers.base import SingleClassError

_KEPT = "the answers that were paid for are kept"


@contextmanager
def output_folder(out: str | Path | None, resume: bool) -> Iterator[Path]:
    """Yields the folder of a run; a temporary one is removed unless an error leaves answers in it.

    Raises:
        ValueError: If there is no folder to resume.
        FileExistsError: If `out` is not empty and `resume` is False.
    """
    if out is not None:
        check_free(out, resume)
        folder = Path(out).absolute()  # a teacher may change the working directory
        try:
            yield Path(out)
        except (TeacherError, OSError, KeyboardInterrupt) as error:
            # A BlockingIOError says that another process is writing the run.
            # With a changed teacher, resuming alone ends with the same error again.
            if holds_run(folder) and not isinstance(error, BlockingIOError | TeacherChangedError):
                _add_note(error, "continue with resume=True", str(out))
            raise
        return
    if resume:
        raise ArgumentError("resume", "needs out=, the folder of the run")
    parent = tempfile.mkdtemp(prefix="db3kd-")
    folder = Path(parent) / "run"
    try:
        yield folder
    except BaseException as error:
        if holds_run(folder):
            advice = f"continue with out={str(folder)!r}, resume=True"
            _add_note(error, advice, str(folder))
            raise
        shutil.rmtree(parent, ignore_errors=True)
        raise
    shutil.rmtree(parent, ignore_errors=True)


def _add_note(error: BaseException, advice: str, folder: str) -> None:
    """Adds the note to an error; that of a comparison replaces the one of its distillation."""
    others = [each for each in getattr(error, "__notes__", ()) if not each.startswith(_KEPT)]
    # A run with a single class ends in the same way if it is resumed.
    single = isinstance(error, SingleClassError)
    error.__notes__ = [*others, f"{_KEPT} in {folder!r}" if single else f"{_KEPT}; {advice}"]
