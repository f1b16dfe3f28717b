"""Writes HTML pages, which need no other file, from templates."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db3kd.report.plot_style import COLOURS, inline_svg
from db3kd.report.student_blocks import Section
from db3kd.report.text import clean_text
from db3kd.report.thumbnails import data_url
from db3kd.storage.filesystem import write_atomically

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context


def write_html_page(
    template: str,
    folder: Path,
    report: object,
    key_figures: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    **more: object,
) -> Path:
    """Writes report.html from a template that extends page.html.jinja, and returns its path.

    The folder holds the image files that go into the page, and the title of the report is its
    heading. Each key figure is a value and its meaning. `more` are further values of the template.
    """
    text = (
        _environment()
        .get_template(template)
        .render(
            report=report,
            key_figures=key_figures,
            sections=sections,
            colours=COLOURS,
            folder=folder,
            **more,
        )
    )
    file = folder / "report.html"
    write_atomically(file, text.encode())
    return file


@cache  # It keeps the compiled templates; compiling them takes longer than a page.
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("db3kd.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    environment.filters |= {
        "embedded": pass_context(_embedded),
        "unbroken": lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%"),
        "svg": lambda plot: Markup(inline_svg(plot.draw(), plot.label)),
    }
    return environment


def _embedded(context: "Context", file: str) -> str:
    return data_url((context["folder"] / file).read_bytes())


def _clean(value: Any) -> Any:
    from markupsafe import Markup

    return clean_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value
