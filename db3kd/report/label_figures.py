"""Figures of labelled samples: their nearest classes, and distances against queries."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from db3kd.errors import ArgumentError
from db3kd.report.plot_style import (
    COLOURS,
    class_labels,
    curve_style,
    draw_image,
    make_figure,
    plot_axes,
    save,
    use_query_axis,
)
from db3kd.report.thumbnails import channels_note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PREDICTED, _OTHER = COLOURS[1], COLOURS[0]
_GREY = "#767676"
_SHOWN_CLASSES = 5


def sample_grid(
    images: ArrayLike,
    distances: ArrayLike,
    decisions: ArrayLike,
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    columns: int = 6,
) -> None:
    """Draws samples with their class, and the distances to their five nearest classes as bars.

    Args:
        images: [N, channels, height, width], values in [0, 1].
        distances: [N, C], as for `nearest_classes`.
        decisions: [N] integers, the teacher's classes.
        path: The PNG file to write.
        class_names: C names; the numbers of the classes by default.
        columns: Maximum number of samples side by side.

    Raises:
        ValueError: If the shapes or the number of names do not fit together.
    """
    images, distances = np.asarray(images), np.asarray(distances)
    decisions = np.asarray(decisions)
    if images.ndim != 4 or not images.size:
        raise ArgumentError(
            "images",
            f"expected the shape [N, channels, height, width] with N > 0, got {list(images.shape)}",
        )
    if distances.ndim != 2 or not len(images) == len(distances) == len(decisions):
        raise ArgumentError(
            "distances, decisions",
            f"expected the shapes [{len(images)}, C] and [{len(images)}], "
            f"got {list(distances.shape)} and {list(decisions.shape)}",
        )
    names = class_labels(class_names, distances.shape[1])
    nearest = [
        nearest_classes(each, int(decision))
        for each, decision in zip(distances, decisions, strict=True)
    ]
    limit = max((distance for each in nearest for _, distance in each), default=0.0)
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    figure = make_figure((1.75 * columns, 2.55 * rows + 0.35))
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1.5, 1] * rows)
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        picture, bars = grid[2 * row, column], grid[2 * row + 1, column]
        picture.axis("off")
        if place >= len(images):
            bars.axis("off")
            continue
        draw_image(picture, images[place])
        picture.set_title(names[int(decisions[place])], fontsize=9, color=_PREDICTED, pad=3)
        _draw_bars(bars, nearest[place], names, limit)
    title = "Samples (the teacher's class in orange) and the distances to their nearest classes"
    if note := channels_note(images.shape[1]):
        title += f"\n{note}"
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def nearest_classes(distances: ArrayLike, decision: int) -> list[tuple[int, float]]:
    """Returns the five nearest classes of a sample and the distances to them, nearest first.

    Args:
        distances: [C], +inf if a class was not measured or not reached. The entry of the predicted
            class is not read.
        decision: The predicted class.
    """
    others = [
        (number, float(distance))
        for number, distance in enumerate(np.asarray(distances))
        if number != decision and math.isfinite(distance)
    ]
    return sorted(others, key=lambda each: each[1])[:_SHOWN_CLASSES]


def distance_curve(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: str | Path,
    ylabel: str = "mean distance (L2)",
) -> None:
    """Draws distances against queries, with a line for each method.

    Args:
        curves: Queries [k] and distances [k] by name. Points with a value that is not finite and
            points without queries are left out.
        path: The PNG file to write.
        ylabel: What the distances are, for example a ratio to an optimum.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = plot_axes("queries per pair of sample and class", ylabel)
    use_query_axis(axes)
    for number, (name, points) in enumerate(curves.items()):
        queries, distances = (np.asarray(values, float) for values in points)
        shown = np.isfinite(distances) & np.isfinite(queries) & (queries > 0)
        axes.plot(queries[shown], distances[shown], label=name, **curve_style(number))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    if curves:
        axes.legend(frameon=False)
    save(figure, path)


def _draw_bars(
    axes: "Axes", nearest: Sequence[tuple[int, float]], names: Sequence[str], limit: float
) -> None:
    if not nearest:
        axes.axis("off")
        axes.text(0.5, 0.5, "no class reached", fontsize=6, color=_GREY, ha="center")
        return
    places = range(len(nearest))
    axes.barh(places, [distance for _, distance in nearest], color=_OTHER, height=0.8)
    axes.set_yticks(places, [names[number][:12] for number, _ in nearest], fontsize=6)
    axes.set_ylim(_SHOWN_CLASSES - 0.5, -0.5)
    for place, (_, distance) in zip(places, nearest, strict=True):
        axes.text(distance, place, f" {distance:.3g}", fontsize=6, color=_GREY, va="center")
    axes.set_xlim(0, 1.4 * (limit or 1))  # the longest bar leaves room for its number
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color("#BBBBBB")
    axes.tick_params(length=0, pad=2)
