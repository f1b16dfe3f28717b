"""Packages that only some teachers need."""

from importlib import import_module
from types import ModuleType


def import_extra(module: str, extra: str) -> ModuleType:
    """The module, or a ModuleNotFoundError that names the extra of db3kd that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'this teacher needs the package {error.name}: pip install "db3kd[{extra}]"',
            name=error.name,
        ) from error
