"""The packages that reports need, which are imported when a report is written."""

from importlib.util import find_spec

from db3kd.errors import MissingPackageError
from db3kd.extras import package_of

_MODULES = ("matplotlib", "jinja2", "PIL")


def check_report_packages() -> None:
    """Raises MissingPackageError if a report could not be written, before anything is paid for."""
    for module in _MODULES:
        try:
            found = find_spec(module) is not None
        except ValueError:  # a module that was set to None
            found = False
        if not found:
            raise MissingPackageError(
                f'reports need the package {package_of(module)}: pip install "db3kd[cli]"',
                name=module,
            )
