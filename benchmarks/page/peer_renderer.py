"""What a result of benchmarks.peers.compare looks like on the page."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.common.formatting import duration, number, percent, table
from benchmarks.page.plots import Plot
from benchmarks.page.renderers import Block, Result

_COSTS = ("queries a pair", "time of all pairs", "in the teacher", "peak MiB", "by the search")
_FAILURES = ("missed", "unconfirmed", "errors")


def peers(result: Result, name: str) -> list[Block]:
    """Distances by queries, what a search costs, the best peer at each of our distances, curves."""
    attacks = result["attacks"]
    blocks: list[Block] = [
        _problem(result),
        *_distances(attacks),
        table(("", *_COSTS), [(attack, *_cost(facts)) for attack, facts in attacks.items()]),
    ]
    for ours, rows in result.get("best_peer", {}).items():
        blocks += [f"Which peer comes as near as {ours} for least:", _best_peers(rows)]
    return [*blocks, *_failures(attacks), *_plots(result["curves"], name)]


def _problem(result: Result) -> str:
    of = "of any classes"
    if result["classes"]:
        own, target = result["classes"]
        of = f"{own}→{target}"
    said = (
        f"{result['pairs']} pairs {of}, {result['data']}, teacher {result['teacher']}, "
        f"{number(result['starts'])} starts a pair. White-box optimum: mean L2 "
        f"{result['optimum']['mean']:.3f}"
    )
    if "white_box_over_exact" in result:
        over = result["white_box_over_exact"]
        said += f", {over['mean']:.4f} times the true optimum ({over['most']:.4f} at most)"
    said += "."
    if "surrogates" in result:
        learnt = result["surrogates"]
        images, queries = learnt["surrogate_images"], learnt["surrogate_queries"]
        said += (
            f" A model after a comma is that of a surrogate, which learnt {queries} decisions for "
            f"each of {images:,} other images: {images * queries:,} queries, asked once for all "
            "pairs and counted for none."
        )
    return said


def _distances(attacks: Mapping[str, Any]) -> Iterable[str]:
    """The mean and the median of the pairs' ratios at each budget: two tables."""
    budgets = sorted({int(budget) for facts in attacks.values() for budget in facts["at"]})
    for which in ("mean", "median"):
        yield f"Distance over that of the white-box optimum, by queries a pair: the {which}."
        rows = [
            (attack, *(f"{facts['at'][str(budget)][which]:.3f}" for budget in budgets))
            for attack, facts in attacks.items()
        ]
        yield table(("", *map(number, budgets)), rows)


def _cost(facts: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        round(facts["queries_a_pair"]),
        duration(facts["seconds"]),
        percent(facts["share_in_teacher"]),
        round(facts["peak_mebibytes"]),
        round(facts["peak_mebibytes"] - facts["mebibytes_before"]),
    )


def _best_peers(rows: Iterable[Mapping[str, Any]]) -> str:
    head = ("after queries", "its ratio", "peer by queries", "its queries", "ours of them",
            "peer by seconds", "its time", "ours of it")  # fmt: skip
    return table(head, [_best_peer(row) for row in rows])


def _best_peer(row: Mapping[str, Any]) -> tuple[object, ...]:
    queries, seconds = row["peer_queries"], row["peer_seconds"]
    return (
        row["budget"],
        f"{row['ratio']:.3f}",
        row["peer_by_queries"],
        None if queries is None else round(queries),
        _share(row["queries_over_peer"]),
        row["peer_by_seconds"],
        None if seconds is None else duration(seconds),
        _share(row["seconds_over_peer"]),
    )


def _share(share: float | None) -> str | None:
    return None if share is None else percent(share)


def _failures(attacks: Mapping[str, Any]) -> list[Block]:
    """Of the attacks that missed a pair, or ended with an error."""
    rows = [
        (attack, facts["missed"], facts["unconfirmed"], "; ".join(facts["errors"]) or None)
        for attack, facts in attacks.items()
        if any(facts[failure] for failure in _FAILURES)
    ]
    head = ("", "pairs never hit", "nearest image of another class if asked again", "errors")
    return ["Pairs missed, and errors:", table(head, rows)] if rows else []


def _plots(curves: Mapping[str, Any], name: str) -> list[Plot]:
    """The mean ratio against queries and against seconds; what cost no time has no place there."""
    plots = []
    for unit, x in (("queries", "queries a pair"), ("seconds", "seconds, all pairs")):
        points = {
            attack: [
                (cost, ratio)
                for cost, ratio in zip(curve[unit], curve["mean"], strict=True)
                if cost > 0
            ]
            for attack, curve in curves.items()
        }
        title = f"Distance for {unit}"
        plots.append(Plot(f"{name}-{unit}", title, x, "mean distance / optimum", points, True, 1.0))
    return plots
