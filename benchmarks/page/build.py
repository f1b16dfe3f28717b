"""Makes the page of results, benchmarks/results/README.md, from the JSON files beside it.

    python -m benchmarks.page

The page is never edited by hand: a test fails where it is not what its files make. A file's kind
is the longest beginning of its name among KINDS; one that fits none is shown as it is, in tables.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.record import RESULTS
from benchmarks.page import renderers
from benchmarks.page.growth_renderer import growth
from benchmarks.page.peer_renderer import peers
from benchmarks.page.plots import Plot, draw
from benchmarks.page.renderers import Block, Renderer, Result, anything
from benchmarks.page.students_renderer import overview, students
from benchmarks.page.targets_renderer import targets

PAGE = "README.md"


@dataclass(frozen=True)
class Kind:
    """What results of one kind show: each by itself, and all of them before that."""

    title: str
    renderer: Renderer
    overview: Callable[[Sequence[Result]], list[Block]] = lambda _: []


KINDS: dict[str, Kind] = {
    "ops": Kind("Native ops", renderers.ops),
    "labelling": Kind("Labelling a small set", renderers.labelling),
    "distances": Kind("Distance for queries", renderers.distances),
    "candidates": Kind("How many images rays lead to", renderers.starting_points),
    "peers": Kind("Beside other attacks", peers),
    "growth": Kind("How cost grows", growth),
    "targets": Kind("Many classes", targets),
    "students": Kind("Students", students, overview),
    "zero-shot": Kind("Without any image", renderers.zero_shot),
    "teacher-share": Kind("Time in the teacher", renderers.teacher_share),
    "memory": Kind("Memory", renderers.memory),
    "journal-share": Kind("The journal", renderers.journal_share),
    "crashes": Kind("Stops", renderers.crashes),
    "interrupts": Kind("Stops of a served run", renderers.interrupts),
    "workers": Kind("Several workers", renderers.workers),
    "serving": Kind("Served teachers", renderers.serving),
}
"""By the beginning of a file's name, in the order of the page."""

_HEAD = """# What was measured

Made by `python -m benchmarks.page` from the JSON files in this folder; do not edit.
[docs/benchmarks.md](../../docs/benchmarks.md): how each number is made, and where db3kd loses."""


@dataclass(frozen=True)
class Page:
    """The page's text and the plots it shows."""

    text: str
    plots: tuple[Plot, ...]


def build(results: Path) -> Page:
    """The page of a folder of results; kinds without a file are left out."""
    files = sorted(results.glob("*.json"), key=_in_order)
    kinds = [*KINDS, *(file.stem for file in files if _kind(file.stem) not in KINDS)]
    parts, plots = [_HEAD], []
    for name in dict.fromkeys(kinds):
        kind = KINDS.get(name, Kind(name, anything))
        own = {file: json.loads(file.read_text()) for file in files if _kind(file.stem) == name}
        parts += [f"## {kind.title}"] * bool(own)
        parts += map(_markdown, kind.overview(list(own.values())))
        for file, result in own.items():
            parts.append(f"### {file.stem}")
            for block in kind.renderer(result, file.stem):
                parts.append(_markdown(block))
                plots += [block] if isinstance(block, Plot) else []
            parts.append(_said_of(result, file.name))
    return Page("\n\n".join(parts) + "\n", tuple(plots))


def main() -> None:
    page = build(RESULTS)
    for old in RESULTS.glob("*.png"):
        old.unlink()
    for plot in page.plots:
        draw(plot, RESULTS)
    (RESULTS / PAGE).write_text(page.text)
    print(f"written to {RESULTS / PAGE}, with {len(page.plots)} plots")


def _in_order(file: Path) -> list[tuple[int, str]]:
    """By name, but a number by what it counts: 5000 before 20000."""
    parts = re.findall(r"\d+|\D+", file.stem)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _kind(stem: str) -> str:
    """The longest of KINDS that a name begins with; its own name where there is none."""
    fitting = [kind for kind in KINDS if stem == kind or stem.startswith(f"{kind}-")]
    return max(fitting, key=len, default=stem)


def _markdown(block: Block) -> str:
    return f"![{block.title}]({block.file})" if isinstance(block, Plot) else block


def _said_of(result: Result, file: str) -> str:
    """What a result was measured on and with."""
    said = []
    if "data" in result:
        said.append(f"data {result['data']}")
    if "teacher_accuracy" in result:
        said.append(f"teacher at {100 * result['teacher_accuracy']:.2f} %")
    if "measured" in result:
        measured = result["measured"]
        versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
        threads = "thread" if measured["threads"] == 1 else "threads"
        said.append(f"{measured['processor']}, {measured['threads']} {threads}")
        said.append(f"{versions}, commit {measured['commit']}")
    return f"*[{file}]({file}): {'; '.join(said)}.*" if said else f"*[{file}]({file})*"
