"""Reads Google-style docstrings: the section `Attributes:`, and text as reStructuredText."""

import inspect
import re

_CODE = re.compile(r"(`[^`]*`)")
_UNPACKED = re.compile(r"(?<=[\[,(] )\*(?=\w)|(?<=[\[(])\*(?=\w)")


def attribute_texts(documented: type) -> dict[str, str]:
    """Returns the text of each attribute that a class documents."""
    text = inspect.getdoc(documented) or ""
    section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE)
    if section is None:
        return {}
    texts: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(section[1]).splitlines():
        if entry := re.match(r"(\w+): (.*)", line):
            name = entry[1]
            texts[name] = entry[2]
        elif name:
            texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts


def with_plain_stars(line: str) -> str:
    """Returns the line with a backslash before each star that unpacks a shape, outside of code."""
    parts = _CODE.split(line)
    return "".join(part if part.startswith("`") else _UNPACKED.sub(r"\\*", part) for part in parts)
