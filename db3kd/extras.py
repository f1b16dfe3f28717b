"""Imports the packages that only an extra of db3kd installs."""

from importlib import import_module
from types import ModuleType

from db3kd.errors import MissingPackageError

_PACKAGES = {"PIL": "pillow", "jinja2": "Jinja2", "sklearn": "scikit-learn"}
"""The packages whose modules have other names than themselves."""


def package_of(module: str) -> str:
    """Returns the name by which pip knows the package of a module.

    Example:
        >>> package_of("PIL.Image"), package_of("tritonclient.http")
        ('pillow', 'tritonclient.http')
    """
    return _PACKAGES.get(module.partition(".")[0], module)


def import_extra(module: str, extra: str, purpose: str = "this teacher") -> ModuleType:
    """Imports a module of an optional dependency.

    Args:
        module: The module.
        extra: The extra of db3kd that installs it.
        purpose: What needs the module, for the error.

    Raises:
        MissingPackageError: If it is not installed. The message names the package, and the extra of
            db3kd to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = package_of(error.name or module)
        raise MissingPackageError(
            f'{purpose} needs the package {missing}: pip install "db3kd[{extra}]"', name=error.name
        ) from error
