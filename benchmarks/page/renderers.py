"""What each kind of result looks like on the page: blocks of Markdown and plots.

A renderer takes a result, as its JSON file holds it, and that file's name without its ending.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.common.formatting import duration, nested, number, percent, table
from benchmarks.page.plots import Plot
from db3kd.report import zero_shot as synthesis_report

Result = Mapping[str, Any]
Block = str | Plot
Renderer = Callable[[Result, str], list[Block]]

_WAYS = ("native", "compiled", "stored", "numpy")
_TIMES = tuple(f"{way} / eager" for way in _WAYS)
_NOT_SHOWN = ("measured", "data", "teacher_accuracy")
"""Said below each section."""


def anything(result: Result, name: str) -> list[Block]:
    """A result of a kind that has no renderer of its own: all that it holds, in tables."""
    return list(nested({key: value for key, value in result.items() if key not in _NOT_SHOWN}))


def ops(result: Result, name: str) -> list[Block]:
    """Seconds of a call and how many times as fast as eager each way is: a table a place."""
    places: dict[str, dict[tuple, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for row in result["rows"]:
        places[row["place"]][row["op"], row["size"], row["rows"]][row["way"]] = row
    blocks: list[Block] = [
        "Median seconds of a call; at the right, how many times as fast as eager PyTorch."
    ]
    for place, contests in places.items():
        head = ("op", "size", "rows", "native", "of a copy's speed", "eager", *_TIMES)
        rows = []
        for contest, ways in contests.items():
            native = ways.get("native", {})
            times = [_times(ways, way) for way in _WAYS]
            seconds = [
                duration(ways[way]["seconds"]) if way in ways else None
                for way in ("native", "eager")
            ]
            share = percent(native["of_copy"]) if "of_copy" in native else None
            rows.append((*contest, seconds[0], share, seconds[1], *times))
        blocks += [f"**{place}**", table(head, rows)]
    return [*blocks, *_ops_plots(places, name)]


def _ops_plots(places: Mapping[str, Any], name: str) -> list[Plot]:
    """Native over eager by size, a plot a place; of each op, most rows."""
    plots = []
    for number_of_place, (place, contests) in enumerate(places.items()):
        curves: dict[str, dict[int, tuple[int, float]]] = defaultdict(dict)
        for (op, size, rows), ways in contests.items():
            ratio = ways.get("native", {}).get("times_eager")
            if ratio is not None and rows >= curves[op].get(size, (0, 0.0))[0]:
                curves[op][size] = rows, ratio
        points = {
            op: [(size, ratio) for size, (_, ratio) in by_size.items()]
            for op, by_size in curves.items()
            if len(by_size) > 1
        }
        if points:
            title = f"Times as fast as eager PyTorch: {place}"
            plots.append(
                Plot(
                    f"{name}-{number_of_place}", title, "size of a row", "times", points, True, 1.0
                )
            )
    return plots


def _times(ways: Mapping[str, Any], way: str) -> str | None:
    ratio = ways.get(way, {}).get("times_eager")
    return None if ratio is None else f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x"


def labelling(result: Result, name: str) -> list[Block]:
    head = ("measure", "samples", "queries", "time", "queries a second")
    rows = [
        (
            row["measure"],
            row["samples"],
            row["queries"],
            duration(row["seconds"]),
            round(row["queries"] / row["seconds"]),
        )
        for row in result["rows"]
    ]
    return [table(head, rows)]


def distances(result: Result, name: str) -> list[Block]:
    curves = result["distance_over_optimum"]
    counts = sorted({int(count) for curve in curves.values() for count in curve})
    rows = [(search, *(curve.get(str(count)) for count in counts)) for search, curve in
            curves.items()]  # fmt: skip
    own, target = result["classes"]
    said = (
        f"{result['pairs']} pairs {own}→{target}: mean distance over that of the white-box optimum "
        f"(mean L2 {result['optimum_mean_l2']:.3f}), by queries a pair."
    )
    points = {
        search: [(float(count), ratio) for count, ratio in curve.items()]
        for search, curve in curves.items()
    }
    title = "Distance for queries"
    plot = Plot(name, title, "queries a pair", "distance / optimum", points, level=1.0)
    return [said, table(("", *counts), rows), plot]


def zero_shot(result: Result, name: str) -> list[Block]:
    training = result["training"]
    said = (
        f"{result['student']}, {training['steps']:,} steps of {training['batch_size']}; "
        f"part: {result['part']}."
    )
    return [said, synthesis_report.table([synthesis_report.Row(**row) for row in result["rows"]])]


def starting_points(result: Result, name: str) -> list[Block]:
    """A table of each search: a row a number of images, and the default over the best of them."""
    blocks: list[Block] = [
        f"{result['pairs']} pairs, each budget a search of its own: mean distance over that of the "
        f"white-box optimum (mean L2 {result['optimum_mean_l2']:.3f}), by queries a pair and how "
        "many images rays lead to."
    ]
    for search, rows in result["distance_over_optimum"].items():
        budgets = list(next(iter(rows.values())))
        lines = [(images, *map(rows[images].get, budgets)) for images in rows]
        if search in result["auto_over_best"]:
            shares = result["auto_over_best"][search]
            lines.append(("auto over the best", *map(shares.get, budgets)))
        blocks += [f"**{search.replace('bd', 'BD').replace('mBD', 'MBD')}**",
                   table(("images", *budgets), lines)]  # fmt: skip
    return blocks


def teacher_share(result: Result, name: str) -> list[Block]:
    head = ("", "share in the teacher", "time", "over the teacher alone", "queries",
            "queries a second", "CPU a query", "share of CPU time")  # fmt: skip
    rows = [
        (
            measure.replace("bd", "BD").replace("sd", "SD").replace("mBD", "MBD"),
            percent(run["share"]),
            duration(run["wall"]),
            run["wall_over_alone"],
            run["queries"],
            run["queries_per_second"],
            duration(run["cpu_a_query"]) if "cpu_a_query" in run else None,
            percent(run["cpu_share"]) if "cpu_share" in run else None,
        )
        for measure, runs in result["runs"].items()
        for run in runs
    ]
    return [f"{result['images']} samples among {result['among']:,}.", table(head, rows)]


def memory(result: Result, name: str) -> list[Block]:
    said = f"{result['measure'].upper()}, {result['queries_per_sample']} queries a sample."
    rows = [(peak["samples"], round(peak["mebibytes"]), round(peak["seconds"])) for peak in
            result["peaks"]]  # fmt: skip
    return [said, table(("samples", "peak MiB", "seconds"), rows)]


def crashes(result: Result, name: str) -> list[Block]:
    said_too = sum(run["in_flight"] for run in result["runs"])
    head = ("runs", "kills", "queries of a run", "paid twice", "the runs say", "most allowed",
            "labels the same")  # fmt: skip
    most = result["kills"] * result["most_twice_per_kill"]
    cells = (len(result["runs"]), result["kills"], result["queries"], result["twice"], said_too)
    return [table(head, [(*cells, most, result["same"])])]


def interrupts(result: Result, name: str) -> list[Block]:
    said = (
        f"{number(result['queries_per_second'])} queries a second, requests of {result['batch']} "
        f"images, {result['in_flight']} in flight; {len(result['runs'])} runs, labels the same: "
        f"{'yes' if result['same'] else 'no'}."
    )
    head = ("stopped by", "stops", "answers lost, most", "in all", "allowed each time")
    rows = [
        (how, len(lost), max(lost, default=0), sum(lost), result["allowed"])
        for how, lost in result["lost"].items()
    ]
    return [said, table(head, rows)]


def journal_share(result: Result, name: str) -> list[Block]:
    head = ("time", "in the journal", "share", "bytes a query", "queries replayed a second")
    rows = [
        (
            duration(run["wall"]),
            duration(run["in_journal"]),
            percent(run["share"]),
            run["bytes"] / run["queries"],
            run["queries"] / run["replay"],
        )
        for run in result["runs"]
    ]
    return [table(head, rows)]


def workers(result: Result, name: str) -> list[Block]:
    head = ("workers", "killed", "time", "labels the same", "paid twice")
    rows = [
        (run["workers"], run["lost"], duration(run["seconds"]), run["same"], run["twice"])
        for run in result["runs"]
    ]
    said = (
        f"{result['images']:,} images, {result['queries']:,} queries; two workers are "
        f"{result['speed_of_two_over_one']:.2f} times as fast as one process."
    )
    return [said, table(head, rows)]


def serving(result: Result, name: str) -> list[Block]:
    wires: dict[str, dict[int, str]] = defaultdict(dict)
    for row in result["throughput"]:
        speed, share = row["images_per_second"]["db3kd"], row["share_of_bare"]
        wires[f"{row['server']}, {row['wire']}"][row["batch"]] = f"{speed:,} ({100 * share:.0f} %)"
    batches = sorted({row["batch"] for row in result["throughput"]})
    rows = [(wire, *(cells.get(batch) for batch in batches)) for wire, cells in wires.items()]
    blocks: list[Block] = [
        "Images a second, in brackets the share of what tritonclient alone reaches.",
        table(("", *(f"batch {number(batch)}" for batch in batches)), rows),
    ]
    faults = result["faults"]
    if faults:
        names = ("samples", "labels_equal", "queries_booked", "queries_computed_by_server")
        head = ("samples", "labels the same", "queries booked", "queries the server computed")
        blocks += ["With faults and a restart:", table(head, [[faults[name] for name in names]])]
    return blocks
