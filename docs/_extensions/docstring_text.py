"""Prepares docstrings for Sphinx: shapes such as [N, *image_shape] are not emphasis."""

from docstring_fields import with_plain_stars
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the preparation to autodoc."""

    def prepare(
        app: Sphinx, kind: str, name: str, found: object, options: object, lines: list[str]
    ) -> None:
        lines[:] = [with_plain_stars(line) for line in lines]

    app.connect("autodoc-process-docstring", prepare, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
