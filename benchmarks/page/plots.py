"""Curves of a result as PNG, which keep the checksum of what was drawn."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.common.formatting import number as cell
from db3kd.report.tables import COLOURS, MARKERS

_MARKERS_A_CURVE = 8
_FEW_POWERS = 300
"""Below this ratio of its ends an axis has numbers between powers of ten."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """Curves to draw.

    Attributes:
        name: of the file, without its ending.
        title, x, y: what the plot and its axes show.
        curves: points by the name of the curve.
        log: whether both axes are logarithmic; otherwise the first one is.
        level: a height to mark with a line, such as a ratio of 1.
    """

    name: str
    title: str
    x: str
    y: str
    curves: Mapping[str, Points]
    log: bool = False
    level: float | None = None

    @property
    def file(self) -> str:
        return f"{self.name}.png"

    def digest(self) -> str:
        """Of all that is drawn; the PNG holds it as its description."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


def _style(number: int, points: int) -> dict[str, Any]:
    """What tells a curve from the others: dashed where the colours begin again."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": "-" if number < len(COLOURS) else "--",
        "linewidth": 1.2,
        "markersize": 4,
        "markevery": max(1, points // _MARKERS_A_CURVE),
    }


def _label_ticks(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis, between powers of ten too where it has few of those."""
    low, high = axis.get_view_interval()
    steps = (1, 2, 5) if high < _FEW_POWERS * low else (1,)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: cell(float(value))))
    axis.set_minor_formatter(NullFormatter())


def draw(plot: Plot, folder: Path) -> None:
    """Writes the plot into the folder."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(plot.curves.items()):
        axes.plot(*zip(*sorted(points), strict=True), label=name, **_style(number, len(points)))
    axes.set_xscale("log")
    if plot.log:
        axes.set_yscale("log")
    if plot.level is not None:
        axes.axhline(plot.level, color="grey", linewidth=0.8, linestyle=":")
    for axis in (axes.xaxis, axes.yaxis) if plot.log else (axes.xaxis,):
        _label_ticks(axis)
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    if len(plot.curves) > 1:
        figure.legend(fontsize="small", loc="outside right upper")
    axes.grid(alpha=0.3)
    metadata = {"Software": None, "Description": plot.digest()}
    figure.savefig(folder / plot.file, dpi=100, metadata=metadata)
