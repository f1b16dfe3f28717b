"""Errors of a command, in one line that names its options.

A library error begins with an argument (`queries: expected …`), and mentions others as `classes=`.
The fields of option sets have the same names as these arguments, so the parameters of a command say
which option stands for which argument. If names differ, wrap the call in `naming_options`.

Only errors that db3kd raised itself are treated so. The messages of other libraries are printed as
they are, because they may contain `data=` for reasons of their own.
"""

import opcode
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from db3kd.wording import did_you_mean

_OF_SYSTEM = (OSError, ImportError)
"""Errors that a user can cause wherever they are raised."""

_OF_CHECKS = (ValueError, TypeError, ArithmeticError)
"""Errors that a user has caused if a check of db3kd raised them."""

_DEBUG = "run db3kd --debug COMMAND ... to see the traceback"

_RAISE = opcode.opmap["RAISE_VARARGS"]


class CommandError(ValueError):
    """An error whose message already names options."""


def fits_one_line(error: Exception) -> bool:
    """Returns whether one line is enough for an error. Any other error keeps its traceback."""
    teachers = sys.modules.get("db3kd.teachers.base")  # loaded by any code that raises TeacherError
    of_teachers = () if teachers is None else (teachers.TeacherError,)
    return isinstance(error, (*_OF_SYSTEM, *_OF_CHECKS, *of_teachers))


def is_own(error: BaseException) -> bool:
    """Returns whether a `raise` statement of db3kd raised the error, as its checks do.

    Errors of native ops are not its own: what a user passes is checked before an op is called.
    """
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__"))
    if module.partition(".")[0] != "db3kd" or module == "db3kd.extension":
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def one_line(error: Exception, options: Mapping[str, str]) -> str:
    """Returns the message of an error as one line.

    A ValueError, TypeError or ArithmeticError that db3kd did not raise is called unexpected: it may
    be a bug as well as a wrong input.

    Args:
        error: Any exception.
        options: The option that stands for each argument, as from `options_of`.
    """
    text = " ".join(str(error).split())
    if is_own(error):
        text = as_options(text, options, _quoted(error))
    elif isinstance(error, _OF_CHECKS):
        kind = type(error).__name__
        return f"unexpected {kind}: {text or 'no message'}; {_DEBUG}"
    text = text or type(error).__name__
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


def as_options(text: str, options: Mapping[str, str], quoted: Iterable[str] = ()) -> str:
    """Replaces the arguments in an error's message by options.

    Args:
        text: A message that begins with `argument: `, or mentions arguments as `argument=`.
        options: The option that stands for each argument.
        quoted: Messages of others that the message may hold, which stay as they are.

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
    argument = rf"(?<![\w.?&/'\"-])(?P<name>{names})={value}"
    of_others = "|".join(map(re.escape, quoted))
    parts = re.split(f"({of_others})", text) if of_others else [text]
    parts[::2] = [re.sub(argument, option, part) for part in parts[::2]]
    return "".join(parts)


def _quoted(error: BaseException) -> list[str]:
    """Returns the messages of the errors that led to one of db3kd, and that db3kd did not raise."""
    found = []
    seen: list[BaseException] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and cause not in seen:
        seen.append(cause)
        text = " ".join(str(cause).split())
        if text and not is_own(cause):
            found.append(text)
        cause = cause.__cause__ or cause.__context__
    return found


@contextmanager
def naming_options(**options: str) -> Iterator[None]:
    """Translates the errors of calls whose arguments differ from the command's parameters.

        with naming_options(model="--architecture"):
            load_teacher(source, model=architecture)

    Args:
        options: The option that stands for each argument.

    Raises:
        CommandError: If a check of db3kd fails in the call.
    """
    try:
        yield
    except Exception as error:
        text = as_options(" ".join(str(error).split()), options, _quoted(error))
        if not (is_own(error) and fits_one_line(error)) or text == " ".join(str(error).split()):
            raise
        raise CommandError(text) from error
