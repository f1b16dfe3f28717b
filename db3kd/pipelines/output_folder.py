"""The folder of a run: the caller's, or a temporary one that is kept if it holds paid answers.

Errors that end a run after answers were paid for get a note that says where these are.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from db3kd.errors import ArgumentError
from db3kd.querying.kept_answers import note_kept, noting_kept_answers
from db3kd.storage.existing_runs import check_free, holds_run


@contextmanager
def output_folder(out: str | Path | None, resume: bool) -> Iterator[Path]:
    """Yields the folder of a run; a temporary one is removed unless an error leaves answers in it.

    Raises:
        ValueError: If there is no folder to resume.
        FileExistsError: If `out` is not empty and `resume` is False.
    """
    if out is not None:
        check_free(out, resume)
        with noting_kept_answers(out):
            yield Path(out)
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
            note_kept(error, advice, str(folder))
            raise
        shutil.rmtree(parent, ignore_errors=True)
        raise
    shutil.rmtree(parent, ignore_errors=True)
