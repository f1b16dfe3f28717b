"""Fills pages with text that is made from the code.

A line `<!-- generated: NAME ARGUMENTS -->` on a page is replaced by what the function `NAME` of
`GENERATORS` returns. A quote directly below it is replaced too: it tells those who read the file
itself where else they find the text.
"""

import re
from collections.abc import Callable

from command_reference import command_reference
from description_reference import description_reference
from notebook_page import notebook_page
from python_reference import public_names, stage_reference
from sphinx.application import Sphinx

GENERATORS: dict[str, Callable[..., str]] = {
    "commands": command_reference,
    "description-keys": description_reference,
    "notebook": notebook_page,
    "public-names": public_names,
    "stage": stage_reference,
}

_PLACE = re.compile(r"^<!-- generated: (.*?) -->\n(?:>.*\n)*", re.MULTILINE)


def filled(text: str) -> str:
    """Returns the text with every place filled.

    Raises:
        KeyError: If there is no such generator.
    """

    def generate(place: re.Match[str]) -> str:
        name, *arguments = place[1].split()
        return GENERATORS[name](*arguments) + "\n"

    return _PLACE.sub(generate, text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the generators to the pages."""

    def fill(app: Sphinx, name: str, content: list[str]) -> None:
        content[0] = filled(content[0])

    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
