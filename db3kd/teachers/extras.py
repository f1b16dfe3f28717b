"""Imports packages that only some teachers and exports need."""

from importlib import import_module
from types import ModuleType


def import_extra(module: str, extra: str, purpose: str = "this teacher") -> ModuleType:
    """Imports a module of an optional dependency.

    Args:
        module: The module.
        extra: The extra of db3kd that installs it.
        purpose: What needs the module, for the error.

    Raises:
        ModuleNotFoundError: If it is not installed. The message names the extra of db3kd to
            install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{purpose} needs the package {error.name}: pip install "db3kd[{extra}]"',
            name=error.name,
        ) from error
