"""Mean distances between classes: as numbers and as a heat map."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from db3kd.errors import ArgumentError
from db3kd.report.plot_style import class_labels, make_figure, save
from db3kd.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_NUMBERED_CLASSES = 20
"""With more classes, the cells of the heat map have no numbers."""

_MAX_NAMED_CLASSES = 30
"""With more classes, only some of the numbers of the classes are shown."""


def mean_class_distances(
    distances: ArrayLike, decisions: ArrayLike, searched: ArrayLike | None = None
) -> tuple[NDArray[np.float64], int, int]:
    """Returns the mean distance from the samples of each class to each other class.

    Args:
        distances: [N, C], +inf if a class was not reached. The column of the predicted class is not
            read.
        decisions: [N] integers, the predicted class of each sample; -1 if it is undecided.
        searched: [N, C] bool, the distances that were searched; all by default.

    Returns:
        The means [C, C], with a row for each class of samples, NaN on the diagonal and if no sample
        of the row reached the class; the number of searched pairs of a decided sample and another
        class that were not reached; and the number of such pairs.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    distances, decisions = np.asarray(distances).astype(float), np.asarray(decisions)
    if distances.ndim != 2 or decisions.shape != distances.shape[:1]:
        raise ArgumentError(
            "distances, decisions",
            f"expected the shapes [N, C] and [N], got "
            f"{list(distances.shape)} and {list(decisions.shape)}",
        )
    samples, classes = distances.shape
    pairs = np.ones((samples, classes)) if searched is None else np.asarray(searched)
    pairs = pairs.astype(bool)
    if pairs.shape != distances.shape:
        raise ArgumentError(
            "searched", f"expected the shape {list(distances.shape)}, got {list(pairs.shape)}"
        )
    pairs &= (decisions >= 0)[:, None] & (decisions[:, None] != np.arange(classes))
    reached = pairs & np.isfinite(distances)
    means = np.full((classes, classes), np.nan)
    for predicted in range(classes):
        rows = decisions == predicted
        counts = reached[rows].sum(0)
        sums = np.where(reached[rows], distances[rows], 0).sum(0)
        np.divide(sums, counts, out=means[predicted], where=counts > 0)
    return means, int((pairs & ~reached).sum()), int(pairs.sum())


def class_distance_matrix(
    distances: ArrayLike,
    decisions: ArrayLike,
    path: str | Path,
    *,
    searched: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws the mean distances between classes as a heat map, with numbers if they fit.

    The diagonal is blank. A cell is grey if no sample of its row reached the class. The title
    states how many of the searched pairs of a sample and another class were not reached.

    Args:
        distances: [N, C], as for `mean_class_distances`.
        decisions: [N] integers, as for `mean_class_distances`.
        path: The PNG file to write.
        searched: [N, C] bool, as for `mean_class_distances`.
        class_names: C names; the numbers of the classes by default.

    Raises:
        ValueError: If the shapes or the number of names do not fit together.
    """
    means, unreached, pairs = mean_class_distances(distances, decisions, searched)
    classes = len(means)
    names = class_labels(class_names, classes)
    side = min(9.0, 3.2 + 0.42 * classes)
    from matplotlib.patches import Rectangle

    figure = make_figure((side + 1.0, side))
    axes = figure.subplots()
    axes.set_facecolor("#D9D9D9")
    heat = axes.imshow(means, cmap="cividis", interpolation="nearest")
    for predicted in range(classes):
        cell = (predicted - 0.5, predicted - 0.5)
        axes.add_patch(Rectangle(cell, 1, 1, facecolor="white", edgecolor="none"))
    if classes <= _MAX_NUMBERED_CLASSES:
        _write_numbers(axes, means)
    _label_classes(axes, names)
    axes.set_xlabel("nearest boundary to class")
    axes.set_ylabel("samples of class")
    subtitle = f"{unreached:,} of {counted(pairs, 'pair')} not reached"
    if np.isnan(means[~np.eye(classes, dtype=bool)]).any():
        subtitle += " (grey: no pair reached)"
    axes.set_title(f"Mean distance between classes\n{subtitle}", fontsize=10)
    if np.isfinite(means).any():
        figure.colorbar(heat, label="mean distance (L2)", shrink=0.8)
    save(figure, path)


def _write_numbers(axes: "Axes", means: NDArray[np.float64]) -> None:
    """Writes the means into the cells, in black on light cells and in white on dark ones."""
    if not np.isfinite(means).any():
        return
    middle = (np.nanmin(means) + np.nanmax(means)) / 2
    decimals = max(0, 2 - math.floor(math.log10(np.nanmax(means) or 1)))
    size = 8 if len(means) <= 12 else 6
    for predicted, target in np.argwhere(np.isfinite(means)):
        value = means[predicted, target]
        axes.text(
            target,
            predicted,
            f"{value:.{decimals}f}",
            ha="center",
            va="center",
            size=size,
            color="white" if value < middle else "black",
        )


def _label_classes(axes: "Axes", names: list[str]) -> None:
    if len(names) > _MAX_NAMED_CLASSES:
        from matplotlib.ticker import MaxNLocator

        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(10, integer=True))
        return
    size = 9 if len(names) <= 12 else 7
    side_by_side = max(map(len, names)) * len(names) <= 60
    axes.set_xticks(range(len(names)), names, fontsize=size, rotation=0 if side_by_side else 90)
    axes.set_yticks(range(len(names)), names, fontsize=size)
