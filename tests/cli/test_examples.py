"""The examples in the documentation and in the help texts are valid command lines."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from command_line import succeed

from db3kd.cli.app import app

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app).commands
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def command_lines(text: str) -> Iterator[str]:
    joined = re.sub(r"\\\n\s*", " ", text)
    return (line for line in joined.splitlines() if line.startswith("db3kd "))


def documented() -> Iterator[str]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in BLOCK.findall(page.read_text()):
            yield from command_lines(block)


def helped() -> Iterator[str]:
    for command in COMMANDS.values():
        paragraphs = re.split(r"\n\s*\n", command.help)
        yield from command_lines("\n".join(" ".join(each.split()) for each in paragraphs))


@pytest.mark.parametrize("line", [*documented(), *helped()])
def test_an_example_is_a_valid_command_line(line):
    _, name, *arguments = shlex.split(line, comments=True)

    COMMANDS[name].make_context(name, arguments)


def test_there_are_examples_of_each_command_and_of_the_documentation():
    assert {line.split()[1] for line in helped()} == set(COMMANDS)
    assert len(list(documented())) >= 8


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_a_terminal_of_80_columns_breaks_no_line_of_the_help_twice(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    help = succeed(*command.split(), "--help").split("\N{BOX DRAWINGS LIGHT ARC DOWN AND RIGHT}")[0]
    text = (COMMANDS[command] if command else typer.main.get_command(app)).help

    shown = [line.strip() for line in help.splitlines()]
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith(" "):
            lines = paragraph.splitlines()
            assert all(len(line) <= 76 and line.strip() in shown for line in lines)
        else:
            assert "\n" not in paragraph
