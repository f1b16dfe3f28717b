"""The style that all figures share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito, which colour-blind readers can distinguish, without the palest."""

MARKERS = "os^Dv<P"
"""A marker for each colour."""

_DPI = 150


def plot_axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """Returns a figure with one plot that has light grid lines and no frame."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", color="#E0E0E0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def use_query_axis(axes: Axes) -> None:
    """Makes the x axis logarithmic, with numbers of queries such as 10,000."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def draw_image(axes: Axes, image: NDArray[np.floating]) -> None:
    """Draws an image [1 or 3, height, width] with values in [0, 1]."""
    if len(image) == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(np.moveaxis(image, 0, -1).clip(0, 1))


def save(figure: Figure, path: str | Path) -> None:
    """Writes a figure as PNG."""
    figure.savefig(path, dpi=_DPI)


def class_labels(class_names: Sequence[str] | None, classes: int) -> list[str]:
    """Returns the names of the classes, or their numbers if they have no names.

    Raises:
        ValueError: If the number of names is not the number of classes.
    """
    if class_names is None:
        return [str(number) for number in range(classes)]
    if len(class_names) != classes:
        raise ValueError(f"class_names: expected {classes} names, got {len(class_names)}")
    return list(class_names)


def rotation(names: Sequence[str], max_characters: int) -> int:
    """Returns the rotation of names on an x axis: 90 degrees if they do not fit side by side."""
    return 90 if max(map(len, names)) * len(names) > max_characters else 0
