"""Curves of distance by queries and by seconds, and the cost of an equal distance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.measuring_teacher import Trace


@dataclass(frozen=True)
class Curve:
    """The distance of a search over the optimum, by queries and by seconds.

    Attributes:
        queries: [G] int64, queries per pair.
        seconds: [G] float64.
        mean: [G] float64, the mean of the pairs' ratios.
        median: [G] float64, their median.
        of_means: [G] float64, the mean distance over the mean optimum, which pairs with a small
            optimum do not dominate.
    """

    queries: NDArray[np.int64]
    seconds: NDArray[np.float64]
    mean: NDArray[np.float64]
    median: NDArray[np.float64]
    of_means: NDArray[np.float64]

    @classmethod
    def of(cls, trace: Trace, optimum: NDArray[np.floating]) -> "Curve":
        """Makes the curve of a trace of P pairs; `optimum` [P] are their least distances."""
        ratio = trace.distance / optimum[:, None]
        return cls(
            queries=trace.counts,
            seconds=trace.seconds,
            mean=ratio.mean(0),
            median=np.median(ratio, axis=0),
            of_means=trace.distance.mean(0) / optimum.mean(),
        )

    def at(self, count: int) -> dict[str, float]:
        """The values after `count` queries, which must be one of `queries`."""
        place = int(np.flatnonzero(self.queries == count)[0])
        names = ("seconds", "mean", "median", "of_means")
        return {name: float(getattr(self, name)[place]) for name in names}

    def points(self) -> dict[str, list[float]]:
        """The curve for a file: lists, rounded to five digits."""
        rest = {
            name: [float(f"{value:.5g}") for value in getattr(self, name)]
            for name in ("seconds", "mean", "median")
        }
        return {"queries": self.queries.tolist()} | rest


def reaching(ratio: float, mean: NDArray[np.floating], cost: NDArray[np.number]) -> float:
    """The cost of reaching a ratio, interpolated between the points of a curve.

    Args:
        ratio: The distance over the optimum.
        mean: [G], falling or level.
        cost: [G], rising.

    Returns:
        The cost; +inf if the curve stays above the ratio, and the first cost if it begins below.
    """
    reached = np.flatnonzero(mean <= ratio)
    if not len(reached):
        return float("inf")
    after = int(reached[0])
    if after == 0:
        return float(cost[0])
    before = after - 1
    share = (mean[before] - ratio) / (mean[before] - mean[after])
    return float(cost[before] + share * (cost[after] - cost[before]))


def equal_distance(
    ours: Curve, peers: Mapping[str, Curve], budgets: list[int]
) -> dict[str, list[dict[str, Any]]]:
    """What each peer's distance after each budget costs that peer and db3kd.

    A peer that had the distance before it had spent the budget is credited with that.

    Returns:
        By peer, a row for each budget: the budget, the mean ratio, queries and seconds of both, and
        db3kd's over the peer's. Values are None if db3kd does not reach the distance.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, peer in peers.items():
        rows[name] = []
        for budget in budgets:
            ratio = peer.at(budget)["mean"]
            row: dict[str, Any] = {"budget": budget, "ratio": ratio}
            for unit in ("queries", "seconds"):
                theirs = reaching(ratio, peer.mean, getattr(peer, unit))
                mine = reaching(ratio, ours.mean, getattr(ours, unit))
                row[f"peer_{unit}"] = theirs
                row[f"our_{unit}"] = mine if np.isfinite(mine) else None
                share = mine / theirs if theirs > 0 else np.nan
                row[f"{unit}_over_peer"] = share if np.isfinite(share) else None
            rows[name].append(row)
    return rows


def best_peer(ours: Curve, peers: Mapping[str, Curve], budgets: list[int]) -> list[dict[str, Any]]:
    """The peer that reaches db3kd's distance after each budget for the least cost.

    Returns:
        A row for each budget, with the best peer by queries and the best by seconds, which may
        differ. Values are None if no peer gets so near.
    """
    rows = []
    for budget in budgets:
        ratio = ours.at(budget)["mean"]
        row: dict[str, Any] = {"budget": budget, "ratio": ratio}
        for unit in ("queries", "seconds"):
            mine = reaching(ratio, ours.mean, getattr(ours, unit))
            costs = {
                name: reaching(ratio, peer.mean, getattr(peer, unit))
                for name, peer in peers.items()
            }
            name = min(costs, key=costs.__getitem__)
            near = np.isfinite(costs[name])
            row[f"peer_by_{unit}"] = name if near else None
            row[f"our_{unit}"] = mine
            row[f"peer_{unit}"] = costs[name] if near else None
            row[f"{unit}_over_peer"] = mine / costs[name] if near and costs[name] > 0 else None
        rows.append(row)
    return rows


def counting_training(
    ours: Curve,
    others: Mapping[str, Curve],
    training: int,
    pairs: Sequence[int],
    budgets: list[int],
) -> list[dict[str, Any]]:
    """What a search with a surrogate costs if the training queries of the surrogate count too.

    Args:
        ours: The search with a surrogate.
        others: The searches without one.
        training: The training queries.
        pairs: Numbers of pairs that share the training queries.
        budgets: Queries a pair.

    Returns:
        A row for each budget: the search without a surrogate that reaches the same distance with
        the fewest queries, and by number of pairs, the queries with the surrogate over those. If no
        search gets so near, values are None.
    """
    rows = []
    for budget in budgets:
        ratio = ours.at(budget)["mean"]
        mine = reaching(ratio, ours.mean, ours.queries)
        costs = {name: reaching(ratio, other.mean, other.queries) for name, other in others.items()}
        name = min(costs, key=costs.__getitem__)
        near = np.isfinite(costs[name])
        rows.append(
            {
                "budget": budget,
                "ratio": ratio,
                "other": name if near else None,
                "other_queries": costs[name] if near else None,
                "over_other": {
                    str(count): (mine + training / count) / costs[name] if near else None
                    for count in pairs
                },
            }
        )
    return rows
