"""Errors of a command, in one line that names its options.

An error of `db3kd.errors` names an argument, and its message may mention others as `classes=`. The
fields of option sets have the same names as these arguments, so the parameters of a command say
which option stands for which argument. If names differ, wrap the call in `naming_options`.

A message that quotes another library keeps its mentions, because the quotation may contain `data=`
for reasons of its own.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from db3kd.errors import ArgumentError, ArgumentTypeError, Db3kdError
from db3kd.wording import did_you_mean

_OF_SYSTEM = (OSError, ImportError)
"""Errors that a user can cause wherever they are raised."""

_OF_CHECKS = (ValueError, TypeError, ArithmeticError)
"""Errors that may be bugs unless they are db3kd's own."""

_OPTIONS = "db3kd_options"
"""The attribute of an error that holds the options of `naming_options`."""

_DEBUG = "run db3kd --debug COMMAND ... to see the traceback"


def fits_one_line(error: Exception) -> bool:
    """Returns whether one line is enough for an error. Any other error keeps its traceback."""
    return isinstance(error, (Db3kdError, *_OF_SYSTEM, *_OF_CHECKS))


def one_line(error: Exception, options: Mapping[str, str]) -> str:
    """Returns the message of an error as one line.

    A ValueError, TypeError or ArithmeticError that is not db3kd's own is called unexpected: it may
    be a bug as well as a wrong input. `options` has the option of each argument, as from
    `options_of`.
    """
    if isinstance(error, _OF_CHECKS) and not isinstance(error, Db3kdError):
        text = " ".join(str(error).split()) or "no message"
        return f"unexpected {type(error).__name__}: {text}; {_DEBUG}"
    text = str(error)
    if isinstance(error, Db3kdError):
        text = _with_options(error, {**options, **vars(error).get(_OPTIONS, {})})
    text = " ".join(text.split()) or type(error).__name__
    if getattr(error, "of_code", False):
        text += f"; {_DEBUG}"
    if isinstance(error, ModuleNotFoundError) and "pip install" not in text:
        text += '; pip install "db3kd[all]"'
    return text


def with_suggestion(message: str) -> str:
    """Adds the nearest choice to an error about an option whose value is none of its choices.

    Example:
        >>> with_suggestion("'mdb' is not one of 'sd', 'bd', 'mbd'.")
        "'mdb' is not one of 'sd', 'bd', 'mbd'. Did you mean 'mbd'?"
    """
    found = re.search(r"'(?P<value>[^']+)' is not one of (?P<choices>'.+')", message)
    if found is None:
        return message
    choices = re.findall(r"'([^']+)'", found["choices"])
    hint = did_you_mean(found["value"], choices).replace("; did", " Did")
    return message.removeprefix("Value error, ") + hint


def options_of(parameters: Iterable[Any]) -> dict[str, str]:
    """Returns the option of each parameter of Click, such as `{"classes": "--classes"}`."""
    return {each.name: each.opts[0] for each in parameters if each.name is not None}


def _with_options(error: Db3kdError, options: Mapping[str, str]) -> str:
    """Returns the message of an error with options instead of arguments."""
    if isinstance(error, ArgumentError | ArgumentTypeError):
        argument, colon, problem = error.argument, ": ", error.problem
    else:
        argument, colon, problem = str(error).partition(": ")
    rest = colon + problem
    if not _quotes_another(error):
        rest = mentioning_options(rest, options)
        argument = mentioning_options(argument, options)
    return options.get(argument, argument) + rest


def _quotes_another(error: BaseException) -> bool:
    """Returns whether the message of an error contains that of an error that is not db3kd's own."""
    text, seen = str(error), [error]
    cause = error.__cause__ or error.__context__
    while cause is not None and cause not in seen:
        if not isinstance(cause, Db3kdError) and str(cause) and str(cause) in text:
            return True
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return False


def mentioning_options(text: str, options: Mapping[str, str]) -> str:
    """Replaces the arguments that a message mentions, such as `classes=`, by options.

    Example:
        >>> mentioning_options("pass channels=1", {"channels": "--channels"})
        'pass --channels 1'
        >>> mentioning_options("pass size=(24, 32)", {"size": "--size"})
        'pass --size 24,32'
    """
    if not options:
        return text
    sizes, value = r"\((?P<sizes>\d+(?:, \d+)+)\)", r"(?P<value>(?=['\"\w]))"
    mention = rf"(?<![\w.?&/'\"-])({'|'.join(options)})=(?:True\b|{sizes}|{value}|)"

    def option(found: re.Match[str]) -> str:
        if found["sizes"] is not None:
            return f"{options[found[1]]} {found['sizes'].replace(' ', '')}"
        return options[found[1]] + (" " if found["value"] is not None else "")

    return re.sub(mention, option, text)


@contextmanager
def naming_options(**options: str) -> Iterator[None]:
    """Names the options of a call whose arguments differ from the command's parameters.

    Example:
        >>> with naming_options(model="--architecture"):
        ...     load_teacher(source, model=architecture)
    """
    try:
        yield
    except Exception as error:
        vars(error)[_OPTIONS] = {**options, **vars(error).get(_OPTIONS, {})}
        raise
