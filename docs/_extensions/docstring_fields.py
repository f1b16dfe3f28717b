"""Text of docstrings as reStructuredText."""

import re

_CODE = re.compile(r"(`[^`]*`)")
_UNPACKED = re.compile(r"(?<=[\[,(] )\*(?=\w)|(?<=[\[(])\*(?=\w)")


def with_plain_stars(line: str) -> str:
    """Returns the line with a backslash before each star that unpacks a shape, outside of code."""
    parts = _CODE.split(line)
    return "".join(part if part.startswith("`") else _UNPACKED.sub(r"\\*", part) for part in parts)
