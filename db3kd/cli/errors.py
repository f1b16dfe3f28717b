"""Errors of a command, in one line that names its options.

A library error begins with an argument (`queries: expected …`), and mentions others as `classes=`.
The fields of option sets have the same names as these arguments, so the parameters of a command say
which option stands for which argument. If names differ, wrap the call in `naming_options`.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from db3kd.wording import did_you_mean

_EXPECTED = (ValueError, TypeError, OSError, ImportError, ArithmeticError)
"""Errors that a user can cause. Any other error is a bug, and keeps its traceback."""


class CommandError(ValueError):
    """An error whose message already names options."""


def is_expected(error: Exception) -> bool:
    """Returns whether a user can cause the error, so that one line is enough."""
    teachers = sys.modules.get("db3kd.teachers.base")  # loaded by any code that raises TeacherError
    known = _EXPECTED if teachers is None else (*_EXPECTED, teachers.TeacherError)
    return isinstance(error, known)


def one_line(error: Exception, options: Mapping[str, str]) -> str:
    """Returns the message of an error as one line.

    Args:
        error: Any exception.
        options: The option that stands for each argument, as from `options_of`.
    """
    text = as_options(" ".join(str(error).split()), options) or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and "pip install" not in text:
        text += '; pip install "db3kd[all]"'
    return text


def with_suggestion(message: str) -> str:
    """Adds the nearest choice to an error about an option whose value is none of its choices.

    Example:
        >>> with_suggestion("'mdb' is not one of 'sd', 'bd', 'mbd'.")
        "'mdb' is not one of 'sd', 'bd', 'mbd'. Did you mean 'mbd'?"

    Args:
        message: The message of Typer.
    """
    found = re.search(r"'(?P<value>[^']+)' is not one of (?P<choices>'.+')", message)
    if found is None:
        return message
    choices = re.findall(r"'([^']+)'", found["choices"])
    hint = did_you_mean(found["value"], choices).replace("; did", " Did")
    return message.removeprefix("Value error, ") + hint


class Parameter(Protocol):
    """A parameter of a command, as Typer makes it."""

    @property
    def name(self) -> str | None:
        """The name of the function's parameter."""

    @property
    def opts(self) -> Sequence[str]:
        """The names of the option."""


def options_of(parameters: Iterable[Parameter]) -> dict[str, str]:
    """Returns the option of each parameter, such as `{"classes": "--classes"}`."""
    return {each.name: each.opts[0] for each in parameters if each.name is not None}


def as_options(text: str, options: Mapping[str, str]) -> str:
    """Replaces the arguments in an error's message by options.

    Args:
        text: A message that begins with `argument: `, or mentions arguments as `argument=`.
        options: The option that stands for each argument.

    Example:
        >>> as_options("queries: expected at least 1, got 0", {"queries": "--budget"})
        '--budget: expected at least 1, got 0'
        >>> as_options("pass channels=1", {"channels": "--channels"})
        'pass --channels 1'
    """
    names = "|".join(name.replace("_", "[_-]") for name in options)
    if not names:
        return text

    def option(found: re.Match[str]) -> str:
        has_value = found.groupdict().get("value") is not None
        return options[found["name"].replace("-", "_")] + (" " if has_value else "")

    text = re.sub(rf"^(?P<name>{names})(?=: )", option, text)
    value = r"(?:True\b|(?P<value>(?=['\"\w]))|)"
    return re.sub(rf"(?<![\w.?&-])(?P<name>{names})={value}", option, text)


@contextmanager
def naming_options(**options: str) -> Iterator[None]:
    """Translates the errors of calls whose arguments differ from the command's parameters.

        with naming_options(model="--architecture"):
            load_teacher(source, model=architecture)

    Args:
        options: The option that stands for each argument.

    Raises:
        CommandError: If the call fails in a way that a user can cause.
    """
    try:
        yield
    except Exception as error:
        text = as_options(str(error), options)
        if not is_expected(error) or text == str(error):
            raise
        raise CommandError(text) from error
