"""Docstrings have one notation of shapes and one order of sections."""

import ast
import inspect
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "db3kd"
DTYPE = r"(?:u?int\d+|b?float\d+|bool)"
SECTIONS = ("Args:", "Attributes:", "Returns:", "Yields:", "Raises:")


def docstrings_in(body):
    """The bare strings in a body, in those of its classes and in those of its functions."""
    for statement in body:
        value = getattr(statement, "value", None)
        if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant):
            if isinstance(value.value, str):
                yield value
        elif isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from docstrings_in(statement.body)


@cache
def docstrings():
    """Each docstring of the package by its file and line, also those of constants."""
    return {
        f"{file.relative_to(PACKAGE.parent)}:{found.lineno}": found.value
        for file in PACKAGE.glob("**/*.py")
        for found in docstrings_in(ast.parse(file.read_text()).body)
    }


def places(pattern):
    """Where a pattern is found in a docstring."""
    return [
        f"{place}: {match[0]}"
        for place, text in docstrings().items()
        for match in re.finditer(pattern, text)
    ]


def entries(text, section):
    """The entries of a section of a docstring: lines that are indented once more than its name."""
    lines = text.split("\n")
    for start, line in enumerate(lines):
        if line.strip() == section:
            indent = " " * (len(line) - len(line.lstrip()) + 4)
            for following in lines[start + 1 :]:
                if not following.startswith(indent):
                    break
                if following[len(indent)] != " ":
                    yield following.strip()


def test_shapes_are_written_without_backticks():
    assert len(docstrings()) > 1000
    assert places(r"`\[(?:[A-Za-z]|\d+|\*\w+)\b[^`\]]*\][^`]*`") == []


def test_the_dtype_follows_the_shape():
    assert places(rf"\b{DTYPE}\s+\[[^\]]+\]") == []
    assert places(rf"`\[[^`\]]+\]\s+{DTYPE}`") == []


def test_raises_states_conditions():
    wrong = [
        f"{place}: {entry}"
        for place, text in docstrings().items()
        for entry in entries(text, "Raises:")
        if not re.match(r"[\w., ]+: (?:If|See) ", entry)
    ]
    assert wrong == []


def test_an_example_stands_directly_before_the_sections():
    wrong = []
    for place, text in docstrings().items():
        parts = re.findall(r"^(?! )\S.*", inspect.cleandoc(text), re.MULTILINE)
        if "Example:" in parts:
            before, after = parts[: parts.index("Example:")], parts[parts.index("Example:") + 1 :]
            if set(before) & set(SECTIONS) or not set(after) <= set(SECTIONS):
                wrong.append(place)
    assert wrong == []
