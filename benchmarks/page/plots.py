"""The curves of a result as PNG files that hold the checksum of what they show."""

import hashlib
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.page.tables import Result
from db3kd.report.plot_style import COLOURS, curve_style, plot_axes

_MARKERS_PER_CURVE = 8
_GREY = "#595959"
_DPI = 125

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
        levels: Heights to mark with a line, by name.
    """

    name: str
    title: str
    x: str
    y: str
    curves: Mapping[str, Points]
    log: bool = False
    levels: Mapping[str, float] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"{self.name}.png"

    def digest(self) -> str:
        """The checksum of everything that the plot shows; the PNG holds it as its description."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


def draw(plot: Plot, folder: Path) -> None:
    """Writes a plot as a PNG file into a folder."""
    columns = 2 if max(map(len, plot.curves)) > 22 else 3
    legend_rows = -(-len(plot.curves) // columns) if len(plot.curves) > 1 else 0
    figure, axes = plot_axes(plot.x, plot.y, size=(7.2, 4.2 + 0.26 * legend_rows))
    axes.set_title(plot.title, loc="left")
    axes.set_xscale("log")
    if plot.log:
        axes.set_yscale("log")
    for (name, points), style in zip(plot.curves.items(), _styles(plot.curves), strict=True):
        every = max(1, len(points) // _MARKERS_PER_CURVE)
        axes.plot(*zip(*sorted(points), strict=True), label=name, markevery=every, **style)
    _draw_levels(axes, plot)
    for axis in (axes.xaxis, axes.yaxis) if plot.log else (axes.xaxis,):
        low, high = axis.get_view_interval()
        narrow = (1, 1.5, 2, 3, 5) if high < 10 * low else (1, 2, 5)
        axis.set_major_locator(LogLocator(subs=narrow if high < 300 * low else (1,)))
        axis.set_major_formatter(FuncFormatter(_tick))
        axis.set_minor_formatter(NullFormatter())
    if legend_rows:
        figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    metadata = {"Software": None, "Description": plot.digest()}
    figure.savefig(folder / plot.file, dpi=_DPI, metadata=metadata)


def _styles(names: Iterable[str]) -> list[dict[str, Any]]:
    """A colour for each curve; if there are too few, a line style for each first word of a name."""
    names = list(names)
    if len(names) <= len(COLOURS):
        return [curve_style(number) for number in range(len(names))]
    families: dict[str, int] = {}
    members: Counter[str] = Counter()
    styles = []
    for name in names:
        family = name.split()[0]
        group = families.setdefault(family, len(families))
        styles.append(curve_style(members[family], group))
        members[family] += 1
    return styles


def _draw_levels(axes: Axes, plot: Plot) -> None:
    """Draws a line for each level; its name is on the side where no curve is."""
    axes.margins(y=0.1)
    lowest = min(height for points in plot.curves.values() for _, height in points)
    for name, level in plot.levels.items():
        below = level <= lowest
        if below:
            low, high = axes.get_ylim()
            low = min(
                low, level * (level / high) ** 0.1 if plot.log else level - 0.1 * (high - level)
            )
            axes.set_ylim(low, high)
        axes.axhline(level, color=_GREY, linewidth=1.2, linestyle=(0, (1, 1.5)))
        axes.annotate(
            name,
            (1, level),
            (-4, -3 if below else 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="top" if below else "bottom",
            color=_GREY,
        )


def _tick(value: float, position: int) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def plots(kind: str, result: Result, name: str) -> list[Plot]:
    """Returns the plots of the result file `name`, whose kind is, for example, "peers"."""
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
            "numbers in a row",
            "times as fast",
            {
                op: [(size, ratio) for size, (_, ratio) in by_size.items()]
                for op, by_size in ops.items()
                if len(by_size) > 1
            },
            log=True,
            levels={"eager PyTorch": 1.0},
        )
        for number_of_place, (place, ops) in enumerate(places.items())
        if any(len(by_size) > 1 for by_size in ops.values())
    ]


def _distances(result: Result, name: str) -> list[Plot]:
    curves = {
        search: [(float(count), ratio) for count, ratio in curve.items()]
        for search, curve in result["distance_over_optimum"].items()
    }
    title, x, y = "Distance for queries", "queries per pair", "mean distance / optimum"
    return [Plot(name, title, x, y, curves, levels={"white-box optimum": 1.0})]


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
            levels={"white-box optimum": 1.0},
        )
        for unit, x in (("queries", "queries per pair"), ("seconds", "time for all pairs (s)"))
    ]


def _growth(result: Result, name: str) -> list[Plot]:
    """Time and memory of all series in one plot each: a steeper line is a greater exponent."""
    sizes = [series for series in result["series"] if series["varied"] in SIZES]
    if not sizes:
        return []
    x = "number of " + ", ".join(dict.fromkeys(series["varied"] for series in sizes))

    def curves(cost: str) -> dict[str, Points]:
        return {
            series["name"]: [(point[series["varied"]], point[cost]) for point in series["points"]]
            for series in sizes
        }

    return [
        Plot(f"{name}-seconds", "How time grows", x, "time (s)", curves("seconds"), log=True),
        Plot(f"{name}-peak-mib", "How memory grows", x, "peak memory (MiB)", curves("peak_mib")),
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
    labels = {"labels": list(zip(queries, students, strict=True))}
    rank = {"labels": list(zip(queries, ranks, strict=True))}
    levels = {"taught by logits": logits, "taught by decisions alone": decisions}
    return [
        Plot(f"{name}-rank", "Rank correlation with the logits", x, "rank correlation", rank),
        Plot(f"{name}-students", "Students taught by labels", x, "mean test accuracy (%)", labels,
             levels=levels),
    ]  # fmt: skip
