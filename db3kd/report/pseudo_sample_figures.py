"""Figures of pseudo samples and of the students trained on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from db3kd.data.uint8_pixels import MAX_PIXEL
from db3kd.report.plot_style import (
    class_labels,
    curve_style,
    make_figure,
    plot_axes,
    save,
    use_query_axis,
)
from db3kd.wording import counted

_COLUMNS = 12
_MAX_CLASSES = 20
_CELL_INCHES = 0.62
_GAP = 0.1
"""The space between images, as a share of their longer side."""
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
    grid = _ImageGrid(len(names), _COLUMNS + 1, pixels.shape[1:])
    for predicted, name in enumerate(names):
        members = (decisions == predicted).nonzero()[:, 0]
        for column, row in enumerate(members[:_COLUMNS].tolist()):
            grid.put(predicted, column, pixels[row].numpy())
        if len(members):
            mean = _mean_image(pixels, members) * MAX_PIXEL
            grid.put(predicted, _COLUMNS, mean.round().astype(np.uint8))
        names[predicted] = f"{name[:_MAX_NAME_LENGTH]}: {len(members):,}"
    grid.draw("Pseudo samples by class, with their number", names, {_COLUMNS: "mean"}, path)


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
    grid = _ImageGrid(len(names), len(moves), snapshots[moves[0]].shape[1:])
    for predicted in range(len(names)):
        members = (decisions == predicted).nonzero()[:, 0]
        for column, count in enumerate(moves if len(members) else []):
            grid.put(predicted, column, snapshots[count][members[0]].numpy())
    rows = [name[:_MAX_NAME_LENGTH] for name in names]
    columns = {column: counted(count, "move") for column, count in enumerate(moves)}
    grid.draw("One sample of each class", rows, columns, path)


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


class _ImageGrid:
    """Rows of images, drawn as one picture: an axes for each of them takes many times as long."""

    def __init__(self, rows: int, columns: int, shape: Sequence[int]) -> None:
        channels, *size = shape
        gap = max(1, round(_GAP * max(size)))
        self._rows, self._columns, self._size = rows, columns, size
        self._step = size[0] + gap, size[1] + gap
        height, width = (
            count * step for count, step in zip((rows, columns), self._step, strict=True)
        )
        self._picture = np.full((height, width, channels), MAX_PIXEL, np.uint8)

    def put(self, row: int, column: int, image: NDArray[np.uint8]) -> None:
        """Puts an image [1 or 3, height, width] into a cell, which is white otherwise."""
        top, left = row * self._step[0], column * self._step[1]
        height, width = self._size
        self._picture[top : top + height, left : left + width] = np.moveaxis(image, 0, -1)

    def draw(
        self, title: str, rows: Sequence[str], columns: Mapping[int, str], path: str | Path
    ) -> None:
        """Writes the picture, with a name for each row and for some columns."""
        size = (_CELL_INCHES * self._columns + 1.0, _CELL_INCHES * self._rows + 0.7)
        figure = make_figure(size)
        axes = figure.subplots()
        # Colours are drawn as they are; the range and the colour map are for one channel.
        axes.imshow(self._picture.squeeze(), cmap="gray", vmin=0, vmax=MAX_PIXEL)
        centers = [(size - 1) / 2 for size in self._size]
        axes.set_yticks([centers[0] + row * self._step[0] for row in range(len(rows))], rows)
        axes.set_xticks(
            [centers[1] + column * self._step[1] for column in columns], columns.values()
        )
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
        figure.suptitle(title, fontsize=10)
        save(figure, path)


def _mean_image(pixels: Tensor, rows: Tensor) -> NDArray[np.float64]:
    """Returns the mean of some images, in [0, 1]; memory holds only some of them as floats."""
    total = torch.zeros(pixels.shape[1:], dtype=torch.float64)
    for part in rows.split(4096):
        total += pixels[part].double().sum(0)
    return (total / (MAX_PIXEL * len(rows))).numpy()
