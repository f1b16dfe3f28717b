"""What commands write: nothing is overwritten, and nothing that was paid for is lost."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db3kd.errors import ArgumentError, OutputExistsError
from db3kd.wording import counted


def refuse_existing(path: Path, advice: str = "pass another --out") -> None:
    """Checks, before any work, that nothing exists at a path.

    The error ends with the advice.

    Raises:
        FileExistsError: If a file or folder exists at the path.
        NotADirectoryError: If the path leads through a file.
        OSError: If nothing can be written at the path.
    """
    from db3kd.storage.filesystem import check_parents

    check_parents(path)
    if path.exists() or path.is_symlink():
        raise OutputExistsError(f"{path}: already exists; {advice}")


def check_weights_file(path: Path) -> None:
    """Checks the name of a weights file, and that neither it nor its .json file exists.

    Raises:
        ValueError: If the name does not end in .safetensors.
        FileExistsError: If one of the two files exists.
    """
    if path.suffix != ".safetensors":
        raise ArgumentError("out", f"expected a name ending in .safetensors, got {path.name!r}")
    refuse_existing(path)
    refuse_existing(path.with_suffix(".json"))


def check_run_folder(out: Path, resume: bool, format: str) -> None:
    """Checks, before any work, that --out can take a new run, or has the run to resume."""
    from db3kd.storage.existing_runs import check_output

    check_output(out, resume, format)
    note_new_run(out, resume)


def note_new_run(out: Path, resume: bool, *runs: Path) -> None:
    """Prints a note if there is no run to resume in --out, so that a new one starts.

    `runs` are the run folders of `out`, if it is not one itself.
    """
    from db3kd.storage.existing_runs import holds_run

    if resume and not any(map(holds_run, runs or (out,))):
        print(f"note: no run in {out} to resume; this is a new one", file=sys.stderr)


@contextmanager
def printing_notes() -> Iterator[None]:
    """Prints the notes of an error that ends the block, which the line of the error lacks."""
    try:
        yield
    except BaseException as error:
        _print_notes(error)
        raise


def _print_notes(error: BaseException) -> None:
    for note in getattr(error, "__notes__", ()):
        print(f"note: {note}", file=sys.stderr)


@contextmanager
def hint_at_resuming(*runs: Path) -> Iterator[None]:
    """Prints how to continue if the block fails after answers were paid for, which `runs` keep."""
    folders = tuple(run.absolute() for run in runs)  # a teacher may change the working directory
    from db3kd.querying.kept_answers import NOT_MENDED_BY_RESUMING
    from db3kd.storage.existing_runs import holds_run
    from db3kd.teachers.base import SingleClassError, UnknownClassError

    try:
        yield
    except (SingleClassError, *NOT_MENDED_BY_RESUMING) as error:
        if isinstance(error, BlockingIOError):
            _print_notes(error)
        raise
    except BaseException as error:
        if any(map(holds_run, folders)):
            then = "continue with --resume"
            if isinstance(error, UnknownClassError):
                then = (
                    "if the class names can be corrected as below, continue with --resume "
                    "--accept-changed-teacher"
                )
            print(_hint(folders, then), file=sys.stderr)
        else:
            _print_notes(error)
        raise


def _hint(runs: tuple[Path, ...], then: str) -> str:
    from db3kd.storage.existing_runs import queries_paid_twice
    from db3kd.storage.run_journals import queries_unanswered

    try:
        unanswered, earlier = sum(map(queries_unanswered, runs)), queries_paid_twice(*runs)
    except (ValueError, OSError) as error:
        return f"the answers so far are kept, but a journal cannot be read: {error}"
    lost = ""
    if unanswered:
        lost = (
            f"; up to {counted(unanswered, 'query')} of the last call may have been paid without "
            "an answer, and will be sent again"
        )
        if unanswered > 1:
            lost += (
                " (fewer with a smaller --max-batch, with a generator function, or with a smaller "
                "batch or in_flight of a service)"
            )
    if earlier:
        others = "other " if unanswered else ""
        lost += f"; this run pays at most {counted(earlier, f'{others}query')} twice"
    return f"the answers so far are kept{lost}; {then}"
