"""The sections of a student's report as Markdown."""

from collections.abc import Sequence

from db3kd.report.student_blocks import Bars, Block, Cards, HeatMap, Plot, Section, Settings, Table
from db3kd.report.student_report import StudentReport
from db3kd.report.student_sections import headline, key_figures
from db3kd.report.tables import NO_VALUE, markdown_table
from db3kd.report.text import markdown_block, markdown_code, markdown_text


def student_paragraphs(report: StudentReport, sections: Sequence[Section]) -> list[str]:
    """Returns the paragraphs of report.md, with the figures under the names of their files."""
    share, rest = headline(report)
    page = [
        f"# {markdown_text(report.title)}",
        "  \n".join(f"{name}: {markdown_text(value)}" for name, value in report.facts),
        f"**{share}** {rest} get the teacher's class from the student. In brackets: 95 % Wilson "
        "interval.",
    ]
    if figures := key_figures(report):
        page.append("\n".join(f"- **{value}** {what}" for value, what in figures))
    page += [f"**Warning:** {markdown_text(each)}" for each in report.warnings]
    page += [markdown_text(note) for note in report.notes]
    return [*page, *section_paragraphs(sections)]


def section_paragraphs(sections: Sequence[Section]) -> list[str]:
    """Returns the paragraphs of sections, with the figures under the names of their files."""
    page = []
    for section in sections:
        page.append(f"## {section.title}")
        if section.text:
            page.append(markdown_text(section.text))
        for block in section.blocks:
            page += _paragraphs(block)
    return page


def _paragraphs(block: Block) -> list[str]:
    match block:
        case Table():
            return [_table(block)]
        case Bars():
            return [_table(Table(block.head, [(bar.name, bar.value) for bar in block.bars]))]
        case HeatMap():
            return [_confusion_table(block)]
        case Plot():
            return [f"![{block.label}]({block.file})"]
        case Cards():
            return [_card_table(block)]
        case Settings():
            return _settings(block)


def _table(block: Table) -> str:
    rows = [[markdown_text(cell) for cell in row] for row in block.rows]
    for number in block.strong_rows:
        name, *cells = rows[number]
        rows[number] = [name, *(f"**{cell}**" if cell else "" for cell in cells)]
    return markdown_table([markdown_text(cell) for cell in block.head], rows, block.text_columns)


def _confusion_table(block: HeatMap) -> str:
    rows = [
        [name, *([NO_VALUE] * len(block.names) if row is None else [f"{x.count:,}" for x in row])]
        for name, row in zip(block.names, block.rows, strict=True)
    ]
    return _table(Table(["teacher \N{RIGHTWARDS ARROW} student", *block.names], rows))


def _card_table(block: Cards) -> str:
    """A row for each card: its image, its classes, and its soft label in words."""
    first = block.cards[0]
    head = ["example", *(who for who, _ in first.classes)]
    head += ["classes of highest probability"] if first.bars else []
    rows = []
    for card, file in block.files():
        title = markdown_text(card.title)
        row = [title if card.image is None else f"![{title}]({file})"]
        row += [markdown_text(name) for _, name in card.classes]
        if card.bars:
            row.append(", ".join(f"{markdown_text(bar.name)} {bar.value}" for bar in card.bars))
        rows.append(row)
    return markdown_table(head, rows, text_columns=len(head))


def _settings(block: Settings) -> list[str]:
    """A table of the short values, then a block for each value of several lines."""
    short = [(name, value) for name, value in block.values if "\n" not in value]
    rows = [
        (
            markdown_text(name),
            markdown_text(value) if block.is_sentence(value) else markdown_code(value),
        )
        for name, value in short
    ]
    found = [markdown_table(("setting", "value"), rows, text_columns=2)] if rows else []
    for name, value in block.values:
        if "\n" in value:
            found += [f"{markdown_text(name)}:", markdown_block(value)]
    return found
