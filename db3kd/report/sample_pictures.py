"""Pictures of pseudo samples: by class, by number of moves, on average; and what they came to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from db3kd.data.uint8_pixels import MAX_PIXEL
from db3kd.report.tables import COLOURS, DPI, MARKERS, draw_image, soften

_COLUMNS = 12
_MOST_CLASSES = 20
_CELL = 0.62


def class_grid(
    pixels: Tensor,
    decisions: Tensor,
    classes: int,
    path: Path,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws the first images of each class, a row a class, and their mean in the last column.

    pixels: uint8 [n, 1 or 3, height, width]. decisions: int64 [n]. Of many classes the first are
    shown; a class without images has an empty row.
    """
    shown = min(classes, _MOST_CLASSES)
    figure, axes = _grid(shown, _COLUMNS + 1)
    for own in range(shown):
        members = (decisions == own).nonzero()[:, 0]
        for place, row in enumerate(members[:_COLUMNS].tolist()):
            draw_image(axes[own, place], pixels[row].numpy() / MAX_PIXEL)
        if len(members):
            draw_image(axes[own, _COLUMNS], _mean(pixels, members))
        _name(axes[own, 0], f"{_called(class_names, own)}: {len(members):,}")
    axes[0, _COLUMNS].set_title("mean", fontsize=8)
    figure.suptitle("Pseudo samples by class (number: how many)", fontsize=10)
    figure.savefig(path, dpi=DPI)


def move_grid(
    snapshots: Mapping[int, Tensor],
    decisions: Tensor,
    classes: int,
    path: Path,
    class_names: Sequence[str] | None = None,
) -> None:
    """Draws one sample of each class, a row a class, a column a number of moves.

    snapshots: uint8 [n, 1 or 3, height, width] by number of moves. decisions: int64 [n].
    """
    shown = min(classes, _MOST_CLASSES)
    counts = sorted(snapshots)
    figure, axes = _grid(shown, len(counts))
    for own in range(shown):
        members = (decisions == own).nonzero()[:, 0]
        for place, count in enumerate(counts if len(members) else []):
            draw_image(axes[own, place], snapshots[count][members[0]].numpy() / MAX_PIXEL)
        _name(axes[own, 0], _called(class_names, own))
    for place, count in enumerate(counts):
        axes[0, place].set_title(f"{count} moves", fontsize=8)
    figure.suptitle("One sample of each class", fontsize=10)
    figure.savefig(path, dpi=DPI)


def distance_by_moves(moves: Sequence[int], distances: Sequence[float], path: Path) -> None:
    """Draws the mean distance to the boundary against the number of moves."""
    figure, axes = _axes("moves", "mean distance to the nearest boundary (L2)")
    axes.plot(moves, distances, color=COLOURS[0], marker=MARKERS[0], linewidth=1.6)
    axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=DPI)


def accuracy_by_queries(
    rows: Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]], path: Path
) -> None:
    """Draws test accuracy against queries spent in all, on a logarithmic axis.

    rows: name → queries [k] and, for each, the accuracies of its seeds in [0, 1]; mean and sample
    deviation are drawn.
    """
    figure, axes = _axes("queries in all", "test accuracy %")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for number, (name, (queries, accuracies)) in enumerate(rows.items()):
        percent = [100 * np.asarray(values, float) for values in accuracies]
        axes.errorbar(
            queries,
            [values.mean() for values in percent],
            [values.std(ddof=1) if len(values) > 1 else 0.0 for values in percent],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            capsize=3,
            label=name,
        )
    axes.legend(frameon=False)
    figure.savefig(path, dpi=DPI)


def _grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(_CELL * columns + 1.0, _CELL * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.set_xticks([])
        each.set_yticks([])
        for spine in each.spines.values():
            spine.set_visible(False)
    return figure, axes


def _called(class_names: Sequence[str] | None, number: int) -> str:
    return str(number) if class_names is None else class_names[number][:12]


def _name(axes: Axes, text: str) -> None:
    axes.set_ylabel(text, fontsize=8, rotation=0, ha="right", va="center")


def _axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    soften(axes)
    return figure, axes


def _mean(pixels: Tensor, rows: Tensor) -> np.ndarray:
    """The mean image of these rows, added up a part at a time."""
    total = torch.zeros(pixels.shape[1:], dtype=torch.float64)
    for part in rows.split(4096):
        total += pixels[part].double().sum(0)
    return (total / (MAX_PIXEL * len(rows))).numpy()
