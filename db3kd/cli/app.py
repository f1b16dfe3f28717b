"""The commands put together, and errors in one line.

The modules of commands import what a command works with in the bodies of their functions: torch
alone takes 1.6 s of CPU time to load, and --help, --version and shell completion need none of it.
"""

import importlib.metadata
import re
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from db3kd.cli.distill import distill
from db3kd.cli.evaluate import evaluate
from db3kd.cli.info import info
from db3kd.cli.label import label
from db3kd.cli.report import demo, report
from db3kd.cli.surrogate import surrogate
from db3kd.cli.synthesize import synthesize
from db3kd.cli.teacher import teacher
from db3kd.cli.zero_shot import zero_shot

_EXPECTED = (ValueError, TypeError, OSError, ImportError, ArithmeticError)


class _OneLineErrors(TyperGroup):
    """Says what went wrong in one line on standard error; with --debug, raises it."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if ctx.params.get("debug") or not _is_expected(error):
                raise
            print(f"error: {_one_line(error)}", file=sys.stderr)
            raise typer.Exit(1) from error


_OPTIONS = {"model": "architecture"}
"""Arguments whose options have another name."""

_ARGUMENT = re.compile(
    r"\b(image_shape|classes|model|channels|size|trust_code|max_batch|architecture|threshold)="
    r"(?:True\b|(?=[\s;,.]|$)|(?P<value>(?=\d)))"
)
_LEADING = re.compile(r"^(image_shape|image-shape|classes|channels|size|data|split|max_batch): ")


def as_options(text: str) -> str:
    """An error's text with the options of the command line in place of Python's arguments."""

    def option(name: str) -> str:
        return "--" + _OPTIONS.get(name, name).replace("_", "-")

    def with_value(found: re.Match[str]) -> str:
        return option(found[1]) + ("" if found["value"] is None else " ")

    text = _ARGUMENT.sub(with_value, text)
    return _LEADING.sub(lambda found: f"{option(found[1])}: ", text)


def _is_expected(error: Exception) -> bool:
    teachers = sys.modules.get("db3kd.teachers.base")  # loaded by whatever raises a TeacherError
    known = _EXPECTED if teachers is None else (*_EXPECTED, teachers.TeacherError)
    return isinstance(error, known)


def _one_line(error: Exception) -> str:
    text = as_options(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and "pip install" not in text:
        text += '; pip install "db3kd[all]"'
    return text


app = typer.Typer(
    name="db3kd",
    cls=_OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"db3kd {importlib.metadata.version('db3kd')}")
        raise typer.Exit


@app.callback()
def db3kd(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Distil a student from a teacher that answers with a class and nothing else.

    The way: teacher (or one of your own), label, distill, evaluate; without images, zero-shot.

    A surrogate, trained beforehand, tells label where boundaries may lie, and saves it queries.

    The command demo goes all of it, on real images, in a few minutes.
    """


for _command in (
    info, teacher, surrogate, label, distill, evaluate, report, synthesize, zero_shot, demo
):  # fmt: skip
    app.command()(_command)
