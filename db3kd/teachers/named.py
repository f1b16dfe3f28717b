"""Teachers named by `package.module:object`: a teacher, a torch module, a factory or a function."""

import inspect
import re
from typing import Any

from torch import nn

from db3kd.teachers.base import Teacher, TeacherError, describe
from db3kd.teachers.execution import ExecutionOptions
from db3kd.teachers.function import FunctionTeacher
from db3kd.teachers.signature import ModelOverrides
from db3kd.validation import check_class_names, import_named

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_name(source: str) -> bool:
    """Returns whether the text has the form `package.module:object`."""
    return _NAME.fullmatch(source) is not None


def open_named(
    name: str, overrides: ModelOverrides, max_batch: int | None, execution: ExecutionOptions
) -> Teacher:
    """Imports an object and returns it as a teacher.

    Args:
        name: `package.module:object`. A callable that takes no arguments is called as a factory.
        overrides: What the user declares; modules and functions declare nothing themselves.
        max_batch: Maximum number of images per call, or None to choose it.
        execution: How to run a torch module.

    Raises:
        TeacherError: If the object is none of the known kinds.
        ValueError: If there is no such object, or an argument is missing or does not apply.
    """
    found = import_named(name, "teacher")
    if not isinstance(found, nn.Module) and not _is_teacher(found) and _takes_no_arguments(found):
        found = found()
    if isinstance(found, nn.Module) and not _is_teacher(found):
        return execution.module_teacher(found, name, overrides, max_batch, name=name)
    execution.refuse_for(name)
    if _is_teacher(found):
        if overrides.class_names is not None:
            found.class_names = check_class_names(
                overrides.class_names, found.classes, describe(found)
            )
        return found
    if callable(found):
        refuse_threshold(name, overrides)
        image_shape, classes, bounds = overrides.require_all(name)
        return FunctionTeacher(
            found, image_shape, classes, bounds, max_batch, name, class_names=overrides.class_names
        )
    raise TeacherError(
        f"{name}: expected a teacher, a torch module, a factory or a function, got "
        f"{type(found).__name__}"
    )


def refuse_threshold(name: str, overrides: ModelOverrides) -> None:
    """Refuses a threshold for a function, which returns classes.

    Raises:
        ValueError: If there is a threshold.
    """
    if overrides.threshold is not None:
        raise ValueError(
            f"threshold: expected a model that returns scores, got the function {name}, which "
            "returns classes; omit threshold"
        )


def _is_teacher(found: Any) -> bool:
    return isinstance(found, Teacher) and not isinstance(found, type)


def _takes_no_arguments(found: Any) -> bool:
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return False
    return True
