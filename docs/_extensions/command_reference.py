"""The reference of the command line, made from the commands themselves."""

import inspect
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.main

from db3kd.cli.app import app

_HIDDEN = ("--install-completion", "--show-completion", "--help")
_KINDS = {int: "integer", float: "number", Path: "path"}


def command_reference() -> str:
    """Returns one section for each command: what it does, its options by panel, examples."""
    group = typer.main.get_command(app)
    parts = [f"`db3kd [--debug] [--version] COMMAND …`\n\n{_options(group)}"]
    commands = sorted(group.commands.items(), key=lambda item: item[1].rich_help_panel or "")
    order = list(dict.fromkeys(command.rich_help_panel for command in group.commands.values()))
    commands.sort(key=lambda item: order.index(item[1].rich_help_panel))
    for panel, entries in groupby(commands, lambda item: item[1].rich_help_panel):
        parts.append(f"## {panel}")
        for name, command in entries:
            parts.append(f"### {name}\n\n`{_usage(name, command)}`")
            parts += [_help(command.help or ""), _options(command)]
    return "\n\n".join(parts)


def _usage(name: str, command: Any) -> str:
    arguments = [
        _argument_name(parameter)
        for parameter in command.params
        if parameter.param_type_name == "argument"
    ]
    return " ".join(["db3kd", name, *arguments, "[OPTIONS]"])


def _help(text: str) -> str:
    """Returns the text of a help page, with its examples as code."""
    lines = inspect.cleandoc(text).replace("\f", "").splitlines()
    parts: list[str] = []
    for is_example, block in groupby(_paragraphs(lines), lambda each: each.startswith("db3kd ")):
        entries = list(block)
        parts.append(
            "```sh\n" + "\n".join(entries) + "\n```" if is_example else "\n\n".join(entries)
        )
    return "\n\n".join(parts)


def _paragraphs(lines: list[str]) -> Iterator[str]:
    for filled, block in groupby(lines, lambda line: bool(line.strip())):
        if filled:
            yield " ".join(" ".join(line.split()) for line in block)


def _options(command: Any) -> str:
    parameters = [
        parameter
        for parameter in command.params
        if not set(parameter.opts) & set(_HIDDEN) and not getattr(parameter, "hidden", False)
    ]
    tables = []
    order = list(dict.fromkeys(_panel(parameter) for parameter in parameters))
    for panel in order:
        rows = [_row(each) for each in parameters if _panel(each) == panel]
        tables.append("\n".join([f"| {panel} | | default |", "|---|---|---|", *rows]))
    return "\n\n".join(tables)


def _panel(parameter: Any) -> str:
    default = "Arguments" if parameter.param_type_name == "argument" else "Options"
    return getattr(parameter, "rich_help_panel", None) or default


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{_argument_name(parameter)}`"
    else:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        if not parameter.is_flag:
            names += f" {_kind(parameter)}"
    return f"| {names} | {_cell(parameter.help or '')} | {_default(parameter)} |"


def _argument_name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _kind(parameter: Any) -> str:
    hint = parameter.type_descriptor.annotation
    if get_origin(hint) is Literal:
        return " \\| ".join(f"`{choice}`" for choice in get_args(hint))
    return f"*{_KINDS.get(hint, 'text')}*"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    shown = getattr(parameter, "show_default", None)
    value = shown if isinstance(shown, str) else parameter.default
    if value is None or value is False or callable(value) or value == ():
        return ""
    return f"`{'on' if value is True else getattr(value, 'value', value)}`"


def _cell(text: str) -> str:
    """Returns a help text as a cell of a table, without the markup of rich."""
    text = re.sub(r"\[/?(?:bold|dim|italic|cyan|/)\]", "", " ".join(text.split()))
    text = text.replace("\\[", "[").replace("|", "\\|").replace("<", "&lt;")
    return re.sub(r"(?<![`\w])(--[a-z][\w-]*)", r"`\1`", text)
