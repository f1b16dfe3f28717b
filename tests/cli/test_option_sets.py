"""Option sets are expanded into the options of a command and handed over as objects."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from command_line import succeed
from typer.testing import CliRunner

from db3kd.cli.option_sets import COMMON, OptionSet, expand_option_sets

PANELS = {
    "label": ["Options", "Teacher", "Images", "Search", "Budget", "Soft labels", "Workers"],
    "synthesize": ["Options", "Teacher", "Pseudo samples"],
    "zero-shot": ["Options", "Teacher", "Pseudo samples", "Labels", "Training"],
    "surrogate": ["Options", "Teacher", "Images", "Training"],
    "distill": ["Options", "Loss", "Training"],
    "teacher": ["Options", "Images", "Training"],
}


@dataclass(frozen=True, kw_only=True)
class Paint(OptionSet):
    panel = "Paint"

    colour: Annotated[str, typer.Option("--colour", rich_help_panel=COMMON)]
    coats: Annotated[int, typer.Option("--coats")] = 2


def command(received: list) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @expand_option_sets
    def paint(
        wall: Annotated[str, typer.Option("--wall")],
        paint: Paint,
        dry: Annotated[bool, typer.Option("--dry")] = False,
    ) -> None:
        """Paints a wall."""
        received.append((wall, paint, dry))

    return app


def test_a_command_receives_its_option_sets():
    received: list = []
    result = CliRunner().invoke(command(received), ["--wall", "north", "--colour", "blue", "--dry"])
    assert result.exit_code == 0
    assert received == [("north", Paint(colour="blue"), True)]


def test_options_of_a_set_lie_in_its_panel_and_common_ones_at_the_top():
    result = CliRunner().invoke(command([]), ["--help"])
    top, rest = result.output.split("Paint ")
    assert "--colour" in top and "--wall" in top and "--coats" not in top
    assert "--coats" in rest


def test_a_missing_required_option_is_named():
    result = CliRunner().invoke(command([]), ["--wall", "north"])
    assert result.exit_code == 2 and "--colour" in result.output


def test_an_option_in_two_sets_is_refused():
    with pytest.raises(ValueError, match="duplicate parameter name"):

        @expand_option_sets
        def paint(one: Paint, other: Paint) -> None: ...


@pytest.mark.parametrize("name", PANELS)
def test_help_shows_the_common_options_first(name):
    lines = succeed(name, "--help").splitlines()
    panels = [line.split("─ ")[1].split(" ─")[0] for line in lines if line.startswith("╭")]
    assert panels == PANELS[name]
