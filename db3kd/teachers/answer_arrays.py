"""Converts what a function or a service returned to an array, whatever its type."""

import inspect
from typing import Any

import numpy as np
from torch import Tensor

from db3kd.teachers.base import TeacherError

_MAX_INT64 = 2**63 - 1


def as_answer_array(answers: Any, expected: str) -> np.ndarray:
    """Returns answers as an array, in which no value was rounded or turned into text.

    Args:
        answers: An array, a tensor, nested lists or a single value. A masked array stays one.
        expected: How errors begin.

    Returns:
        An array; its dtype is object if values of different types or integers of more than 64 bits
        are in a list.

    Raises:
        TeacherError: If there is no such array.
    """
    if isinstance(answers, np.ma.MaskedArray):
        return answers
    if inspect.isgenerator(answers):
        raise TeacherError(
            f"{expected}, got a generator from a function without yield; pass the generator "
            "function itself, without a lambda or a decorator around it"
        )
    try:
        array = np.asarray(_without_gradients(answers))
    except ValueError:
        raise TeacherError(f"{expected}, got rows of different lengths") from None
    except (TypeError, RuntimeError, OverflowError) as error:
        raise TeacherError(f"{expected}, got {_kind(answers)}: {error}") from None
    if array.ndim == 1 and isinstance(answers, list | tuple):
        kind = array.dtype.kind
        if kind in "OUS" or (kind == "f" and any(map(_is_large, answers))):
            array = np.empty(len(answers), object)
            array[:] = answers
    return array


def check_answer_range(values: np.ndarray | list[Any], classes: int, who: str) -> None:
    """Raises TeacherError if one of the integers does not fit into int64."""
    if isinstance(values, np.ndarray) and (values.dtype != np.uint64 or not values.size):
        return
    extremes = (int(values.max()),) if isinstance(values, np.ndarray) else values
    for number in extremes:
        if _is_large(number):
            raise out_of_range(number, classes, who)


def out_of_range(number: int, classes: int, who: str) -> TeacherError:
    """Returns the error to raise for a class number outside [0, classes)."""
    advice = "number the classes from 0, or correct classes="
    if number == classes:
        advice = (
            "if it numbers its classes from 1, let it return each number minus 1; otherwise "
            "correct classes="
        )
    return TeacherError(f"{who} returned class {number}, expected [0, {classes}); {advice}")


def _without_gradients(answers: Any) -> Any:
    if isinstance(answers, Tensor):
        return answers.detach().cpu()
    if isinstance(answers, list | tuple) and any(isinstance(each, Tensor) for each in answers):
        return [_without_gradients(each) for each in answers]
    return answers


def _is_large(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not -_MAX_INT64 <= int(value) <= _MAX_INT64


def _kind(answers: Any) -> str:
    return "a tensor" if isinstance(answers, Tensor) else type(answers).__name__
