"""Integers on the command line, which may have the thousands separators that db3kd prints."""

import inspect
import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Annotated, Any, get_args, get_origin

from typer.core import TyperCommand

_SEPARATED = re.compile(r"[+-]?\d{1,3}(?:([,_])\d{3}(?:\1\d{3})*)")


class SeparatorsCommand(TyperCommand):
    """A command whose options of integers accept 1,000 and 1_000."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments after thousands separators were removed."""
        return super().parse_args(ctx, without_separators(args, integer_options(self)))


def integer_options(command: TyperCommand) -> set[str]:
    """Returns the names of a command's options whose values are integers."""
    assert command.callback is not None  # Typer makes commands of functions
    parameters = inspect.signature(command.callback).parameters
    integers = {name for name, each in parameters.items() if _is_integer(each.annotation)}
    return {option for each in command.params if each.name in integers for option in each.opts}


def _is_integer(annotation: Any) -> bool:
    """Returns whether an option's annotation is `Annotated[int, …]`, or one of `int | None`."""
    hint = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return hint is int or int in get_args(hint)


def without_separators(arguments: Sequence[str], options: Collection[str]) -> list[str]:
    """Returns a command's arguments without thousands separators in the values of `options`.

    Example:
        >>> without_separators(["--budget", "1,000", "--size=1_024"], {"--budget", "--size"})
        ['--budget', '1000', '--size=1024']
    """
    plain = []
    for previous, argument in pairwise(("", *arguments)):
        name, assigned, value = argument.partition("=")
        if previous in options:
            argument = _plain(argument)
        elif assigned and name in options:
            argument = f"{name}={_plain(value)}"
        plain.append(argument)
    return plain


def _plain(text: str) -> str:
    return re.sub("[,_]", "", text) if _SEPARATED.fullmatch(text) else text
