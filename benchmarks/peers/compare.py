"""Compares db3kd with searches that a user would choose instead: distance by queries and by time.

All searches have the same teacher, pairs and starting points, the nearest images of the target
class. Each runs in a separate process. A teacher that counts, times and measures every query
(benchmarks.peers.measuring_teacher) replaces what the searches report. Distances are over the least
distance that a gradient attack finds on the teacher (benchmarks.peers.whitebox).

    python -m benchmarks.peers --teacher-model lenet5 --data DIR --teacher FILE --save peers-mnist

The name of a search with a surrogate ends with the architecture of the surrogate's networks, which
are trained as `db3kd label --surrogate auto` does. The queries that they learn from are asked once
for all pairs, and no curve counts them.

The result holds the distances at --budgets and the whole curves by queries and by seconds. Seconds
are those of all pairs together.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.common.record import keep
from benchmarks.common.setting import parser
from benchmarks.peers.attacks import ATTACKS, NEEDS, SURROGATES
from benchmarks.peers.curves import Curve, best_peer, counting_training, equal_distance
from benchmarks.peers.problem import NETWORKS, Problem, make_problem
from benchmarks.peers.process import Measured, curve_counts, measure_apart

BUDGETS = (50, 100, 250, 500, 1000, 2000, 4000)
_OURS = "db3kd MBD"
_SHARING = (10, 100, 1000)
"""Numbers of pairs among which the training queries of a surrogate are divided."""


def main() -> None:
    """Measures all searches and writes the result."""
    options = _options()
    torch.set_num_threads(options.threads)
    problem = make_problem(options)
    print(
        f"{problem.kind}, {problem.data}: {len(problem)} pairs, {options.starts} starts each; "
        f"white-box optimum: mean L2 {problem.optimum.mean():.3f}",
        flush=True,
    )
    measured = _measure_all(problem, options)
    curves = {name: Curve.of(one.trace, problem.optimum.numpy()) for name, one in measured.items()}
    result = _result(problem, measured, curves, options)
    for name, rows in result.get("best_peer", {}).items():
        for row in rows:
            print(_verdict(name, row))
    keep(options, result)


def _measure_all(problem: Problem, options: argparse.Namespace) -> dict[str, Measured]:
    measured = {}
    counts = curve_counts(options.budgets)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "problem.pt"
        problem.save(file)
        for name in options.attacks:
            measured[name] = measure_apart(
                file, name, counts, threads=options.threads, seed=options.seed
            )
            curve = Curve.of(measured[name].trace, problem.optimum.numpy())
            print(_line(name, measured[name], curve, options.budgets), flush=True)
    return measured


def _line(name: str, measured: Measured, curve: Curve, budgets: list[int]) -> str:
    points = {count: curve.at(count) for count in budgets}
    ratios = "   ".join(
        f"{count}: {point['mean']:.3f} ({point['median']:.3f})" for count, point in points.items()
    )
    growth = measured.mebibytes - measured.before
    lines = [
        f"{name}: {measured.queries:.0f} queries per pair, {measured.wall:.2f} s, "
        f"{measured.in_teacher / measured.wall:.0%} of it in the teacher, "
        f"{measured.mebibytes:.0f} MiB, {growth:+.0f} by the search; missed {measured.missed}, "
        f"unconfirmed {measured.unconfirmed}",
        f"    mean (median) ratio by queries: {ratios}",
        *(f"    {error}" for error in measured.errors),
    ]
    return "\n".join(lines)


def _verdict(name: str, row: dict[str, Any]) -> str:
    parts = []
    for unit in ("queries", "seconds"):
        share, peer = row[f"{unit}_over_peer"], row[f"peer_by_{unit}"]
        parts.append(
            f"no peer at any {unit}" if share is None else f"{share:.2f} of the {unit} of {peer}"
        )
    return f"{name} at {row['ratio']:.3f} ({row['budget']} queries): {', '.join(parts)}"


def _result(
    problem: Problem,
    measured: dict[str, Measured],
    curves: dict[str, Curve],
    options: argparse.Namespace,
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "teacher": problem.kind,
        "data": problem.data,
        "image_shape": list(problem.image_shape),
        "pairs": len(problem),
        "classes": options.classes,
        "starts": options.starts,
        "seed": options.seed,
        "optimum": _spread(problem.optimum.numpy()),
        "attacks": {
            name: one.facts() | {"at": {count: curves[name].at(count) for count in options.budgets}}
            for name, one in measured.items()
        },
        "curves": {name: curve.points() for name, curve in curves.items()},
    }
    if problem.surrogates:
        names = ("surrogate_images", "surrogate_queries", "surrogate_steps")
        result["surrogates"] = {name: getattr(options, name) for name in names} | {
            "networks": NETWORKS
        }
        without = {name: curve for name, curve in curves.items() if not _surrogate_of(name)}
        if without:
            training = options.surrogate_images * options.surrogate_queries
            result["counting_training"] = {
                name: counting_training(curve, without, training, _SHARING, options.budgets)
                for name, curve in curves.items()
                if name not in without
            }
    if problem.exact is not None:
        exact = problem.exact.numpy()
        result["white_box_over_exact"] = _spread(problem.optimum.numpy() / exact)
        for name, one in measured.items():
            over = Curve.of(one.trace, exact)
            rows = {count: over.at(count) for count in options.budgets}
            result["attacks"][name]["over_exact"] = rows
    peers = {name: curve for name, curve in curves.items() if not name.startswith("db3kd")}
    ours = {name: curve for name, curve in curves.items() if name.startswith(_OURS)}
    if ours and peers:
        result["equal_distance"] = {
            name: equal_distance(curve, peers, options.budgets) for name, curve in ours.items()
        }
        result["best_peer"] = {
            name: best_peer(curve, peers, options.budgets) for name, curve in ours.items()
        }
    return result


def _spread(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "least": float(values.min()),
        "most": float(values.max()),
    }


def _installed(attack: str) -> bool:
    return all(
        find_spec(package) is not None for name, package in NEEDS.items() if attack.startswith(name)
    )


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=100)
    options.add_argument(
        "--classes", type=int, nargs=2, metavar=("SOURCE", "TARGET"), help="classes of all pairs"
    )
    options.add_argument("--starts", type=int, default=10, help="starting points a pair")
    options.add_argument("--candidate-pool", type=int, help="images to find starts among (all)")
    options.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    options.add_argument("--attacks", nargs="+", choices=list(ATTACKS), metavar="NAME")
    options.add_argument("--white-box-steps", type=int, default=400)
    options.add_argument(
        "--surrogate-images", type=int, default=2000, help="images that surrogates learn from"
    )
    options.add_argument(
        "--surrogate-queries",
        type=_several,
        default=10,
        help="queries for each of these images, at least 2",
    )
    options.add_argument("--surrogate-steps", type=int, default=2000, help="training steps of each")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    chosen.budgets = sorted(set(chosen.budgets))
    if chosen.attacks is None:
        chosen.attacks = [
            name
            for name in ATTACKS
            if _installed(name)
            and _surrogate_of(name) in ("", *SURROGATES.get(chosen.teacher_model, ()))
        ]
        for name in ATTACKS.keys() - set(chosen.attacks):
            print(f"skipped: {name} is not installed, or belongs to another teacher")
    chosen.surrogates = [model for model in map(_surrogate_of, chosen.attacks) if model]
    return chosen


def _several(text: str) -> int:
    """The value of --surrogate-queries: one for the image, others for versions of it and points."""
    if (number := int(text)) < 2:
        raise ValueError
    return number


def _surrogate_of(attack: str) -> str:
    """The model of an attack's surrogate; empty if it has none."""
    return attack.partition(", ")[2]
