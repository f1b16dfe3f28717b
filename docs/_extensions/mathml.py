"""Writes formulas as MathML, which browsers show without a script or a font from elsewhere."""

import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

_BRACE = re.compile(r"<mo>([{}])</mo>")


def mathml(formula: str, as_block: bool) -> str:
    """Returns a formula of TeX as MathML.

    Braces are as tall as the text, as brackets are: without a font for mathematics, Chromium draws
    taller ones over their neighbours.
    """
    written = str(tex2mathml(formula, as_block=as_block))
    return _BRACE.sub(r'<mo stretchy="false">\1</mo>', written)


def inline_math(writer: HTML5Translator, node: nodes.math) -> None:
    """Writes a formula in a line of text."""
    writer.body.append(mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def block_math(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Writes a formula in a paragraph of its own."""
    writer.body.append(mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the renderer that `html_math_renderer = "mathml"` chooses."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
