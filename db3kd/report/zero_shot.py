"""The report of a zero-shot run: a table, pictures of the samples, what they came to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from db3kd.data.pseudo_samples import PseudoSamples
from db3kd.report.sample_pictures import (
    accuracy_by_queries,
    class_grid,
    distance_by_moves,
    move_grid,
)
from db3kd.report.tables import mean_and_deviation

_HEAD = ("students of", "images", "queries in all", "accuracy %", "agreement %")


@dataclass(frozen=True)
class Row:
    """What students trained in one way came to.

    Attributes:
        name: in the table.
        images: trained on.
        queries: spent in all on these images and their labels.
        accuracies: share of test images put in the class of their label, in [0, 1], by seed.
        agreements: share of test images on which student and teacher decide alike, by seed.
    """

    name: str
    images: int
    queries: int
    accuracies: Sequence[float] = ()
    agreements: Sequence[float] = ()


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown: mean ± sample deviation over seeds."""
    lines = [
        _HEAD,
        ("---", "---:", "---:", "---:", "---:"),
        *(_cells(row) for row in rows),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rich_table(rows: Sequence[Row]) -> Table:
    """The same for the terminal."""
    shown = Table(*_HEAD)
    for column in shown.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for row in rows:
        shown.add_row(*_cells(row))
    return shown


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.images:,}",
        f"{row.queries:,}",
        mean_and_deviation(row.accuracies),
        mean_and_deviation(row.agreements),
    )


def write_zero_shot_report(
    folder: Path,
    rows: Sequence[Row],
    samples: PseudoSamples,
    *,
    curves: Mapping[str, Sequence[Row]] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Writes report.md and its pictures into `folder`, and returns its path.

    curves: by name, rows of one kind, drawn as accuracy against queries; a baseline has one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = ["# Zero-shot: students of pseudo samples"]
    if rows:
        page += [
            table(rows),
            "Mean ± sample deviation over seeds; agreement is with the teacher's decisions on test "
            "images.",
        ]
    page += notes
    pictures = samples.pixels.ndim == 4 and samples.pixels.shape[1] in (1, 3)
    if pictures:
        class_grid(
            samples.pixels,
            samples.decision,
            samples.classes,
            folder / "classes.png",
            samples.class_names,
        )
        page += ["## Pseudo samples by class", "![Pseudo samples by class](classes.png)"]
    if samples.snapshots and pictures:
        pixels = {count: noted[0] for count, noted in samples.snapshots.items()}
        move_grid(
            pixels,
            samples.decision,
            samples.classes,
            folder / "moves.png",
            samples.class_names,
        )
        page += ["## By number of moves", "![Samples by number of moves](moves.png)"]
    moved = _mean_distances(samples)
    if len(moved) > 1:
        distance_by_moves(list(moved), list(moved.values()), folder / "distance.png")
        page += ["![Distance to the boundary by number of moves](distance.png)"]
    if curves:
        accuracy_by_queries(
            {name: _points(kind) for name, kind in curves.items()}, folder / "accuracy.png"
        )
        page += ["## Accuracy against queries", "![Accuracy against queries](accuracy.png)"]
    report = folder / "report.md"
    report.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return report


def _points(rows: Sequence[Row]) -> tuple[list[int], list[Sequence[float]]]:
    """Queries in ascending order, and the accuracies reached with them."""
    rows = sorted(rows, key=lambda row: row.queries)
    return [row.queries for row in rows], [row.accuracies for row in rows]


def _mean_distances(samples: PseudoSamples) -> dict[int, float]:
    """Mean distance by number of moves, over the samples for which it is known at all of them."""
    noted = {count: distance for count, (_, distance) in sorted(samples.snapshots.items())}
    noted = {count: distance for count, distance in noted.items() if distance.isfinite().any()}
    if not noted:
        return {}
    known = samples.distance.isfinite()
    for distance in noted.values():
        known = known & distance.isfinite()
    if not known.any():
        return {}
    return {count: distance[known].mean().item() for count, distance in noted.items()}
