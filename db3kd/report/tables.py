"""A run as a page: the table of methods, samples with their soft labels, distances as pictures.

Everything takes arrays or CPU tensors and writes PNG and Markdown; no display is needed.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray
from rich.table import Table

if TYPE_CHECKING:  # with the whole training behind it, which a report does without
    from db3kd.distillation.strategies import StrategyResult

# Okabe and Ito's colours, told apart by colour-blind readers; the palest is left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<P"
_OWN, _OTHER = COLOURS[1], COLOURS[0]
_GREY = "#767676"
_NO_VALUE = "\N{EN DASH}"
DPI = 150
_MOST_BARS = 12
_TOP_CLASSES = 5
_MOST_NUMBERS = 20


def comparison_table(rows: Sequence["StrategyResult"]) -> tuple[str, Table]:
    """The table of methods as Markdown and for the terminal: mean ± sample deviation over seeds."""
    head = ("method", "accuracy %", "agreement %", "queries per sample")
    cells = [
        (
            row.method,
            mean_and_deviation(row.accuracies),
            mean_and_deviation(row.agreements),
            _NO_VALUE if row.queries_per_sample is None else f"{row.queries_per_sample:,.0f}",
        )
        for row in rows
    ]
    lines = [head, ("---", "---:", "---:", "---:"), *[tuple(map(_escape, row)) for row in cells]]
    markdown = "".join(f"| {' | '.join(line)} |\n" for line in lines)

    table = Table(*head)
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for row in cells:
        table.add_row(*row)
    return markdown, table


def sample_grid(
    images: ArrayLike,
    soft_labels: ArrayLike,
    decisions: ArrayLike,
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    columns: int = 6,
) -> None:
    """Draws each sample with a bar chart of its soft label, the teacher's decision set apart.

    With more classes than fit as bars, the greatest few are shown by name.

    Args:
        images: [n, channels, height, width], 1 or 3 channels, values in [0, 1].
        soft_labels: [n, C], rows sum to 1.
        decisions: [n] integers, the teacher's classes.
        path: the PNG to write.
        class_names: C names; the numbers by default.
        columns: samples in a row.

    Raises:
        ValueError: the shapes do not belong together.
    """
    images, soft_labels = np.asarray(images), np.asarray(soft_labels)
    decisions = np.asarray(decisions)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(
            f"images: expected [n, 1 or 3, height, width], n > 0, got {list(images.shape)}"
        )
    if soft_labels.ndim != 2 or not len(images) == len(soft_labels) == len(decisions):
        raise ValueError(
            f"soft_labels, decisions: expected [{len(images)}, C] and [{len(images)}], got "
            f"{list(soft_labels.shape)} and {list(decisions.shape)}"
        )
    names = _names(class_names, soft_labels.shape[1])
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.75 * columns, 2.55 * rows + 0.35), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1.5, 1] * rows)
    limit = math.ceil(10 * soft_labels.max()) / 10
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        picture, bars = grid[2 * row, column], grid[2 * row + 1, column]
        picture.axis("off")
        if place >= len(images):
            bars.axis("off")
            continue
        draw_image(picture, images[place])
        decision = int(decisions[place])
        picture.set_title(names[decision], fontsize=9, color=_OWN, pad=3)
        draw = _draw_bars if len(names) <= _MOST_BARS else _draw_top_classes
        draw(bars, soft_labels[place], decision, names, limit)
    figure.suptitle("Samples and their soft labels (the teacher's class in orange)", fontsize=10)
    figure.savefig(path, dpi=DPI)


def distance_curve(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: str | Path,
    ylabel: str = "mean distance (L2)",
) -> None:
    """Draws distance against queries, one line a method; queries on a logarithmic axis.

    Args:
        curves: name → (queries, distances), both [k]; points that are not finite, and those that
            cost no query, are left out.
        path: the PNG to write.
        ylabel: what the distances are: a mean distance, a ratio to an optimum.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    for number, (name, (queries, distances)) in enumerate(curves.items()):
        queries, distances = np.asarray(queries, float), np.asarray(distances, float)
        shown = np.isfinite(distances) & np.isfinite(queries) & (queries > 0)
        axes.plot(
            queries[shown],
            distances[shown],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            linestyle="-" if number < len(COLOURS) else "--",
            markersize=5,
            linewidth=1.6,
            label=name,
        )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("queries per pair of sample and class")
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=0)
    soften(axes)
    if curves:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=DPI)


def mean_class_distances(
    distances: ArrayLike, decisions: ArrayLike
) -> tuple[NDArray[np.float64], int, int]:
    """Mean distance from the samples of each class to each other class.

    Args:
        distances: [n, C], +inf where a class was not reached; the own column is not read.
        decisions: [n] integers, the samples' own classes.

    Returns:
        means [C, C] (row: the samples' class; NaN on the diagonal and where nothing was reached),
        how many pairs of sample and class were not reached, and how many there are.

    Raises:
        ValueError: the shapes do not belong together.
    """
    distances, decisions = np.asarray(distances).astype(float), np.asarray(decisions)
    if distances.ndim != 2 or decisions.shape != distances.shape[:1]:
        raise ValueError(
            f"distances, decisions: expected [n, C] and [n], got {list(distances.shape)} and "
            f"{list(decisions.shape)}"
        )
    samples, classes = distances.shape
    distances[np.arange(samples), decisions] = np.nan
    reached = np.isfinite(distances)
    means = np.full((classes, classes), np.nan)
    for own in range(classes):
        rows = decisions == own
        counts = reached[rows].sum(0)
        sums = np.where(reached[rows], distances[rows], 0).sum(0)
        np.divide(sums, counts, out=means[own], where=counts > 0)
    pairs = samples * (classes - 1)
    return means, pairs - int(reached.sum()), pairs


def class_distance_matrix(
    distances: ArrayLike,
    decisions: ArrayLike,
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws the class-to-class mean distances as a heat map, with numbers where they fit.

    The diagonal is blank, a class reached from no sample of another is grey, and the pairs that
    were not reached are counted. Arguments as `mean_class_distances`, and the PNG's path.
    """
    means, unreached, pairs = mean_class_distances(distances, decisions)
    classes = len(means)
    names = _names(class_names, classes)
    side = min(9.0, 3.2 + 0.42 * classes)
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#D9D9D9")
    heat = axes.imshow(means, cmap="cividis", interpolation="nearest")
    for own in range(classes):
        cell = (own - 0.5, own - 0.5)
        axes.add_patch(Rectangle(cell, 1, 1, facecolor="white", edgecolor="none"))
    if classes <= _MOST_NUMBERS:
        _write_numbers(axes, means)
    _label_classes(axes, names)
    axes.set_xlabel("nearest boundary to class")
    axes.set_ylabel("samples of class")
    share = f"{unreached:,} of {pairs:,} pairs not reached"
    if np.isnan(means[~np.eye(classes, dtype=bool)]).any():
        share += " (grey: none at all)"
    axes.set_title(f"Mean distance between classes\n{share}", fontsize=10)
    if np.isfinite(means).any():
        figure.colorbar(heat, label="mean distance (L2)", shrink=0.8)
    figure.savefig(path, dpi=DPI)


@dataclass(frozen=True)
class Samples:
    """The samples of a report's grid: the arguments of `sample_grid`."""

    images: ArrayLike
    soft_labels: ArrayLike
    decisions: ArrayLike


@dataclass(frozen=True)
class ClassDistances:
    """The distances of a report's matrix: the arguments of `class_distance_matrix`."""

    distances: ArrayLike
    decisions: ArrayLike


def write_report(
    folder: str | Path,
    rows: Sequence["StrategyResult"],
    *,
    title: str = "From decisions to a student",
    notes: Sequence[str] = (),
    samples: Samples | None = None,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    curve_ylabel: str = "mean distance (L2)",
    class_distances: ClassDistances | None = None,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Writes report.md with the table and the pictures there is something to draw for.

    Args:
        folder: made if it is not there; files of an older report are replaced.
        rows: the table.
        title: the heading.
        notes: paragraphs under the table: settings, seeds, what was counted.
        samples, curves, curve_ylabel, class_distances, class_names: see the functions above.

    Returns:
        The path of report.md.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = [f"# {title}"]
    if rows:
        seeds = max(len(row.accuracies) for row in rows)
        page += [
            comparison_table(rows)[0].rstrip(),
            f"Mean ± sample deviation over {seeds} seed{'s' if seeds != 1 else ''}; agreement is "
            f"with the teacher's decisions on test images; {_NO_VALUE} marks a method that sees "
            "inside the teacher.",
        ]
    page += notes
    if samples is not None:
        sample_grid(
            samples.images,
            samples.soft_labels,
            samples.decisions,
            folder / "samples.png",
            class_names=class_names,
        )
        page += ["## Samples", "![Samples with bar charts of their soft labels](samples.png)"]
    if curves:
        distance_curve(curves, folder / "distance_curve.png", curve_ylabel)
        page += ["## Distance against queries", "![Distance against queries](distance_curve.png)"]
    if class_distances is not None:
        class_distance_matrix(
            class_distances.distances,
            class_distances.decisions,
            folder / "class_distances.png",
            class_names=class_names,
        )
        page += [
            "## Distances between classes",
            "![Mean distance from each class to each other](class_distances.png)",
        ]
    report = folder / "report.md"
    report.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return report


def mean_and_deviation(shares: Sequence[float]) -> str:
    """Shares in [0, 1] as a percentage, with their sample deviation where there are several."""
    if not shares:
        return _NO_VALUE
    percent = [100 * share for share in shares]
    mean = f"{statistics.fmean(percent):.1f}"
    return mean if len(percent) == 1 else f"{mean} ± {statistics.stdev(percent):.1f}"


def _escape(cell: str) -> str:
    return cell.replace("|", r"\|")


def _names(class_names: Sequence[str] | None, classes: int) -> list[str]:
    if class_names is None:
        return [str(number) for number in range(classes)]
    if len(class_names) != classes:
        raise ValueError(f"class_names: expected {classes} names, got {len(class_names)}")
    return list(class_names)


def soften(axes: Axes) -> None:
    """Leaves of a plot's frame what helps to read it."""
    axes.grid(axis="y", color="#E0E0E0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_image(axes: Axes, image: NDArray) -> None:
    """Shows [1 or 3, height, width] in [0, 1]."""
    if len(image) == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(np.moveaxis(image, 0, -1).clip(0, 1))


def _draw_bars(
    axes: Axes, soft_label: NDArray, decision: int, names: list[str], limit: float
) -> None:
    colours = [_OWN if number == decision else _OTHER for number in range(len(names))]
    axes.bar(range(len(names)), soft_label, color=colours, width=0.8)
    axes.set_xticks(range(len(names)), names, fontsize=6, rotation=_rotation(names, 24))
    axes.set_ylim(0, limit)
    axes.set_yticks([0, limit], ["0", f"{limit:g}"], fontsize=6, color=_GREY)
    _lighten(axes)


def _draw_top_classes(
    axes: Axes, soft_label: NDArray, decision: int, names: list[str], limit: float
) -> None:
    top = np.argsort(-soft_label, kind="stable")[:_TOP_CLASSES]
    axes.barh(
        range(len(top)),
        soft_label[top],
        color=[_OWN if number == decision else _OTHER for number in top],
        height=0.8,
    )
    axes.set_yticks(range(len(top)), [names[number][:12] for number in top], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlim(0, limit)
    axes.set_xticks([0, limit], ["0", f"{limit:g}"], fontsize=6, color=_GREY)
    _lighten(axes)


def _rotation(names: list[str], room: int) -> int:
    """Upright where `room` characters do not hold the names side by side."""
    return 90 if max(map(len, names)) * len(names) > room else 0


def _lighten(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")
    axes.tick_params(length=0, pad=2)


def _write_numbers(axes: Axes, means: NDArray[np.float64]) -> None:
    """Dark figures on light cells, light ones on dark."""
    if not np.isfinite(means).any():
        return
    middle = (np.nanmin(means) + np.nanmax(means)) / 2
    decimals = max(0, 2 - math.floor(math.log10(np.nanmax(means) or 1)))
    size = 8 if len(means) <= 12 else 6
    for own, target in np.argwhere(np.isfinite(means)):
        value = means[own, target]
        colour = "white" if value < middle else "black"
        axes.text(
            target, own, f"{value:.{decimals}f}", ha="center", va="center", size=size, color=colour
        )


def _label_classes(axes: Axes, names: list[str]) -> None:
    if len(names) > 30:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
        return
    size = 9 if len(names) <= 12 else 7
    axes.set_xticks(range(len(names)), names, fontsize=size, rotation=_rotation(names, 60))
    axes.set_yticks(range(len(names)), names, fontsize=size)
