"""Option sets become options of a command, which receives them as objects."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
import typer.main
from command_line import TEACHERS, succeed
from typer.testing import CliRunner

from db3kd.cli.app import app
from db3kd.cli.options.integers import integer_options, without_separators
from db3kd.cli.options.sets import COMMON, OptionSet, expand_option_sets

PANELS = (
    "Arguments",
    "Options",
    "Teacher",
    "Data",
    "Search",
    "Pseudo samples",
    "Labels",
    "Budget",
    "Soft labels",
    "Loss",
    "Training",
    "Proxies",
    "Workers",
)
"""The panels of all commands, in the order in which each command shows its own."""

COMMANDS = typer.main.get_command(app).commands
OPTIONS = [
    pytest.param(option, id=f"{name} {option.opts[0]}")
    for name, command in COMMANDS.items()
    for option in command.params
]


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


def test_options_of_a_set_are_in_its_panel_and_common_ones_at_the_top():
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


@pytest.mark.parametrize("name", COMMANDS)
def test_panels_have_the_same_order_in_each_command(name):
    lines = succeed(name, "--help").splitlines()
    panels = [line.split("─ ")[1].split(" ─")[0] for line in lines if line.startswith("╭")]

    assert panels == [panel for panel in PANELS if panel in panels]
    assert next(panel for panel in panels if panel != "Arguments") == "Options"


@pytest.mark.parametrize("name", COMMANDS)
def test_required_options_come_first_and_common_ones_are_few(name):
    common = [each for each in COMMANDS[name].params if each.rich_help_panel in (None, "Options")]
    required = [each.required for each in common]

    assert required == sorted(required, reverse=True)
    assert len(common) <= 12


@pytest.mark.parametrize("option", OPTIONS)
def test_the_help_of_an_option_is_one_short_sentence(option):
    assert option.help.endswith(".") and len(option.help) <= 120
    assert ". " not in option.help


def test_no_command_has_more_than_twelve_parameters_of_its_own():
    for command in COMMANDS.values():
        assert len(inspect.getfullargspec(inspect.unwrap(command.callback)).args) <= 12


def test_all_commands_that_resume_runs_offer_the_same_options_for_it():
    def described(name: str, option: str) -> tuple[object, ...]:
        found = [each for each in COMMANDS[name].params if option in each.opts]
        return tuple((each.rich_help_panel, each.help, each.default) for each in found)

    resumable = [name for name in COMMANDS if described(name, "--resume")]
    assert len(resumable) == 5
    for option in ("--resume", "--accept-changed-teacher"):
        assert len({described(name, option) for name in resumable}) == 1


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (["--budget", "1,000"], ["--budget", "1000"]),
        (["--budget=-1_234_567"], ["--budget=-1234567"]),
        (["--budget", "1,0"], ["--budget", "1,0"]),
        (["--budget", "1,000_000"], ["--budget", "1,000_000"]),
        (["--budget", "1,000.5"], ["--budget", "1,000.5"]),
        (["--image-shape", "1,280,280"], ["--image-shape", "1,280,280"]),
        (["--out=1,000", "5,000"], ["--out=1,000", "5,000"]),
    ],
)
def test_thousands_separators_are_removed_from_integers_only(given, plain):
    assert without_separators(given, {"--budget", "--steps"}) == plain


def test_all_options_of_integers_and_no_others_take_separators():
    found = integer_options(COMMANDS["distill"])
    assert {"--budget", "--steps", "--limit", "--seed", "--max-batch"} <= found
    assert not found & {
        "--image-shape",
        "--size",
        "--price-per-1000",
        "--time-limit",
        "--data",
        "--resume",
    }


@pytest.mark.parametrize("budget", ["1,000", "1_000", "1000"])
def test_a_budget_is_read_as_it_is_printed(budget):
    plan = ("--teacher", f"{TEACHERS}:CountingTeacher", "--data", "digits", "--dry-run")
    assert "of 1,000" in succeed("distill", *plan, "--budget", budget)
