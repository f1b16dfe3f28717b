"""Names the commit of the working tree. Imports the standard library only."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def commit() -> str:
    """Returns DB3KD_COMMIT if it is set, or else the commit of this working tree.

    A copy without history has no commit of its own. The commit ends with "-dirty" if files other
    than results differ from it.
    """
    given = os.environ.get("DB3KD_COMMIT")
    if given:
        return given
    changes = git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results"
    )
    found = git("rev-parse", "--short", "HEAD")
    if not found:
        return "unknown"
    return f"{found}-dirty" if changes else found


def git(*command: str) -> str:
    """Returns the output of git in the working tree; empty if git fails."""
    try:
        return subprocess.run(
            ["git", *command], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        return ""
