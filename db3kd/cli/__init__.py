"""The command line, `db3kd`; db3kd/cli/app.py lists its commands."""

import os
import sys


def main() -> None:
    """Runs `db3kd`."""
    # Before torch is loaded: its threads sleep while they wait, and leave the cores to others.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from db3kd.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f'error: the command line needs {error.name}: pip install "db3kd[cli]"')
    app()
