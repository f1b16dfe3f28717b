"""The packages that reports need, which are imported when a report is written."""

from importlib.util import find_spec

_PACKAGES = {"matplotlib": "matplotlib", "jinja2": "Jinja2", "PIL": "pillow"}
"""Modules, and the packages that hold them."""


def check_report_packages() -> None:
    """Raises ModuleNotFoundError if a report could not be written, before anything is paid for."""
    for module, package in _PACKAGES.items():
        try:
            found = find_spec(module) is not None
        except ValueError:  # a module that was set to None
            found = False
        if not found:
            raise ModuleNotFoundError(
                f'reports need the package {package}: pip install "db3kd[cli]"', name=module
            )
