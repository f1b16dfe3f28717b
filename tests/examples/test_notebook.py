"""The notebook runs from the first cell to the last, with small settings."""

import json
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "docs"))

from execute_notebook import DIGEST, sources_digest  # noqa: E402

SMALL = {"BUDGET": "300", "STEPS": "20", "PAIR_BUDGET": "10"}


def with_small_settings(source: str) -> str:
    """The cell of settings with small values."""
    for name, value in SMALL.items():
        source, count = re.subn(rf"^{name} = \S+", f"{name} = {value}", source, flags=re.MULTILINE)
        assert count == 1, name
    return source


def test_the_outputs_are_those_of_the_cells():
    notebook = json.loads((ROOT / "examples/first_student.ipynb").read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]

    assert notebook["metadata"][DIGEST] == sources_digest(notebook), "run make notebook"
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert sum("image/png" in each.get("data", ()) for cell in code for each in cell["outputs"]) > 2


def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "examples/first_student.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = with_small_settings(first.source)

    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()

    printed = "".join(
        output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )
    assert "DistillResult(agreement" in printed
    assert "Labels(60 samples" in printed
    assert (tmp_path / "runs/first-student/student.onnx").is_file()
