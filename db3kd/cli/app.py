"""The `db3kd` command: its subcommands, and errors in one line.

Command modules import their stages inside functions: torch alone takes 1.6 s of CPU time to load,
and --help, --version and shell completion do not need it.
"""

import inspect
import io
import logging
import os
import re
import select
import sys
import textwrap
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from db3kd.cli.commands.compare import compare
from db3kd.cli.commands.demo import demo
from db3kd.cli.commands.distill import distill
from db3kd.cli.commands.evaluate import evaluate
from db3kd.cli.commands.export import export
from db3kd.cli.commands.info import info
from db3kd.cli.commands.label import label
from db3kd.cli.commands.report import report
from db3kd.cli.commands.surrogate import surrogate
from db3kd.cli.commands.synthesize import synthesize
from db3kd.cli.commands.teacher import teacher
from db3kd.cli.errors import fits_one_line, one_line, options_of, with_suggestion
from db3kd.cli.options.integers import SeparatorsCommand
from db3kd.version import __version__

_SIGPIPE = 141
"""What a shell shows of a program that ends because nobody reads its output."""


class _OneLineErrors(TyperGroup):
    """Prints an error as one line on standard error; with --debug, raises it."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        # Standard error has this by default; paths need not be UTF-8, nor a terminal take UTF-8.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            try:
                return super().main(*arguments, **options)
            finally:
                sys.stdout.flush()
        except (BrokenPipeError, SystemExit) as error:
            # Click and rich exit with another status when they meet a closed pipe.
            if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
                raise
            # Python flushes once more at its end; what is left to print is dropped.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(_SIGPIPE)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = with_suggestion(error.message)
            raise
        except Exception as error:
            cut_off = isinstance(error, BrokenPipeError) and _is_closed_pipe(sys.stdout)
            if cut_off or ctx.params.get("debug") or not fits_one_line(error):
                raise
            command = self.commands.get(ctx.invoked_subcommand or "")
            options = {} if command is None else options_of(command.params)
            print(f"error: {one_line(error, options)}", file=sys.stderr)
            raise typer.Exit(1) from error


def _is_closed_pipe(stream: TextIO) -> bool:
    """Returns whether nobody reads the other end of a pipe; False if the system cannot tell."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (AttributeError, OSError):
        return False
    return bool(poll.poll(0))


app = typer.Typer(
    name="db3kd",
    cls=_OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"db3kd {__version__}")
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
    """Train a student from a teacher that returns a class and nothing else.

    distill does all of it within a budget of queries: it plans, asks the teacher, trains the
    student and measures it, with your images or without any. info --teacher shows what db3kd knows
    about your model, and demo tries everything on its own images in a few minutes.
    """
    if logging.lastResort is not None:  # prints the warnings of a program that sets up no logging
        logging.lastResort.setFormatter(_LabelledLines())


class _LabelledLines(logging.Formatter):
    """Formats a log record as the other lines on standard error: `warning: …`."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


_HELP_WIDTH = 76
"""An example is broken here, so that a terminal of 80 columns does not break it again."""


def _paragraphs(docstring: str | None) -> str:
    """Returns help whose paragraphs are one line each, for the terminal to break, unlike examples.

    Rich keeps the line breaks of a docstring, and breaks lines that are longer than the terminal.
    """
    shown = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring or "")):
        line = " ".join(paragraph.split())
        if paragraph.startswith(" "):
            # An option stays on the line of its value.
            joined = re.sub(r"(?<=\S) (?!--)", "\N{NO-BREAK SPACE}", line)
            filled = textwrap.fill(
                joined,
                _HELP_WIDTH,
                initial_indent=" " * 4,
                subsequent_indent=" " * 6,
                break_long_words=False,
                break_on_hyphens=False,
            )
            line = filled.replace("\N{NO-BREAK SPACE}", " ")
        shown.append(line)
    return "\n\n".join(shown)


_PANELS = {
    "Start here": (distill, info, demo),
    "Students": (evaluate, export, compare),
    "Parts of the method": (label, report, surrogate, synthesize, teacher),
}

db3kd.__doc__ = _paragraphs(db3kd.__doc__)

for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(
            cls=SeparatorsCommand, rich_help_panel=_panel, help=_paragraphs(_command.__doc__)
        )(_command)
