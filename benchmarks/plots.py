"""Curves of a result as PNG, which keep the checksum of what was drawn."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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


def draw(plot: Plot, folder: Path) -> None:
    """Writes the plot into the folder."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for name, points in plot.curves.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=3, label=name)
    axes.set_xscale("log")
    if plot.log:
        axes.set_yscale("log")
    if plot.level is not None:
        axes.axhline(plot.level, color="grey", linewidth=0.8, linestyle="--")
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    metadata = {"Software": None, "Description": plot.digest()}
    figure.savefig(folder / plot.file, dpi=100, metadata=metadata)
