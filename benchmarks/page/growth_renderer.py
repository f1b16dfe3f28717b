"""What a result of benchmarks.systems.growth looks like on the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common.formatting import duration, number, percent, table
from benchmarks.page.plots import Plot
from benchmarks.page.renderers import Block, Result

Series = Mapping[str, Any]

_SIZES = ("samples", "classes", "pixels")
"""What cost grows with by an exponent; more rows or threads are another way to do the same."""

_COSTS = {
    "seconds": "time",
    "own_seconds": "time without the teacher",
    "queries": "queries",
    "peak_mib": "peak MiB",
}
_SETTINGS = {
    "samples": "samples",
    "labelled": "labelled",
    "classes": "classes",
    "shape": "shape",
    "targets": "targets",
    "candidate_pool": "candidate pool",
    "rows": "rows a batch",
    "threads": "threads",
    "queries_per_pair": "queries a pair",
}


def growth(result: Result, name: str) -> list[Block]:
    """Exponents of what grows, the points of each series, and curves of those with exponents."""
    sizes = [one for one in result["series"] if one["varied"] in _SIZES]
    blocks: list[Block] = []
    if sizes:
        blocks += [
            "Cost grows as value^exponent: over all points / over the last two.",
            table(("", *_COSTS.values()), [(one["name"], *_exponents(one)) for one in sizes]),
            *_plots(sizes, name),
        ]
    for one in result["series"]:
        blocks += [f"**{one['name']}** ({_shared(one)})", _points(one)]
    return blocks


def _exponents(series: Series) -> list[str]:
    found = (series["exponents"][cost] for cost in _COSTS)
    return [f"{exponent['all']:z.2f} / {exponent['last two']:z.2f}" for exponent in found]


def _shared(series: Series) -> str:
    """The settings that all points of a series have in common."""
    first, *others = series["points"]
    return ", ".join(
        f"{said} {_setting(first[setting])}"
        for setting, said in _SETTINGS.items()
        if setting != series["varied"] and all(one[setting] == first[setting] for one in others)
    )


def _setting(value: int | Sequence[int] | None) -> str:
    if isinstance(value, Sequence):
        return "x".join(map(str, value))
    return "all" if value is None else number(value)


def _points(series: Series) -> str:
    head = (series["varied"], "time", "in the teacher", "queries", "peak MiB", "by the run")
    rows = [
        (
            number(point[series["varied"]]),
            duration(point["seconds"]),
            percent(point["teacher_seconds"] / point["seconds"]),
            point["queries"],
            round(point["peak_mib"]),
            round(point["peak_mib"] - point["before_mib"]),
        )
        for point in series["points"]
    ]
    return table(head, rows)


def _plots(sizes: Sequence[Series], name: str) -> list[Plot]:
    """Time and memory, all series in one plot: a steeper line is a greater exponent."""
    x = ", ".join(dict.fromkeys(one["varied"] for one in sizes))
    plots = []
    for cost, title, y, log in (
        ("seconds", "How time grows", "seconds", True),
        ("peak_mib", "How memory grows", "peak MiB", False),
    ):
        points = {
            one["name"]: [(point[one["varied"]], point[cost]) for point in one["points"]]
            for one in sizes
        }
        plots.append(Plot(f"{name}-{cost.replace('_', '-')}", title, x, y, points, log))
    return plots
