"""How many starting points a pair should have: distance by queries for several numbers.

Pairs and white-box optimum are those of benchmarks.peers; the result is the mean distance over the
mean optimum. Each budget needs a new search, because the default number depends on it. "auto" is
the default. A surrogate compares the rays itself, so that the teacher is asked about one ray only;
"all asked" asks the teacher about every ray for comparison.

    python -m benchmarks.peers.starting_points --data DIR --teacher FILE --save candidates-mnist

The pairs, their optimum and the surrogates take minutes to make; --problem writes them to a file.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common.record import keep
from benchmarks.common.setting import parser
from benchmarks.peers.problem import NETWORKS, Problem, make_problem
from db3kd.boundary import (
    Boundary,
    Rays,
    Surrogate,
    boundary_distance,
    minimal_boundary_distance,
)
from db3kd.labelling.chunk_search import measure
from db3kd.labelling.settings import LabelSettings
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import Search

BUDGETS = (15, 25, 35, 50, 100, 150, 300, 1000)
COUNTS = (1, 2, 5, 10, 20, 40)
SURROGATES = ("lenet5", "lenet5-half")


def main() -> None:
    """Measures all numbers of starting points and writes the result."""
    options = _options()
    torch.set_num_threads(options.threads)
    problem = _problem(options)
    print(f"{problem.data}: {len(problem)} pairs, white-box optimum {problem.optimum.mean():.3f}")
    tables: dict[str, dict[str, dict[int, float]]] = {}
    for name, surrogate, settings, all_asked in _searches(problem, options.counts):
        row = tables.setdefault(name, {})
        number = "auto" if settings.starting_points is None else str(settings.starting_points)
        row[number] = {
            budget: _ratio(problem, settings, budget, surrogate, all_asked)
            for budget in options.budgets
        }
        points = "   ".join(f"{budget}: {ratio:.3f}" for budget, ratio in row[number].items())
        print(f"{name}, {number}: {points}", flush=True)
    worst = {name: _auto_over_best(rows) for name, rows in tables.items() if "auto" in rows}
    for name, shares in worst.items():
        print(f"{name}, auto over the best number: " +
              "   ".join(f"{budget}: {share:.3f}" for budget, share in shares.items()))  # fmt: skip
    keep(
        options,
        {
            "data": problem.data,
            "pairs": len(problem),
            "optimum_mean_l2": problem.optimum.mean().item(),
            "networks": NETWORKS,
            "distance_over_optimum": tables,
            "auto_over_best": worst,
        },
    )


def _searches(
    problem: Problem, counts: list[int]
) -> Iterator[tuple[str, Surrogate | None, LabelSettings, bool]]:
    """Name, surrogate and settings of each search, and whether the teacher compares all rays."""
    for measured in ("bd", "mbd"):
        for number in (None, *counts):
            yield measured, None, LabelSettings(measured, starting_points=number), True
    for model in SURROGATES:
        surrogate = problem.surrogate(model)
        for number in (None, *counts):
            yield f"mbd, {model}", surrogate, LabelSettings(starting_points=number), False
        for number in (1, 20):
            yield f"mbd, {model}, all asked", surrogate, LabelSettings(starting_points=number), True


def _ratio(
    problem: Problem,
    settings: LabelSettings,
    budget: int,
    surrogate: Surrogate | None,
    all_asked: bool,
) -> float:
    """The mean distance over the mean optimum after `budget` queries per pair."""
    limits = torch.full((len(problem),), budget)
    pairs, ledger, shape = problem.pairs, Ledger(limits), problem.image_shape
    rays = _rays(problem, settings.starting_points_per_pair(limits, surrogate is not None))
    if surrogate is not None and all_asked:
        search = _all_asked(problem, rays, settings, ledger, surrogate)
    else:
        search = measure(pairs, rays, shape, settings, ledger, surrogate)
    boundary = run(search, problem.teacher(), ledger)
    return (boundary.distance.mean() / problem.optimum.mean()).item()


def _all_asked(
    problem: Problem, rays: Rays, settings: LabelSettings, ledger: Ledger, surrogate: Surrogate
) -> Search[Boundary]:
    """MBD with a surrogate, from the best of all rays by the teacher's decisions."""
    pairs, query_batch_size = problem.pairs, settings.query_batch_size
    boundary = yield from boundary_distance(
        pairs, rays, relative=settings.tolerance, query_batch_size=query_batch_size, budget=ledger
    )
    yield from minimal_boundary_distance(
        pairs, boundary, problem.image_shape, settings.sign_opt,
        seed=settings.seed, query_batch_size=query_batch_size, budget=ledger, surrogate=surrogate,
    )  # fmt: skip
    return boundary


def _rays(problem: Problem, counts: Tensor) -> Rays:
    """Rays to the nearest `counts` [P] images of each pair."""
    starts = problem.starts.shape[1]
    ends = problem.starts.flatten(0, 1).flatten(1)
    number = torch.arange(len(ends))
    rays = Rays.towards(problem.pairs, ends, number // starts, number).shortest_first()
    return rays.select((number % starts < counts.repeat_interleave(starts)).nonzero()[:, 0])


def _auto_over_best(rows: dict[str, dict[int, float]]) -> dict[int, float]:
    """By budget, the distance of the default over that of the best number."""
    best = {
        budget: min(row[budget] for number, row in rows.items() if number != "auto")
        for budget in rows["auto"]
    }
    return {budget: ratio / best[budget] for budget, ratio in rows["auto"].items()}


def _problem(options: argparse.Namespace) -> Problem:
    if options.problem is not None and options.problem.exists():
        return Problem.load(options.problem)
    problem = make_problem(options)
    if options.problem is not None:
        problem.save(options.problem)
    return problem


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=100)
    options.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    options.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    options.add_argument("--problem", type=Path, help="file of the pairs; written if missing")
    chosen = options.parse_args()
    fixed = {
        "classes": None, "candidate_pool": None, "seed": 0,
        "starts": max(max(chosen.counts), 20), "white_box_steps": 400,
        "surrogates": SURROGATES, "surrogate_images": 2000, "surrogate_queries": 10,
        "surrogate_steps": 2000,
    }  # fmt: skip
    vars(chosen).update(fixed)
    return chosen


if __name__ == "__main__":
    main()
