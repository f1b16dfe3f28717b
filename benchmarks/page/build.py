"""Makes the page of results, benchmarks/results/README.md, from the JSON files beside it.

    python -m benchmarks.page

Nobody edits the page by hand: a test compares it with what the files make. The kind of a file is
the longest of `KINDS` that its name begins with. Files of no kind are shown in plain tables.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.common.formatting import duration, mean_and_deviation, number, percent
from benchmarks.common.record import RESULTS
from benchmarks.page import tables
from benchmarks.page.plots import SIZES, Plot, draw, plots

PAGE = "README.md"

KINDS = {
    "ops": "Native ops",
    "wheels": "Wheels",
    "labelling": "Labelling a small set",
    "result-memory": "Memory of results",
    "distances": "Distance against queries",
    "candidates": "Number of starting points",
    "peers": "Compared with other attacks",
    "growth": "Growth of cost",
    "targets": "Many classes",
    "students": "Students",
    "budgets": "The best student for a budget",
    "proxies": "Proxies that learn from distances",
    "taught": "Students that learn from proxies",
    "extraction": "Compared with other methods of extraction",
    "tables": "Students of tables",
    "zero-shot": "Without any image",
    "teacher-share": "Time in the teacher",
    "cpu-batch": "Batches of a CPU teacher",
    "memory": "Memory",
    "pictures": "Pictures of 1,000 classes",
    "journal-share": "The journal",
    "crashes": "Kills",
    "interrupts": "Interrupts of a served run",
    "workers": "Several workers",
    "serving": "Served teachers",
}
"""Titles by kind, in the order of the page."""


@dataclass(frozen=True)
class Page:
    """The text of the page and the plots that it shows."""

    text: str
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Section:
    """One result: its kind, the name of its file without ".json", what it holds, its plots."""

    kind: str
    name: str
    result: dict[str, Any]
    plots: list[Plot]


def build(folder: Path) -> Page:
    """Makes the page of a folder of results; kinds without a file are left out."""
    sections: dict[str, list[Section]] = {kind: [] for kind in KINDS}
    for file in sorted(folder.glob("*.json"), key=_by_numbers):
        kind, result = _kind(file.stem), json.loads(file.read_text())
        section = Section(kind, file.stem, result, plots(kind, result, file.stem))
        sections.setdefault(kind, []).append(section)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters |= {
        "number": number, "percent": percent, "duration": duration, "mean": mean_and_deviation,
        "columns": tables.columns, "grid": tables.grid, "ops": tables.ops,
        "student_overview": tables.student_overview, "budgets": tables.budgets,
        "extraction": tables.extraction,
        "shared_settings": tables.shared_settings, "everything": tables.everything,
    }  # fmt: skip
    text = environment.get_template("page.md.jinja").render(
        sections={kind: found for kind, found in sections.items() if found},
        titles=KINDS,
        sizes=SIZES,
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    found = [plot for kind in sections.values() for section in kind for plot in section.plots]
    return Page(text, tuple(found))


def main() -> None:
    """Writes the page and its plots, and removes old plots."""
    page = build(RESULTS)
    for old in RESULTS.glob("*.png"):
        old.unlink()
    for plot in page.plots:
        draw(plot, RESULTS)
    (RESULTS / PAGE).write_text(page.text)
    print(f"written to {RESULTS / PAGE}, with {len(page.plots)} plots")


def _by_numbers(file: Path) -> list[tuple[int, str]]:
    """A sort key that puts 5000 before 20000."""
    parts = re.findall(r"\d+|\D+", file.stem)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _kind(stem: str) -> str:
    """The longest of `KINDS` that a name begins with; the name itself if there is none."""
    fitting = [kind for kind in KINDS if stem == kind or stem.startswith(f"{kind}-")]
    return max(fitting, key=len, default=stem)
