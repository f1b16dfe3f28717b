"""The page that sums up several students: report.html, which links their reports, and report.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from db3kd.report.html_page import write_html_page
from db3kd.report.pages import write_page
from db3kd.report.student_blocks import Section
from db3kd.report.student_markdown import section_paragraphs
from db3kd.report.text import markdown_text


@dataclass(frozen=True, eq=False, kw_only=True)
class Summary:
    """What the page shows.

    Attributes:
        title: The heading of the page.
        share: The most important number, such as "97.8 %".
        statement: What it is a share of.
        key_figures: Other values, and what they are.
        links: Texts, and the files that they link, relative to the page.
        sections: Sections of tables and settings.
    """

    title: str
    share: str
    statement: str
    key_figures: Sequence[tuple[str, str]] = ()
    links: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = ()


def write_summary(folder: str | Path, summary: Summary) -> Path:
    """Writes report.html and report.md.

    Args:
        folder: The folder to write to, which exists.
        summary: What the page shows.

    Returns:
        The path of report.html.
    """
    folder = Path(folder)
    page = [
        f"# {markdown_text(summary.title)}",
        f"**{summary.share}** {markdown_text(summary.statement)}",
        "\n".join(f"- **{value}** {what}" for value, what in summary.key_figures),
        "\n".join(f"- [{text}]({file})" for text, file in summary.links),
        *section_paragraphs(summary.sections),
    ]
    write_page(folder, [paragraph for paragraph in page if paragraph])
    return write_html_page(
        "summary.html.jinja", folder, summary, summary.key_figures, summary.sections
    )
