"""Packages that only some data sets need."""

from typing import Any

from db3kd.extras import import_extra


def import_data_package(module: str) -> Any:
    """Imports a module of an optional package.

    Raises:
        ModuleNotFoundError: If the package is not installed; the message names the extra that
            installs it.
    """
    return import_extra(module, "data", "this data set")
