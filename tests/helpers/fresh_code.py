"""Modules made of text, as another version of a file has them."""

import sys
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
