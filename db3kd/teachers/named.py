"""Teachers named by `package.module:object`: a teacher, a torch module, a factory or a function."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from db3kd.arguments.images import check_class_names
from db3kd.errors import ArgumentError
from db3kd.named_import import import_named
from db3kd.tables import Features
from db3kd.teachers.base import Teacher, TeacherError, describe
from db3kd.teachers.functions.function import FunctionTeacher
from db3kd.teachers.functions.tabular import TabularTeacher, states_classes
from db3kd.teachers.signature import ModelOverrides, UndeclaredError
from db3kd.teachers.torch_modules.execution import ExecutionOptions
from db3kd.wording import shortened

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
        UndeclaredError: If an argument is missing. `error.found` is the object.
        ValueError: If there is no such object, or an argument does not apply.
    """
    found = import_object(name, "teacher")
    try:
        return _as_teacher(found, name, overrides, max_batch, execution)
    except UndeclaredError as error:
        error.found = found
        raise


def _as_teacher(
    found: Any,
    name: str,
    overrides: ModelOverrides,
    max_batch: int | None,
    execution: ExecutionOptions,
) -> Teacher:
    """Returns an object as a teacher; see `open_named`."""
    if isinstance(found, nn.Module) and not _is_teacher(found):
        return execution.module_teacher(found, name, overrides, max_batch, name=name)
    execution.refuse_for(name)
    if _is_teacher(found):
        if overrides.class_names is not None:
            found.class_names = check_class_names(
                overrides.class_names, found.classes, describe(found)
            )
        _check_features(found, name, overrides.features)
        return found
    if overrides.features is not None and (callable(found) or hasattr(found, "predict")):
        refuse_threshold(name, overrides)
        return tabular_teacher(found, name, overrides, max_batch)
    if callable(found):
        refuse_threshold(name, overrides)
        image_shape, classes, bounds = overrides.require_all(name)
        return FunctionTeacher(
            found,
            image_shape,
            classes,
            bounds,
            max_batch,
            name,
            # The methods of scikit-learn's models take rows.
            flatten=hasattr(getattr(found, "__self__", None), "n_features_in_"),
            class_names=overrides.class_names or overrides.assumed_class_names,
        )
    if hasattr(found, "predict"):
        raise UndeclaredError(
            f"{name}: {type(found).__name__} does not declare the values of its columns; a fitted "
            "model needs features=, or data that are a table; if its columns are the pixels of "
            f"images, name its method: {name}.predict"
        )
    raise TeacherError(
        f"{name}: expected a teacher, a torch module, a factory or a function, got "
        f"{type(found).__name__}"
    )


def named_details(found: Any) -> Iterator[tuple[str, str]]:
    """Yields what an object that does not suffice for a teacher states about itself.

    Example:
        >>> dict(named_details(forest))
        {'kind': 'fitted model RandomForestClassifier', 'classes': '3', 'columns': '13: alcohol, …'}

    Args:
        found: The object, such as `UndeclaredError.found`.
    """
    kind = type(found).__name__
    if isinstance(found, nn.Module):
        weights = sum(each.numel() for each in found.parameters())
        yield "kind", f"torch module {kind} with {weights:,} weights"
    elif hasattr(found, "predict"):
        yield "kind", f"fitted model {kind}"
    else:
        yield "kind", f"function {getattr(found, '__qualname__', kind)}"
    labels = getattr(found, "classes_", None)
    if labels is not None:
        yield "classes", f"{len(labels)}: {shortened(labels)}"
    columns = getattr(found, "feature_names_in_", None)
    count = getattr(found, "n_features_in_", None)
    if columns is not None:
        yield "columns", f"{len(columns)}: {shortened(columns)}"
    elif count is not None:
        yield "columns", f"{count} without names"


def tabular_teacher(
    found: Any, name: str, overrides: ModelOverrides, max_batch: int | None
) -> TabularTeacher:
    """Returns the teacher of a function, or of a fitted model, that takes rows of a table.

    Args:
        found: The function or model.
        name: The teacher's name.
        overrides: What the user declares, which includes the features of the rows. Class labels
            that a fitted model states come before the assumed number of classes.
        max_batch: Maximum number of rows per call, or None to choose it.

    Raises:
        UndeclaredError: If the number of classes of a function is unknown.
        ValueError: If a model states no classes, or if an argument does not apply.
    """
    names, classes, features = overrides.class_names, overrides.classes, overrides.features
    assert features is not None  # the caller checks it
    if names is None and not states_classes(found):
        names = overrides.assumed_class_names
    if classes is None and not states_classes(found):
        classes = overrides.assumed_classes if names is None else len(names)
        if classes is None and not hasattr(found, "predict"):
            raise UndeclaredError(f"{name}: does not declare its number of classes; pass classes=")
    shape = overrides.image_shape or features.unit_shape
    if shape != features.unit_shape:
        raise ArgumentError(
            "image_shape",
            f"expected {features.unit_shape}, the shape of encoded rows, got {shape}; leave it out",
        )
    return TabularTeacher(found, features, classes, names, max_batch=max_batch, name=name)


def refuse_threshold(name: str, overrides: ModelOverrides) -> None:
    """Refuses a threshold for a function, which returns classes.

    Raises:
        ValueError: If there is a threshold.
    """
    if overrides.threshold is not None:
        raise ArgumentError(
            "threshold",
            f"expected a model that returns scores, got the function {name}, which "
            "returns classes; omit threshold",
        )


def _check_features(found: Teacher, name: str, features: Features | None) -> None:
    """Refuses data that were encoded by other features than the teacher decodes with."""
    known = Features.of(found)
    if known is not None and features is not None and known != features:
        raise ArgumentError(
            "features",
            f"expected those of teacher {name}, got others from the data; name the teacher itself "
            "rather than a function that makes it, or save its features with "
            "teacher.features.save('features.json'), and give that file as features=",
        )


def import_object(name: str, argument: str) -> Any:
    """Imports an object. One that is called without arguments is a factory, and is called.

    Args:
        name: See `open_named`.
        argument: The name of the argument in errors.

    Raises:
        TeacherError: If the factory raises it.
        ValueError: If there is no such object, or if the factory fails in another way.
    """
    found = import_named(name, argument)
    if not isinstance(found, nn.Module) and not _is_teacher(found) and _takes_no_arguments(found):
        try:
            found = found()
        except TeacherError:
            raise  # The message of db3kd says what is wrong.
        except Exception as error:
            raise ArgumentError(
                argument,
                f"expected a factory that can be called without arguments, got {name}, "
                f"which fails ({type(error).__name__}: {error})",
            ) from error
    return found


def _is_teacher(found: Any) -> bool:
    return isinstance(found, Teacher) and not isinstance(found, type)


def _takes_no_arguments(found: Any) -> bool:
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return False
    return True
