"""The curves of a result as PNG files that hold the checksum of what they show."""

import hashlib
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.common.formatting import number
from benchmarks.page.tables import Result

_COLOURS = matplotlib.color_sequences["petroff6"]
_STYLES = cycler(linestyle=["-", "--"]) * (cycler(color=_COLOURS) + cycler(marker=list("os^Dv<")))
_MARKERS_PER_CURVE = 8

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """Curves over a logarithmic x axis.

    Attributes:
        name: The name of the file, without ".png".
        title: What the plot shows.
        x: The label of the x axis.
        y: The label of the y axis.
        curves: Points by the name of the curve.
        log: Whether the y axis is logarithmic too.
        level: A height to mark with a line, such as a ratio of 1.
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
        """The name of the file."""
        return f"{self.name}.png"

    def digest(self) -> str:
        """The checksum of everything that the plot shows; the PNG holds it as its description."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


def draw(plot: Plot, folder: Path) -> None:
    """Writes a plot as a PNG file.

    Args:
        plot: The plot.
        folder: The folder of the file.
    """
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(_STYLES)
    for name, points in plot.curves.items():
        every = max(1, len(points) // _MARKERS_PER_CURVE)
        axes.plot(*zip(*sorted(points), strict=True), label=name, markersize=4, markevery=every)
    axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y, xscale="log")
    if plot.log:
        axes.set_yscale("log")
    if plot.level is not None:
        axes.axhline(plot.level, color="grey", linewidth=0.8, linestyle=":")
    for axis in (axes.xaxis, axes.yaxis) if plot.log else (axes.xaxis,):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(float(value))))
        axis.set_minor_formatter(NullFormatter())
    if len(plot.curves) > 1:
        figure.legend(fontsize="small", loc="outside right upper")
    axes.grid(alpha=0.3)
    metadata = {"Software": None, "Description": plot.digest()}
    figure.savefig(folder / plot.file, dpi=100, metadata=metadata)


def plots(kind: str, result: Result, name: str) -> list[Plot]:
    """The plots of a result.

    Args:
        kind: The kind of the result, such as "peers".
        result: What its file holds.
        name: The name of its file, without ".json".
    """
    makers = {"ops": _ops, "distances": _distances, "peers": _peers, "growth": _growth,
              "targets": _targets}  # fmt: skip
    return makers[kind](result, name) if kind in makers else []


def _ops(result: Result, name: str) -> list[Plot]:
    """How many times as fast as eager PyTorch each op is by size, for most rows."""
    places: dict[str, dict[str, dict[int, tuple[int, float]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in result["rows"]:
        curve = places[row["place"]][row["op"]]
        if row["way"] == "native" and "times_eager" in row:
            most = max(curve.get(row["size"], (0, 0.0)), (row["rows"], row["times_eager"]))
            curve[row["size"]] = most
    return [
        Plot(
            f"{name}-{number_of_place}",
            f"Times as fast as eager PyTorch: {place}",
            "size of a row",
            "times",
            {
                op: [(size, ratio) for size, (_, ratio) in by_size.items()]
                for op, by_size in ops.items()
                if len(by_size) > 1
            },
            log=True,
            level=1.0,
        )
        for number_of_place, (place, ops) in enumerate(places.items())
        if any(len(by_size) > 1 for by_size in ops.values())
    ]


def _distances(result: Result, name: str) -> list[Plot]:
    curves = {
        search: [(float(count), ratio) for count, ratio in curve.items()]
        for search, curve in result["distance_over_optimum"].items()
    }
    title, x, y = "Distance for queries", "queries a pair", "distance / optimum"
    return [Plot(name, title, x, y, curves, level=1.0)]


def _peers(result: Result, name: str) -> list[Plot]:
    """The mean ratio by queries and by seconds; points that cost nothing are left out."""
    return [
        Plot(
            f"{name}-{unit}",
            f"Distance for {unit}",
            x,
            "mean distance / optimum",
            {
                attack: [
                    point for point in zip(curve[unit], curve["mean"], strict=True) if point[0]
                ]
                for attack, curve in result["curves"].items()
            },
            log=True,
            level=1.0,
        )
        for unit, x in (("queries", "queries a pair"), ("seconds", "seconds, all pairs"))
    ]


def _growth(result: Result, name: str) -> list[Plot]:
    """Time and memory of all series in one plot each: a steeper line is a greater exponent."""
    sizes = [series for series in result["series"] if series["varied"] in SIZES]
    if not sizes:
        return []
    x = ", ".join(dict.fromkeys(series["varied"] for series in sizes))

    def curves(cost: str) -> dict[str, Points]:
        return {
            series["name"]: [(point[series["varied"]], point[cost]) for point in series["points"]]
            for series in sizes
        }

    return [
        Plot(f"{name}-seconds", "How time grows", x, "seconds", curves("seconds"), log=True),
        Plot(f"{name}-peak-mib", "How memory grows", x, "peak MiB", curves("peak_mib")),
    ]


SIZES = ("samples", "classes", "pixels")
"""What cost grows with by an exponent. Batch sizes and threads only change how work is done."""


def _targets(result: Result, name: str) -> list[Plot]:
    """The first student learns from decisions, the last from logits, the others from labels."""
    queries = [labels["queries_per_sample"] for labels in result["labels"]]
    ranks = [labels["rank_correlation"] for labels in result["labels"]]
    decisions, *students, logits = [
        100 * statistics.fmean(row["accuracies"]) for row in result["rows"]
    ]
    x = "queries a sample"
    taught: dict[str, Any] = {
        "labels": list(zip(queries, students, strict=True)),
        "decisions alone": [(result["rows"][0]["queries_per_sample"], decisions)],
    }
    rank = {"labels": list(zip(queries, ranks, strict=True))}
    return [
        Plot(f"{name}-rank", "Rank correlation with the logits", x, "rank correlation", rank),
        Plot(f"{name}-students", "Students (line: taught by logits)", x, "mean accuracy %", taught,
             level=logits),
    ]  # fmt: skip
