"""Notes on the errors that end a run, which say where its answers are and how to continue it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db3kd.errors import ArgumentError, ArgumentTypeError, InputError
from db3kd.storage.existing_runs import holds_run
from db3kd.teachers.base import SingleClassError, TeacherChangedError

_KEPT = "the answers that were paid for are kept"

NOT_MENDED_BY_RESUMING = (
    BlockingIOError,
    TeacherChangedError,
    ArgumentError,
    ArgumentTypeError,
    InputError,
)
"""Errors that resuming alone does not mend: another process writes the run, the arguments are those
of another run, a file is damaged, or the teacher has changed."""


@contextmanager
def noting_kept_answers(out: str | Path, *, folder: Path | None = None) -> Iterator[None]:
    """Adds a note to an error that ends the block if a run folder keeps answers.

    Interrupts, exits and the errors of callbacks get it like those of the teacher.

    Args:
        out: What the caller passes to continue the run.
        folder: The run folder; by default `out`.
    """
    # The block may change the working directory.
    kept = Path(out if folder is None else folder).absolute()
    try:
        yield
    except BaseException as error:
        if holds_run(kept) and not isinstance(error, NOT_MENDED_BY_RESUMING):
            note_kept(error, "continue with resume=True", str(out))
        raise


def note_kept(error: BaseException, advice: str, folder: str) -> None:
    """Adds the note to an error; that of a comparison replaces the one of its distillation.

    Args:
        error: The error.
        advice: How to continue.
        folder: The folder, for a run that ends in the same way if it is resumed.
    """
    others = [each for each in getattr(error, "__notes__", ()) if not each.startswith(_KEPT)]
    single = isinstance(error, SingleClassError)
    error.__notes__ = [*others, f"{_KEPT} in {folder!r}" if single else f"{_KEPT}; {advice}"]
