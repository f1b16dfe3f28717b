"""The reference of the Python names, made from docstrings by autodoc.

A name that `db3kd` itself exports is described under `db3kd.NAME`, on the page of the stage that it
lives in. Every other public name of a stage is described under `db3kd.STAGE.NAME`.
"""

import ast
import importlib
import inspect
import pkgutil
from itertools import pairwise
from types import ModuleType
from typing import Any

from docstring_fields import with_plain_stars

import db3kd

_INTERNAL = ("arguments", "cli", "labels", "progress")
"""Packages without public names of their own."""


def stages() -> list[str]:
    """Returns the names of the packages that have public names, such as "labelling"."""
    found = [module.name for module in pkgutil.iter_modules(db3kd.__path__) if module.ispkg]
    return [name for name in found if name not in _INTERNAL] + ["errors", "teachers.remote"]


def names_of(stage: str) -> dict[str, Any]:
    """Returns the public names of a stage and their objects, in the order of its `__all__`."""
    module = importlib.import_module(f"db3kd.{stage}")
    return {name: getattr(module, name) for name in getattr(module, "__all__", _functions(module))}


def public_names() -> str:
    """Returns a table of what `db3kd` itself exports, by stage."""
    parts = []
    for stage, names in db3kd._HOME.items():
        entries = "\n".join(f"   db3kd.{name}" for name in sorted(names.split()))
        table = f".. autosummary::\n   :nosignatures:\n\n{entries}"
        parts.append(f"## [{stage}](/reference/python/{stage}.md)\n\n```{{eval-rst}}\n{table}\n```")
    return "\n\n".join(parts)


def stage_reference(stage: str) -> str:
    """Returns the description of every public name of a stage.

    Args:
        stage: Its name below `db3kd`, such as "labelling".
    """
    names = names_of(stage)
    exported = {name: found for name, found in names.items() if _is_exported(name, found)}
    deeper = {name: found for name, found in names.items() if name not in exported}
    if stage == "teachers":  # its package for served models has a page of its own
        deeper = {
            name: found for name, found in deeper.items() if name not in names_of("teachers.remote")
        }
    blocks = [f"# {stage}", str(importlib.import_module(f"db3kd.{stage}").__doc__).split("\n")[0]]
    if exported:
        blocks.append(_section("db3kd", exported))
    if deeper:
        blocks += [f"## More of `db3kd.{stage}`"] if exported else []
        blocks.append(_section(f"db3kd.{stage}", deeper))
    return "\n\n".join(blocks)


def _is_exported(name: str, found: Any) -> bool:
    return name in db3kd.__all__ and getattr(db3kd, name) is found


def _functions(module: ModuleType) -> list[str]:
    """Returns the public functions of a module without `__all__`."""
    return [
        name
        for name, found in vars(module).items()
        if inspect.isfunction(found)
        and not name.startswith("_")
        and found.__module__ == module.__name__
    ]


def _section(prefix: str, names: dict[str, Any]) -> str:
    table = "\n".join(
        f"   {prefix}.{name}" for name in sorted(names) if not _is_constant(names[name])
    )
    described = "\n\n".join(
        _directive(f"{prefix}.{name}", found) for name, found in sorted(names.items())
    )
    rst = f".. autosummary::\n   :nosignatures:\n\n{table}\n\n{described}"
    return f"```{{eval-rst}}\n{rst}\n```"


def _is_constant(found: Any) -> bool:
    return not (isinstance(found, type) or inspect.isfunction(found))


def _directive(name: str, found: Any) -> str:
    if isinstance(found, type):
        kind = "autoexception" if issubclass(found, BaseException) else "autoclass"
        bases = "" if found.__bases__ == (object,) else "\n   :show-inheritance:"
        return f".. {kind}:: {name}\n   :members:{bases}"
    if inspect.isfunction(found):
        return f".. autofunction:: {name}"
    prefix, _, constant = name.rpartition(".")
    value = f"\n   :value: {found!r}" if len(repr(found)) < 80 else ""
    text = constant_text(prefix, constant)
    return f".. py:data:: {name}{value}\n\n   " + text.replace("\n", "\n   ")


def constant_text(module: str, name: str) -> str:
    """Returns the docstring below the assignment of a constant.

    Args:
        module: A module that exports the constant.
        name: Its name.

    Raises:
        LookupError: If no module of the package assigns it, or there is no docstring.
    """
    for found in _imported_from(module, name):
        body = _syntax(found).body
        for statement, following in pairwise(body):
            if name in _assigned(statement) and (text := _string(following)):
                return with_plain_stars(inspect.cleandoc(text))
    raise LookupError(f"{module}.{name}: expected a docstring below its assignment, got none")


def _syntax(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def _assigned(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _string(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return statement.value.value if isinstance(statement.value.value, str) else None
    return None


def _imported_from(module: str, name: str) -> set[str]:
    """Returns the module that another one imports a name from, over any number of steps."""
    seen: set[str] = set()
    while module not in seen:
        seen.add(module)
        for node in ast.walk(_syntax(module)):
            if isinstance(node, ast.ImportFrom) and any(each.name == name for each in node.names):
                module = str(node.module)
    return seen
