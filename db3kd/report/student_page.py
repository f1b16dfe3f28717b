"""The page of a student: report.html, one file that needs nothing else, and report.md."""

from collections.abc import Sequence
from pathlib import Path

from db3kd.report.html_page import write_html_page
from db3kd.report.pages import write_page
from db3kd.report.plot_style import save
from db3kd.report.student_blocks import Cards, Plot, Section
from db3kd.report.student_markdown import student_paragraphs
from db3kd.report.student_report import StudentReport
from db3kd.report.student_sections import headline, key_figures, student_sections
from db3kd.report.thumbnails import image_png


def write_student_report(folder: str | Path, report: StudentReport) -> Path:
    """Writes report.html, which is complete in itself, and report.md with figures as files.

    Example:
        >>> write_student_report("runs/mine/report", report)
        PosixPath('runs/mine/report/report.html')

    Args:
        folder: The folder to write to, which is made if necessary. The files of an earlier report
            are replaced.
        report: What the page shows.

    Returns:
        The path of report.html.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sections = student_sections(report)
    _write_figures(folder, sections)
    write_page(folder, student_paragraphs(report, sections))
    return write_html_page(
        "student.html.jinja",
        folder,
        report,
        key_figures(report),
        sections,
        headline=headline(report),
    )


def _write_figures(folder: Path, sections: Sequence[Section]) -> None:
    for block in (block for section in sections for block in section.blocks):
        if isinstance(block, Plot):
            save(block.draw(), folder / block.file)
        elif isinstance(block, Cards) and block.cards[0].image is not None:
            (folder / block.folder).mkdir(exist_ok=True)
            for card, file in block.files():
                if card.image is not None:
                    (folder / file).write_bytes(image_png(card.image))
