"""Distance against queries and seconds: curves, and what an equal distance costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.measuring_teacher import Trace


@dataclass(frozen=True)
class Curve:
    """A search's distance over the optimum, after so many queries and seconds.

    queries, seconds, mean, median, of_means: [G]. mean, median: of the pairs' ratios. of_means: the
    mean distance over the mean optimum, which pairs with a small optimum do not dominate.
    """

    queries: NDArray[np.int64]
    seconds: NDArray[np.float64]
    mean: NDArray[np.float64]
    median: NDArray[np.float64]
    of_means: NDArray[np.float64]

    @classmethod
    def of(cls, trace: Trace, optimum: NDArray[np.floating]) -> "Curve":
        """trace: of P pairs. optimum: [P], their least distances."""
        ratio = trace.distance / optimum[:, None]
        return cls(
            queries=trace.counts,
            seconds=trace.seconds,
            mean=ratio.mean(0),
            median=np.median(ratio, axis=0),
            of_means=trace.distance.mean(0) / optimum.mean(),
        )

    def at(self, count: int) -> dict[str, float]:
        """What the search had come to after `count` queries, one of the curve's numbers."""
        place = int(np.flatnonzero(self.queries == count)[0])
        names = ("seconds", "mean", "median", "of_means")
        return {name: float(getattr(self, name)[place]) for name in names}

    def points(self) -> dict[str, list[float]]:
        """All of the curve for a file: lists of queries, and of the rest to five digits."""
        rest = {
            name: [float(f"{value:.5g}") for value in getattr(self, name)]
            for name in ("seconds", "mean", "median")
        }
        return {"queries": self.queries.tolist()} | rest


def reaching(ratio: float, mean: NDArray[np.floating], cost: NDArray[np.floating]) -> float:
    """What it costs to come down to `ratio`, between the points of a curve on straight lines.

    mean: [G], falling or level. cost: [G], rising. +inf where the curve stays above; the first cost
    where it begins below.
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
    """What the distance that each peer has after each budget costs `ours` and that peer.

    A peer may have had the distance before it had spent the budget; it is credited with that. Rows:
    budget, ratio (the mean), queries and seconds of both, and ours over the peer's. A distance that
    ours does not reach costs it None.
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
    """For the distance of ours after each budget: which peer reaches it for least, and our share.

    Separately for queries and seconds, as they may be two peers; None where no peer gets so near.
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
