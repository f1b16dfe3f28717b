"""The commands put together, and errors in one line."""

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
from db3kd.teachers import TeacherError

_EXPECTED = (ValueError, TypeError, OSError, ImportError, ArithmeticError, TeacherError)


class _OneLineErrors(TyperGroup):
    """Says what went wrong in one line on standard error; with --debug, raises it."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except _EXPECTED as error:
            if ctx.params.get("debug"):
                raise
            print(f"error: {_one_line(error)}", file=sys.stderr)
            raise typer.Exit(1) from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and "pip install" not in text:
        text += '; pip install "db3kd[all]"'
    return text


app = typer.Typer(
    name="db3kd",
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def db3kd(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole traceback of an error.")
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
