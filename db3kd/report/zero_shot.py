"""The report of a zero-shot run: a table of students, and figures of pseudo samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from db3kd.data.pseudo_samples import PseudoSamples
from db3kd.report.pages import write_page
from db3kd.report.pseudo_sample_figures import (
    accuracy_by_queries,
    class_grid,
    distance_by_moves,
    move_grid,
)
from db3kd.report.tables import markdown_table, mean_and_deviation

_HEAD = ("students of", "images", "queries in total", "accuracy %", "agreement %")


@dataclass(frozen=True)
class ZeroShotRow:
    """The students of one transfer set: a row of the table.

    Attributes:
        name: The transfer set, as the table calls it.
        images: Number of images in the transfer set.
        queries: Total number of queries for these images and their labels.
        accuracies: Accuracy of each student on the test images, in [0, 1], one per seed.
        agreements: Share of test images that student and teacher put in one class, in [0, 1], one
            per seed.
        curve: The curve of the figure that the row is a point of; None if it is a point alone.
    """

    name: str
    images: int
    queries: int
    accuracies: Sequence[float] = ()
    agreements: Sequence[float] = ()
    curve: str | None = None


def zero_shot_table(rows: Sequence[ZeroShotRow]) -> str:
    """Returns the table of students as Markdown: mean ± sample standard deviation over seeds."""
    return markdown_table(_HEAD, [_cells(row) for row in rows])


def write_zero_shot_report(
    folder: str | Path,
    rows: Sequence[ZeroShotRow],
    samples: PseudoSamples,
    *,
    curves: Mapping[str, Sequence[ZeroShotRow]] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Writes report.md with the table of students, notes and figures.

    Args:
        folder: The folder to write to, which is made if necessary.
        rows: The table; without any row, the page has none.
        samples: The pseudo samples. They are drawn if their shape is that of images with 1 or 3
            channels.
        curves: Rows by the name of a curve, drawn as accuracy against queries. The curve of a
            baseline has one row.
        notes: Paragraphs below the table.

    Returns:
        The path of report.md.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = ["# Students without images"]
    if rows:
        page += [
            zero_shot_table(rows),
            "Mean ± sample standard deviation over seeds. Agreement is with the teacher's "
            "decisions on test images.",
        ]
    page += notes
    names = samples.class_names
    are_images = samples.pixels.ndim == 4 and samples.pixels.shape[1] in (1, 3)
    if are_images:
        file = folder / "classes.png"
        class_grid(samples.pixels, samples.decision, samples.classes, file, names)
        page += ["## Pseudo samples by class", "![Pseudo samples by class](classes.png)"]
    if samples.snapshots and are_images:
        snapshots = {count: pixels for count, (pixels, _) in samples.snapshots.items()}
        move_grid(snapshots, samples.decision, samples.classes, folder / "moves.png", names)
        page += ["## Pseudo samples by number of moves", "![Samples by moves](moves.png)"]
    distances = _mean_distances(samples)
    if len(distances) > 1:
        distance_by_moves(list(distances), list(distances.values()), folder / "distance.png")
        page += ["![Distance to the boundary by number of moves](distance.png)"]
    if curves:
        accuracy_by_queries(
            {name: _points(rows) for name, rows in curves.items()}, folder / "accuracy.png"
        )
        page += ["## Accuracy against queries", "![Accuracy against queries](accuracy.png)"]
    return write_page(folder, page)


def _cells(row: ZeroShotRow) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.images:,}",
        f"{row.queries:,}",
        mean_and_deviation(row.accuracies),
        mean_and_deviation(row.agreements),
    )


def _points(rows: Sequence[ZeroShotRow]) -> tuple[list[int], list[Sequence[float]]]:
    """Returns queries in ascending order, and the accuracies for each."""
    rows = sorted(rows, key=lambda row: row.queries)
    return [row.queries for row in rows], [row.accuracies for row in rows]


def _mean_distances(samples: PseudoSamples) -> dict[int, float]:
    """Returns the mean distance to the boundary by number of moves, L2 in input units.

    A sample is included only if its distance is known after each of these numbers of moves.
    """
    distances = {
        count: distance
        for count, (_, distance) in sorted(samples.snapshots.items())
        if distance.isfinite().any()
    }
    if not distances:
        return {}
    known = samples.distance.isfinite()
    for distance in distances.values():
        known = known & distance.isfinite()
    if not known.any():
        return {}
    return {count: distance[known].mean().item() for count, distance in distances.items()}
