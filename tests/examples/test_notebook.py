"""The notebook runs from the first cell to the last, with small settings."""

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

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


def run_cell(source: str, names: dict[str, Any]) -> str:
    """Runs a cell and returns the text of its value, without a kernel that imports all again."""
    *statements, last = ast.parse(source).body
    if not isinstance(last, ast.Expr):
        exec(source, names)
        return ""
    exec(compile(ast.Module(statements, []), "a cell", "exec"), names)
    return repr(eval(compile(ast.Expression(last.value), "a cell", "eval"), names))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:matplotlib")  # a kernel prints them
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    notebook = json.loads((ROOT / "examples/first_student.ipynb").read_text())
    first, *others = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    names: dict[str, Any] = {}

    values = "".join(run_cell(cell, names) for cell in (with_small_settings(first), *others))

    assert "DistillResult(agreement" in values
    assert "Labels(60 samples" in values
    assert len(shown) > 2
    plt.close("all")
    assert (tmp_path / "runs/first-student/student.onnx").is_file()
