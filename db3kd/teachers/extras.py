"""Imports packages that only some teachers need."""

from importlib import import_module
from types import ModuleType


def import_extra(module: str, extra: str) -> ModuleType:
    """Imports a module of an optional dependency.

    Raises:
        ModuleNotFoundError: If it is not installed. The message names the extra of db3kd to
            install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'this teacher needs the package {error.name}: pip install "db3kd[{extra}]"',
            name=error.name,
        ) from error
