"""Sets of options as dataclasses, which a decorator expands into the signatures of commands.

    @dataclass(frozen=True, kw_only=True)
    class OutputOptions(OptionSet):
        panel = "Output"
        out: Annotated[Path, typer.Option(help="Folder to write to.")]
        quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing.")] = False

    @expand_option_sets
    def label(output: OutputOptions, seed: Seed = 0) -> None: ...

Typer sees `label(*, out, seed, quiet)`, and the function receives an `OutputOptions`. The name of
an option follows from its field; a flag states its own, so that there is no `--no-quiet`.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

from db3kd.errors import ArgumentError

COMMON = "Options"
"""The panel at the top of `--help`, for required options and those that most users need."""

common_option = partial(typer.Option, rich_help_panel=COMMON)
"""Declares an option in that panel; arguments as for `typer.Option`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptionSet:
    """Base of dataclasses whose fields are options.

    Attributes:
        panel: The help panel of options that do not name their own.
    """

    panel: ClassVar[str] = COMMON


def given_options(options: OptionSet) -> list[str]:
    """Returns the names of the options whose values are not their defaults."""
    return [
        field.name
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    ]


def refuse_options(options: OptionSet, reason: str, *names: str) -> None:
    """Refuses options that would have no effect: those of these names, or all of a set.

    The reason says why they have none, such as "needs --data".

    Raises:
        ValueError: If one of them was given.
    """
    for name in given_options(options):
        if name in names or not names:
            raise ArgumentError(name, reason)


def expand_option_sets(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces each parameter that is an `OptionSet` by one parameter for each field.

    Required options come first, then the common ones, then the others in their order.

    Args:
        command: A function whose parameters are options (`Annotated[type, typer.Option(...)]`) or
            option sets.

    Returns:
        A function whose parameters are options only, for Typer to register.

    Raises:
        ValueError: If two options have the same parameter name.
    """
    hints = get_type_hints(command, include_extras=True)
    sets: dict[str, type[OptionSet]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if isinstance(kind, type) and issubclass(kind, OptionSet):
            sets[name] = kind
            parameters += _fields_as_parameters(kind)
        else:
            parameters.append(
                parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY)
            )
    parameters.sort(key=_place)
    signature = inspect.Signature(parameters)  # raises ValueError if a name occurs twice

    @wraps(command)
    def call(**values: Any) -> None:
        built = {
            name: kind(**{field.name: values.pop(field.name) for field in dataclasses.fields(kind)})
            for name, kind in sets.items()
        }
        command(**built, **values)

    call.__signature__ = signature  # type: ignore[attr-defined]  # read by inspect.signature
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call


def _fields_as_parameters(kind: type[OptionSet]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        default = field.default
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if default is dataclasses.MISSING else default,
            annotation=_in_panel(hints[field.name], kind.panel),
        )


def _in_panel(annotation: Any, panel: str) -> Any:
    """Returns the annotation with its option in the panel, unless the option names another."""
    value, option = get_args(annotation)
    if option.rich_help_panel is not None:
        return annotation
    option = copy.copy(option)
    option.rich_help_panel = panel
    return Annotated[value, option]


def _place(parameter: inspect.Parameter) -> int:
    """Returns 0 for required options, 1 for common ones and 2 for the others."""
    if parameter.default is inspect.Parameter.empty:
        return 0
    annotation = parameter.annotation
    options = get_args(annotation) if get_origin(annotation) is Annotated else ()
    panels = [each.rich_help_panel for each in options if isinstance(each, OptionInfo)]
    return 1 if COMMON in panels else 2
