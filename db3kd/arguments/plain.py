"""Checks of plain arguments: each error names the argument, what was expected and what came."""

import dataclasses
import errno
import math
import os
from collections.abc import Callable, Collection, Iterable
from functools import wraps
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar, get_args

from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.wording import did_you_mean

Settings = TypeVar("Settings")

SEED_BITS = 63
"""All generators take seeds below 2^63."""

RUN_SEED_BITS = 62
"""Leaves room for the networks of a run, which get the seeds that follow."""

SEVERAL_RUNS_SEED_BITS = 61
"""Leaves room for several runs, which get the seeds that follow."""

_COUNT_BITS = 63
"""Counts are kept in int64."""

_LARGEST = 3.4e37
"""A tenth of the largest float32, because the first step of Adam is ten times the learning rate."""

_LONG = 2**128
"""Larger integers are not written: Python refuses to write thousands of digits."""


def check_type(
    value: Any, kinds: type | tuple[type, ...], name: str, expected: str, advice: str = ""
) -> None:
    """Raises TypeError unless a value is an instance of one of the types.

    Args:
        value: The value.
        kinds: The types.
        name: The name of the argument in errors.
        expected: What errors call the types.
        advice: What to do instead, at the end of the message.
    """
    if not isinstance(value, kinds):
        raise ArgumentTypeError(
            name, f"expected {expected}, got {brief(value)}{advice and f'; {advice}'}"
        )


def check_path(value: str | os.PathLike[str], name: str) -> Path:
    """Checks a path, or an address, and returns it as a `Path`.

    Raises:
        TypeError: If it is no path.
        ValueError: If it is empty, has a null character, or is longer than a path can be.
    """
    check_type(value, (str, os.PathLike), name, "a path, as text or pathlib.Path")
    if not os.fspath(value):
        raise ArgumentError(name, "expected a path, got an empty text")
    if "\0" in str(path := Path(value)):
        raise ArgumentError(name, f"expected a path, got {str(path)!r} with a null character")
    if "://" not in os.fspath(value):
        try:
            os.lstat(path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                problem = f"expected a path, got a name that is too long: {str(path)!r}"
                raise ArgumentError(name, problem) from error
    return path


def check_out(out: str | os.PathLike[str] | None, resume: bool) -> None:
    """Checks the argument `out` of a function that works with and without a run folder.

    Raises:
        TypeError: See `check_path`.
        ValueError: See `check_path`; or if there is no folder to resume.
    """
    if out is not None:
        check_path(out, "out")
    elif resume:
        raise ArgumentError("resume", "needs out=, the folder to resume")


def check_count(value: float, name: str, least: int = 1) -> int:
    """Checks a whole number that has a minimum, and returns it as an int.

    Example:
        >>> check_count(1e5, "queries")
        100000

    Args:
        value: The number, of Python or NumPy.
        name: The name of the argument in errors.
        least: The minimum.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not whole, or below the minimum.
    """
    expected = f"expected an integer of at least {least}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(name, f"{expected}, got {brief(value)}")
    if not _is_finite(value) or value != int(value) or value < least:
        raise ArgumentError(name, f"{expected}, got {_in_words(value)}")
    if value >= 2**_COUNT_BITS:
        raise ArgumentError(name, f"{expected} and below 2^{_COUNT_BITS}, got {_in_words(value)}")
    return int(value)


def check_fields(
    settings: Any, check: Callable[..., object], *names: str, **options: object
) -> None:
    """Checks fields of a frozen dataclass, and sets them to what the check returns.

    A check takes NumPy's numbers and returns Python's, which manifests and checkpoints can hold.

    Example:
        >>> check_fields(self, check_positive, "timeout", "max_backoff")

    Args:
        settings: The dataclass, in its `__post_init__`.
        check: Called with the value and the name of each field; returns the value to keep.
        names: The fields.
        options: Further arguments of the check.
    """
    for name in names:
        object.__setattr__(settings, name, check(getattr(settings, name), name, **options))


def check_count_fields(settings: Any, *names: str, least: int = 1) -> None:
    """Checks fields of a frozen dataclass as `check_count` does, and sets them to integers."""
    check_fields(settings, check_count, *names, least=least)


def check_counts(values: Iterable[float], name: str, least: int = 1) -> tuple[int, ...]:
    """Checks whole numbers as `check_count` does, and returns them as a tuple.

    Raises:
        TypeError: If they are not a sequence of numbers.
        ValueError: If one is not whole, or below the minimum.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ArgumentTypeError(
            name, f"expected integers of at least {least} in a tuple, got {brief(values)}"
        )
    return tuple(check_count(each, name, least) for each in values)


def check_flag(value: bool, name: str) -> bool:
    """Checks that a value is True or False, and returns it.

    Raises:
        TypeError: If it is something else.
    """
    check_type(value, bool, name, "True or False")
    return value


def check_choice(value: object, name: str, choices: Collection[str]) -> None:
    """Raises ValueError unless a value is one of the choices."""
    if value not in choices:
        raise ArgumentError(
            name,
            f"expected one of {', '.join(choices)}, got {value!r}{did_you_mean(value, choices)}",
        )


def check_function(value: Callable[..., Any] | None, name: str) -> None:
    """Raises TypeError unless a value is a function or None."""
    if value is not None and not callable(value):
        raise ArgumentTypeError(name, f"expected a function or None, got {brief(value)}")


def check_number(value: float, name: str, expected: str = "a finite number") -> float:
    """Checks that a value is a real number of at most 3.4e37, and returns it as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite, or if its absolute value is above 3.4e37.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentTypeError(name, f"expected {expected}, got {brief(value)}")
    if not _is_finite(value):
        raise ArgumentError(name, f"expected {expected}, got {_in_words(value)}")
    if abs(value) > _LARGEST:
        raise ArgumentError(
            name, f"expected {expected}, got {_in_words(value)}; the maximum is {_LARGEST:g}"
        )
    return float(value)


def check_positive(value: float, name: str, expected: str = "a finite number above 0") -> float:
    """Checks that a value is above 0 and at most 3.4e37, and returns it as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite, not above 0, or above 3.4e37.
    """
    if check_number(value, name, expected) <= 0:
        raise ArgumentError(name, f"expected {expected}, got {value}")
    return float(value)


def check_not_negative(value: float, name: str) -> float:
    """Checks that a value is a number of at least 0 and at most 3.4e37, and returns it as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite, below 0, or above 3.4e37.
    """
    expected = "a finite number of at least 0"
    if check_number(value, name, expected) < 0:
        raise ArgumentError(name, f"expected {expected}, got {value}")
    return float(value)


def check_share(value: float, name: str) -> float:
    """Checks that a value is a number from 0 to 1, and returns it as a float.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is below 0 or above 1.
    """
    expected = "a number in [0, 1]"
    if not 0 <= check_number(value, name, expected) <= 1:
        raise ArgumentError(name, f"expected {expected}, got {value}")
    return float(value)


def check_seed(value: int, name: str = "seed", bits: int = SEED_BITS) -> int:
    """Checks a seed, and returns it as an int.

    Args:
        value: The seed.
        name: The name of the argument in errors.
        bits: The seed must be below 2^bits: `SEED_BITS`, or fewer if the seeds that follow are used
            too.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is out of range.
    """
    expected = f"an integer of at least 0 and below 2^{bits}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ArgumentTypeError(name, f"expected {expected}, got {brief(value)}")
    if not 0 <= value < 2**bits:
        raise ArgumentError(name, f"expected {expected}, got {_in_words(value)}")
    return int(value)


def _is_finite(value: float) -> bool:
    """Returns whether a number is finite, even if it is too large for a float."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return True


def _in_words(value: Any) -> str:
    """Returns a number as text; Python writes no integer of thousands of digits."""
    if isinstance(value, Integral) and abs(int(value)) >= _LONG:
        return f"an integer of {int(value).bit_length():,} bits"
    return str(value)


def brief(value: Any) -> str:
    """Returns a value as text if it is a plain and short one, and otherwise its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    plain = value is None or isinstance(value, bool | int | float | str)
    if not plain or (isinstance(value, int) and abs(value) >= _LONG):
        return type(value).__name__
    return repr(value) if len(repr(value)) <= 60 else type(value).__name__


def suggests_arguments(cls: type[Settings]) -> type[Settings]:
    """Makes a settings dataclass suggest the right argument if it receives an unknown one.

    If a field of the dataclass holds other settings that have the argument, the error says so.

    Example:
        >>> DistillSettings(steps=100)
        TypeError: steps: DistillSettings has no such argument; pass
        training=TrainSettings(steps=...)

    Args:
        cls: The dataclass.
    """
    make = cls.__init__
    fields = {field.name: field.type for field in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @wraps(make)
    def initialise(self: Settings, *arguments: Any, **named: Any) -> None:
        for name in named:
            if name not in fields:
                raise ArgumentTypeError(
                    name, f"{cls.__name__} has no such argument{_instead(name, fields)}"
                )
        make(self, *arguments, **named)

    cls.__init__ = initialise  # type: ignore[assignment]
    return cls


def _instead(name: str, fields: dict[str, Any]) -> str:
    """Returns the end of an error that says which of the fields of settings was meant."""
    for field, hint in fields.items():
        for kind in get_args(hint) or (hint,):
            inner = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
            if any(name == each.name for each in inner):
                return f"; pass {field}={kind.__name__}({name}=...)"
    return did_you_mean(name, fields) or f"; expected one of {', '.join(fields)}"
