"""Runs a notebook and keeps its outputs, by `python docs/execute_notebook.py FILE`.

The site shows the outputs. The notebook's metadata hold the checksum of the cells that made them,
and a test compares it, so that outputs are never those of other cells.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

DIGEST = "executed_sources_sha256"


def sources_digest(notebook: dict[str, Any]) -> str:
    """Returns the checksum of the sources of all code cells."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def execute(path: Path) -> None:
    """Runs all cells in an empty folder, and writes the notebook with their outputs."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
        ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # Progress on standard error is drawn anew for each line; it means nothing afterwards.
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    notebook.metadata[DIGEST] = sources_digest(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
