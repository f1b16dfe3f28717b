"""The style that all figures share."""

import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from db3kd.errors import ArgumentError
from db3kd.report.thumbnails import as_grey_or_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The colours of Okabe and Ito, which colour-blind readers can distinguish, without the palest."""

MARKERS = "os^Dv<P"
"""A marker for each colour."""

LINES = ("-", "--", ":", "-.")
"""A line style for each group of curves."""

_DPI = 150
_FONT_SIZE = 11
_GRID = "#E0E0E0"
_INK = "#000000"
_SVG_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def make_figure(size: tuple[float, float]) -> "Figure":
    """Returns an empty figure; its size in inches."""
    # Importing matplotlib takes longer than most of db3kd, and most programs draw nothing.
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def plot_axes(
    xlabel: str, ylabel: str, size: tuple[float, float] = (6.4, 4.2)
) -> "tuple[Figure, Axes]":
    """Returns a figure with one plot that has light grid lines and no frame; its size in inches."""
    figure = make_figure(size)
    axes = figure.subplots()
    axes.set_xlabel(xlabel, fontsize=_FONT_SIZE)
    axes.set_ylabel(ylabel, fontsize=_FONT_SIZE)
    axes.tick_params(labelsize=_FONT_SIZE)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def curve_style(number: int, group: int | None = None) -> dict[str, Any]:
    """Returns the arguments of `Axes.plot` for a curve.

    Args:
        number: The number of the curve, which gives its colour and its marker.
        group: The number of its group, which gives the line style; by default it changes when
            the colours are used up.
    """
    if group is None:
        group = number // len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[group % len(LINES)],
        "linewidth": 1.8,
        "markersize": 5,
    }


def use_query_axis(axes: "Axes") -> None:
    """Makes the x axis logarithmic, with numbers of queries such as 10,000."""
    from matplotlib.ticker import FuncFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def draw_image(axes: "Axes", image: NDArray[np.floating]) -> None:
    """Draws an image [channels, height, width] with values in [0, 1]; see `as_grey_or_colour`."""
    image = as_grey_or_colour(image)
    if len(image) == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(np.moveaxis(image, 0, -1).clip(0, 1))


def save(figure: "Figure", path: str | Path) -> None:
    """Writes a figure as PNG."""
    figure.savefig(path, dpi=_DPI)


def inline_svg(figure: "Figure", label: str) -> str:
    """Returns a figure of black ink as an SVG element for a page of HTML.

    Its text is text in the font of the page. Ink and grid have the colours of the page
    (`currentColor` and `--grid`), so that it suits a dark page too. Equal figures give equal bytes.
    The label says what the figure shows, for readers who do not see it.
    """
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Names such as axes_1 repeat in a second figure; nothing refers to them.
    svg = re.sub(r' id="[a-zA-Z0-9]+_\d+"', "", svg)
    for colour, variable in ((_INK, "currentColor"), (_GRID, f"var(--grid, {_GRID})")):
        svg = re.sub(colour, variable, svg, flags=re.IGNORECASE)
    attributes = f'role="img" aria-label="{escape(label)}" fill="currentColor"'
    view = re.search(r'viewBox="[^"]+"', svg)
    assert view is not None  # matplotlib writes one
    return f"<svg {attributes} {view[0]} {_SVG_NAMESPACES}>{svg.split('>', 1)[1]}".strip()


def class_labels(class_names: Sequence[str] | None, classes: int) -> list[str]:
    """Returns the names of the classes, or their numbers if they have no names.

    Raises:
        ValueError: If the number of names is not the number of classes.
    """
    if class_names is None:
        return [str(number) for number in range(classes)]
    if len(class_names) != classes:
        raise ArgumentError("class_names", f"expected {classes} names, got {len(class_names)}")
    return list(class_names)
