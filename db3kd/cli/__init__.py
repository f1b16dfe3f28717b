"""The command line, `db3kd`.

Each command has its own module, which imports its stage when the command runs. Option sets are
dataclasses that commands share. Each error is one line that names options (db3kd/cli/errors.py).
"""

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Runs `db3kd`."""
    # This must be set before torch is loaded: waiting threads sleep and leave the cores to others.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from db3kd.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(f'error: the command line needs {error.name}: pip install "db3kd[cli]"')
    try:
        app()
    except ImportError as error:
        if error.name != "db3kd._C":
            raise
        sys.exit(f"error: {error}")
