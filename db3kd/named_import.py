"""Imports objects by name: `package.module:name`, as a teacher or a network is named."""

import pkgutil
import sys
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from db3kd.errors import ArgumentError
from db3kd.wording import did_you_mean


def import_named(reference: str, name: str) -> Any:
    """Imports an object. Its module may be in the current folder, after all installed ones.

    `name` is the argument that errors name.

    Example:
        >>> import_named("math:pi", "constant")
        3.141592653589793

    Raises:
        ValueError: If the reference has another form, or there is no such module or object.
    """
    check_no_python_file(reference, name)
    module_name, _, path = reference.partition(":")
    if not module_name or not path:
        raise ArgumentError(name, f"expected package.module:object, got {reference!r}")
    folder = str(Path.cwd())
    if not {"", folder} & set(sys.path):
        sys.path.append(folder)  # permanently: a worker may import the module later
    try:
        found = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        advice = "; change to its folder, install it, or put its folder on PYTHONPATH"
        raise ArgumentError(
            name,
            f"expected package.module:object, got {reference!r}, but no module "
            f"{module_name!r} was found here or among the installed ones"
            f"{did_you_mean(module_name, _modules_here()) or advice}",
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ArgumentError(
                name,
                f"expected an object of module {module_name!r}, got {path!r}, which it "
                f"does not have{did_you_mean(part, vars(found))}",
            )
        found = getattr(found, part)
    return found


def check_no_python_file(text: str, name: str) -> None:
    """Checks that a text is no path of a Python file where `package.module:object` is expected.

    `name` is the argument that errors name.

    Raises:
        ValueError: If it is. The message states the module and the object as they are expected.
    """
    file, _, found = text.partition(":")
    is_path = "/" in file and found.isidentifier()
    if not file.endswith(".py") and not is_path:
        return
    *folders, module = PurePath(file.removesuffix(".py")).parts
    place = ""
    if all(folder.isidentifier() for folder in folders):
        module = ".".join([*folders, module])
    else:
        place = f" in the folder {PurePath(file).parent}, or with this folder on PYTHONPATH"
    what = "" if found else ", with the name of a function or object in it"
    raise ArgumentError(
        name,
        f"expected package.module:object for an object in a Python file, got {text!r}; use "
        f"{module}:{found or 'NAME'}{what}{place}",
    )


def _modules_here() -> list[str]:
    """Returns the names of the modules and packages in the current folder."""
    return [each.name for each in pkgutil.iter_modules([str(Path.cwd())])]
