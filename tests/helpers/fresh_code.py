"""Modules made of text, as another version of a file or another process has them."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from db3kd.teachers import FunctionTeacher


def fresh_module(text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Returns a new module, which a test can import by its name."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(text, f"{name}.py", "exec"), module.__dict__)
    return module


def function_print(function: object) -> str:
    """Returns the fingerprint of a teacher that asks a function."""
    return FunctionTeacher(function, (1, 8, 8), 10).fingerprint()  # type: ignore[arg-type]


def text_print(text: str) -> str:
    """Returns the fingerprint of the function `f` in the text of a module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return function_print(fresh_module(text, "fresh", monkeypatch).f)


def printed_by_process(run: str, folder: Path, seed: int) -> str:
    """Returns what a new process prints that may import the modules in a folder.

    Args:
        run: The code that it runs.
        folder: The folder.
        seed: What the order of its sets depends on.
    """
    environment = os.environ | {
        "PYTHONHASHSEED": str(seed),
        "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-c", run], env=environment, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()
