"""Figures of pseudo samples and of the students trained on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from db3kd.data.uint8_pixels import MAX_PIXEL
from db3kd.report.plot_style import (
    class_labels,
    curve_style,
    draw_image,
    plot_axes,
    save,
    use_query_axis,
)

_COLUMNS = 12
_MAX_CLASSES = 20
_CELL_INCHES = 0.62
_MAX_NAME_LENGTH = 12


def class_grid(
    pixels: Tensor,
    decisions: Tensor,
    classes: int,
    path: str | Path,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws a row for each class: its first images, and their mean in the last column.

    At most 20 classes are shown. A class without images has an empty row.

    Args:
        pixels: [N, 1 or 3, height, width] uint8.
        decisions: [N] int64, the teacher's classes.
        classes: The teacher's number of classes.
        path: The PNG file to write.
        class_names: The name of each class; the numbers of the classes by default.
    """
    names = class_labels(class_names, classes)[:_MAX_CLASSES]
    figure, axes = _image_grid(len(names), _COLUMNS + 1)
    for predicted, name in enumerate(names):
        members = (decisions == predicted).nonzero()[:, 0]
        for column, row in enumerate(members[:_COLUMNS].tolist()):
            draw_image(axes[predicted, column], pixels[row].numpy() / MAX_PIXEL)
        if len(members):
            draw_image(axes[predicted, _COLUMNS], _mean_image(pixels, members))
        _label_row(axes[predicted, 0], f"{name[:_MAX_NAME_LENGTH]}: {len(members):,}")
    axes[0, _COLUMNS].set_title("mean", fontsize=8)
    figure.suptitle("Pseudo samples by class, with their number", fontsize=10)
    save(figure, path)


def move_grid(
    snapshots: Mapping[int, Tensor],
    decisions: Tensor,
    classes: int,
    path: str | Path,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws the first sample of each class after some numbers of moves.

    There is a row for each class, at most 20, and a column for each number of moves.

    Args:
        snapshots: [N, 1 or 3, height, width] uint8 by number of moves.
        decisions: [N] int64, the teacher's classes.
        classes: The teacher's number of classes.
        path: The PNG file to write.
        class_names: The name of each class; the numbers of the classes by default.
    """
    names = class_labels(class_names, classes)[:_MAX_CLASSES]
    moves = sorted(snapshots)
    figure, axes = _image_grid(len(names), len(moves))
    for predicted, name in enumerate(names):
        members = (decisions == predicted).nonzero()[:, 0]
        for column, count in enumerate(moves if len(members) else []):
            draw_image(axes[predicted, column], snapshots[count][members[0]].numpy() / MAX_PIXEL)
        _label_row(axes[predicted, 0], name[:_MAX_NAME_LENGTH])
    for column, count in enumerate(moves):
        axes[0, column].set_title(f"{count} moves", fontsize=8)
    figure.suptitle("One sample of each class", fontsize=10)
    save(figure, path)


def distance_by_moves(moves: Sequence[int], distances: Sequence[float], path: str | Path) -> None:
    """Draws the mean distance to the boundary against the number of moves.

    Args:
        moves: k numbers of moves.
        distances: k mean distances, L2 in input units.
        path: The PNG file to write.
    """
    figure, axes = plot_axes("moves", "mean distance to the nearest boundary (L2)")
    axes.plot(moves, distances, **curve_style(0))
    axes.set_ylim(bottom=0)
    save(figure, path)


def accuracy_by_queries(
    curves: Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]], path: str | Path
) -> None:
    """Draws mean and sample standard deviation of test accuracies against the total of queries.

    Args:
        curves: By name, k totals of queries, and for each the accuracies of all seeds in [0, 1].
        path: The PNG file to write.
    """
    figure, axes = plot_axes("queries in total", "test accuracy (%)")
    use_query_axis(axes)
    for number, (name, (queries, accuracies)) in enumerate(curves.items()):
        percent = [100 * np.asarray(values, float) for values in accuracies]
        axes.errorbar(
            queries,
            [values.mean() for values in percent],
            [values.std(ddof=1) if len(values) > 1 else 0.0 for values in percent],
            capsize=3,
            label=name,
            **curve_style(number),
        )
    axes.legend(frameon=False)
    save(figure, path)


def _image_grid(rows: int, columns: int) -> tuple[Figure, NDArray[np.object_]]:
    size = (_CELL_INCHES * columns + 1.0, _CELL_INCHES * rows + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for cell in axes.flat:
        cell.set_xticks([])
        cell.set_yticks([])
        for spine in cell.spines.values():
            spine.set_visible(False)
    return figure, axes


def _label_row(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, fontsize=8, rotation=0, ha="right", va="center")


def _mean_image(pixels: Tensor, rows: Tensor) -> NDArray[np.float64]:
    """Returns the mean of some images, in [0, 1]; memory holds only some of them as floats."""
    total = torch.zeros(pixels.shape[1:], dtype=torch.float64)
    for part in rows.split(4096):
        total += pixels[part].double().sum(0)
    return (total / (MAX_PIXEL * len(rows))).numpy()
