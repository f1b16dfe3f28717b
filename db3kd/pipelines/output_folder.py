"""The folder of a run: the caller's, or a temporary one that is kept if it holds paid answers."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db3kd.storage.existing_runs import check_free, holds_run


@contextmanager
def output_folder(out: str | Path | None, resume: bool) -> Iterator[Path]:
    """Yields the folder of a run; a temporary one is removed unless an error leaves answers in it.

    Args:
        out: The caller's folder; None for a temporary one.
        resume: Whether a run in `out` may be continued.

    Raises:
        ValueError: If there is no folder to resume.
        FileExistsError: If `out` is not empty and `resume` is False.
    """
    if out is not None:
        check_free(out, resume)
        yield Path(out)
        return
    if resume:
        raise ValueError("resume: needs out=, the folder of the run")
    parent = tempfile.mkdtemp(prefix="db3kd-")
    folder = Path(parent) / "run"
    try:
        yield folder
    except BaseException as error:
        if holds_run(folder):
            error.add_note(
                f"the answers that were paid for are kept; continue with out={str(folder)!r}, "
                "resume=True"
            )
            raise
        shutil.rmtree(parent, ignore_errors=True)
        raise
    shutil.rmtree(parent, ignore_errors=True)
