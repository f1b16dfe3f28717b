"""Figures of labelled samples: their soft labels, and distances against queries."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from db3kd.errors import ArgumentError
from db3kd.report.plot_style import (
    COLOURS,
    class_labels,
    curve_style,
    draw_image,
    make_figure,
    plot_axes,
    rotation,
    save,
    use_query_axis,
)
from db3kd.report.thumbnails import channels_note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PREDICTED, _OTHER = COLOURS[1], COLOURS[0]
_GREY = "#767676"
_MAX_BARS = 12
_TOP_CLASSES = 5


def sample_grid(
    images: ArrayLike,
    soft_labels: ArrayLike,
    decisions: ArrayLike,
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    columns: int = 6,
) -> None:
    """Draws samples with bar charts of their soft labels, and highlights the predicted class.

    With more than 12 classes, only the five greatest probabilities are shown, with their names.

    Args:
        images: [N, channels, height, width], values in [0, 1].
        soft_labels: [N, C], rows sum to 1.
        decisions: [N] integers, the teacher's classes.
        path: The PNG file to write.
        class_names: C names; the numbers of the classes by default.
        columns: Maximum number of samples side by side.

    Raises:
        ValueError: If the shapes or the number of names do not fit together.
    """
    images, soft_labels = np.asarray(images), np.asarray(soft_labels)
    decisions = np.asarray(decisions)
    if images.ndim != 4 or not images.size:
        raise ArgumentError(
            "images",
            f"expected the shape [N, channels, height, width] with N > 0, got {list(images.shape)}",
        )
    if soft_labels.ndim != 2 or not len(images) == len(soft_labels) == len(decisions):
        raise ArgumentError(
            "soft_labels, decisions",
            f"expected the shapes [{len(images)}, C] and [{len(images)}], "
            f"got {list(soft_labels.shape)} and {list(decisions.shape)}",
        )
    names = class_labels(class_names, soft_labels.shape[1])
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    figure = make_figure((1.75 * columns, 2.55 * rows + 0.35))
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
        picture.set_title(names[decision], fontsize=9, color=_PREDICTED, pad=3)
        draw = _draw_bars if len(names) <= _MAX_BARS else _draw_top_classes
        draw(bars, soft_labels[place], decision, names, limit)
    title = "Samples and their soft labels (the teacher's class in orange)"
    if note := channels_note(images.shape[1]):
        title += f"\n{note}"
    figure.suptitle(title, fontsize=10)
    save(figure, path)


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
    axes: "Axes", soft_label: NDArray[np.floating], decision: int, names: list[str], limit: float
) -> None:
    colours = [_PREDICTED if number == decision else _OTHER for number in range(len(names))]
    axes.bar(range(len(names)), soft_label, color=colours, width=0.8)
    axes.set_xticks(range(len(names)), names, fontsize=6, rotation=rotation(names, 24))
    axes.set_ylim(0, limit)
    axes.set_yticks([0, limit], ["0", f"{limit:g}"], fontsize=6, color=_GREY)
    _lighten(axes)


def _draw_top_classes(
    axes: "Axes", soft_label: NDArray[np.floating], decision: int, names: list[str], limit: float
) -> None:
    top = np.argsort(-soft_label, kind="stable")[:_TOP_CLASSES]
    axes.barh(
        range(len(top)),
        soft_label[top],
        color=[_PREDICTED if number == decision else _OTHER for number in top],
        height=0.8,
    )
    axes.set_yticks(range(len(top)), [names[number][:12] for number in top], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlim(0, limit)
    axes.set_xticks([0, limit], ["0", f"{limit:g}"], fontsize=6, color=_GREY)
    _lighten(axes)


def _lighten(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")
    axes.tick_params(length=0, pad=2)
