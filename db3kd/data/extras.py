"""Packages that only some data sets need."""

from importlib import import_module
from typing import Any


def import_data_package(module: str) -> Any:
    """Imports a module of an optional package.

    Raises:
        ImportError: If the package is not installed; the message names the extra that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise ImportError(
            f"this data set needs the package {error.name}: pip install db3kd[data]"
        ) from error
