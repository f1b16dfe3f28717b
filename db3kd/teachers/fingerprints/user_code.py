"""Reads code: its instructions, the names that they use, and whether it belongs to a library."""

import dis
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

_READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ASSIGNS = ("STORE_GLOBAL", "DELETE_GLOBAL")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_ABOUT_SOURCE = ("__doc__", "__firstlineno__", "__static_attributes__")
"""What the code of a class stores about its source."""

_LIBRARIES = ("torch", "db3kd", "builtins")
"""Packages whose code never counts, so that their next versions give the same fingerprints."""

_INSTALLED = {"site-packages", "dist-packages"}
_SIGNATURE_FLAGS = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)


def instructions_of(code: CodeType) -> list[tuple[Any, ...]]:
    """Returns the signature and the instructions of code as plain values and constants.

    Comments, line numbers, annotations and docstrings are not in it. The code of a function that
    this code defines is one of the constants.
    """
    signature = (
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags & _SIGNATURE_FLAGS,
        code.co_exceptiontable,
    )
    found: list[tuple[Any, ...]] = [signature]
    for step in dis.get_instructions(code):
        if step.opname == "STORE_NAME" and step.argval in _ABOUT_SOURCE:
            found.pop()  # the constant
        else:
            found.append((step.opname, step.argval))
    return found


@dataclass(frozen=True)
class CodeNames:
    """The names that code uses, with those in the functions that it defines.

    Attributes:
        read: The globals that it reads.
        assigned: The globals that it assigns or deletes.
        attributes: The attributes that it reads.
    """

    read: set[str]
    assigned: set[str]
    attributes: set[str]

    @classmethod
    def of(cls, code: CodeType) -> "CodeNames":
        """Finds the names in code."""
        steps = [step for each in _nested(code) for step in dis.get_instructions(each)]

        def used(instructions: tuple[str, ...]) -> set[str]:
            return {step.argval for step in steps if step.opname in instructions}

        return cls(used(_READS), used(_ASSIGNS), used(_ATTRIBUTES))


def _nested(code: CodeType) -> Iterator[CodeType]:
    """Yields code and the code of all functions that it defines."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def is_of_library(module: str) -> bool:
    """Returns whether the code of a module never counts."""
    return module.partition(".")[0] in _LIBRARIES


def is_installed(package: str) -> bool:
    """Returns whether a package is part of Python or in site-packages."""
    if package == "__main__":
        return False
    module = sys.modules.get(package)
    paths = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", [])]
    folders = {part for path in paths for part in Path(path).parts}
    return package in sys.stdlib_module_names or bool(folders & _INSTALLED)
