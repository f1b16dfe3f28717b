"""The page of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from db3kd.report.class_distances import class_distance_matrix
from db3kd.report.label_figures import distance_curve, nearest_classes, sample_grid
from db3kd.report.plot_style import class_labels
from db3kd.report.tables import markdown_table
from db3kd.storage.filesystem import write_atomically


@dataclass(frozen=True, repr=False)
class Samples:
    """The samples that a report shows.

    Attributes:
        images: [N, channels, height, width], values in [0, 1], or rows of a table, [N, D].
        distances: [N, C], as for `db3kd.report.label_figures.nearest_classes`.
        decisions: [N] integers, the teacher's classes.
        names: N names, such as the files of the images.
    """

    images: ArrayLike
    distances: ArrayLike
    decisions: ArrayLike
    names: Sequence[str]

    def __repr__(self) -> str:
        return f"Samples(images {list(np.shape(self.images))})"


@dataclass(frozen=True, repr=False)
class ClassDistances:
    """The distances between classes that a report shows.

    Attributes:
        distances: [N, C], +inf if a class was not reached.
        decisions: [N] integers, the teacher's classes; -1 for undecided samples.
        searched: [N, C] bool, the distances that were searched; None for all.
    """

    distances: ArrayLike
    decisions: ArrayLike
    searched: ArrayLike | None = None

    def __repr__(self) -> str:
        return f"ClassDistances(distances {list(np.shape(self.distances))})"


def write_report(
    folder: str | Path,
    title: str,
    *,
    notes: Sequence[str] = (),
    samples: Samples | None = None,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    curve_ylabel: str = "mean distance (L2)",
    class_distances: ClassDistances | None = None,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Writes report.md: notes, and the figures that arguments are given for.

    Example:
        >>> write_report("runs/report", "Labels of mnist5k", notes=["Teacher: lenet5."])

    Args:
        folder: The folder to write to, which is made if necessary. The files of an earlier report
            are replaced.
        title: The heading of the page.
        notes: Paragraphs, such as settings, seeds and numbers of queries.
        samples: Listed with their nearest classes; images are drawn by `sample_grid`. Without any,
            the page has no such section.
        curves: Drawn by `distance_curve`.
        curve_ylabel: What the distances of `curves` are.
        class_distances: Drawn by `class_distance_matrix`.
        class_names: C names; the numbers of the classes by default.

    Returns:
        The path of report.md.

    Raises:
        ValueError: If the shapes or the number of names do not fit together.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = [f"# {title}"]
    page += notes
    if samples is not None and len(samples.names):
        page.append("## Samples")
        if np.ndim(samples.images) == 4:
            sample_grid(
                samples.images,
                samples.distances,
                samples.decisions,
                folder / "samples.png",
                class_names=class_names,
            )
            page.append("![Samples with the distances to their nearest classes](samples.png)")
        page.append(_table_of_samples(samples, class_names))
    if curves:
        distance_curve(curves, folder / "distance_curve.png", curve_ylabel)
        page += ["## Distance against queries", "![Distance against queries](distance_curve.png)"]
    if class_distances is not None:
        class_distance_matrix(
            class_distances.distances,
            class_distances.decisions,
            folder / "class_distances.png",
            searched=class_distances.searched,
            class_names=class_names,
        )
        page += [
            "## Distances between classes",
            "![Mean distance from each class to each other](class_distances.png)",
        ]
    return write_page(folder, page)


def _table_of_samples(samples: Samples, class_names: Sequence[str] | None) -> str:
    distances = np.asarray(samples.distances)
    names = class_labels(class_names, distances.shape[1])
    rows = []
    for name, each, decision in zip(
        samples.names, distances, np.asarray(samples.decisions).tolist(), strict=True
    ):
        nearest = ", ".join(
            f"{names[number]} {distance:.3g}"
            for number, distance in nearest_classes(each, decision)
        )
        rows.append([name, names[decision], nearest or "none was reached"])
    head = ["sample", "teacher's class", "nearest classes and their distances (L2)"]
    return markdown_table(head, rows, text_columns=3)


def write_page(folder: Path, paragraphs: Sequence[str]) -> Path:
    """Writes paragraphs to report.md in a folder, and returns the path of the file."""
    report = folder / "report.md"
    write_atomically(report, ("\n\n".join(paragraphs) + "\n").encode())
    return report
