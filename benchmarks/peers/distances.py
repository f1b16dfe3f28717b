"""How near the searches get to the boundary with a number of queries.

Each pair is a test image of one class and another class to reach. The result is the mean distance
over the mean of the white-box optimum by queries per pair. Starting points are training images.
With a surrogate, MBD is also measured with it.

    python -m benchmarks.peers.distances --data DIR --teacher FILE [--surrogate FILE]
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.common.record import keep
from benchmarks.common.setting import parser, trained_teacher
from benchmarks.peers.class_pairs import class_pairs
from benchmarks.peers.whitebox import minimum_norm
from db3kd.boundary import (
    TOLERANCE_WITH_SURROGATE,
    Boundary,
    Pairs,
    Rays,
    SignOptSettings,
    StartingPoints,
    Surrogate,
    boundary_distance,
    minimal_boundary_distance,
)
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import Search
from db3kd.teachers import ModuleTeacher, decide_checked, load_teacher

COUNTS = (25, 35, 50, 100, 150, 250, 300, 500, 1000, 2000, 4000)


@dataclass(frozen=True)
class _Method:
    """How a curve is measured; `sign_opt` is None for BD."""

    starting_points: int
    mixup_rounds: int
    tolerance: float
    sign_opt: SignOptSettings | None
    budget: int
    surrogate: Surrogate | None = None


def main() -> None:
    """Measures the searches and writes their curves."""
    options = _options()
    trained = trained_teacher(options)
    teacher, train = trained.teacher, trained.train
    pairs = class_pairs(trained, options.source, options.target, options.pairs)
    images = pairs.samples.view(-1, *teacher.image_shape)
    optimum = minimum_norm(trained.network, images, pairs.criterion_class)
    print(f"white-box optimum: mean L2 {optimum.mean():.3f} over {len(pairs)} pairs")

    candidate_pool = torch.cat([decide_checked(teacher, train.read(part)) for part in
                      torch.arange(len(train)).split(4096)])  # fmt: skip
    curves = {}
    for name, method in _methods(options, teacher).items():
        rays = StartingPoints(train, candidate_pool, method.starting_points).rays(pairs)
        budget = method.budget
        ledger = Ledger(torch.full((len(pairs),), budget))
        search = _search(pairs, rays, method, teacher.image_shape, ledger)
        boundary = run(search, teacher, ledger)
        curves[name] = {
            count: (noted.mean() / optimum.mean()).item()
            for count, noted in boundary.snapshots.items()
            if count <= budget
        }
        spent = ledger.spent.double()
        print(f"{name}: {spent.mean():.0f} queries per pair; distance over optimum by queries:")
        print("   ".join(f"{count}: {ratio:.3f}" for count, ratio in curves[name].items()))
    keep(
        options,
        {
            "data": train.name,
            "teacher_accuracy": trained.accuracy,
            "pairs": len(pairs),
            "classes": [options.source, options.target],
            "optimum_mean_l2": optimum.mean().item(),
            "distance_over_optimum": curves,
        },
    )


def _methods(options: argparse.Namespace, teacher: ModuleTeacher) -> dict[str, _Method]:
    methods = {
        "BD, rays to images alone": _Method(40, 0, 1e-2, None, 150),
        "BD": _Method(20, 2, 1e-2, None, 150),
        "MBD": _Method(10, 0, 1e-3, SignOptSettings(), options.queries),
    }
    if options.surrogate is not None:
        loaded = load_teacher(options.surrogate)
        if not isinstance(loaded, ModuleTeacher):
            raise SystemExit(f"--surrogate: expected a network, got {options.surrogate}")
        surrogate = Surrogate(loaded.module, teacher.image_shape, teacher.classes)
        methods["MBD with a surrogate"] = _Method(
            10, 0, TOLERANCE_WITH_SURROGATE, SignOptSettings(), options.queries, surrogate
        )
    return methods


def _search(
    pairs: Pairs, rays: Rays, method: _Method, image_shape: tuple[int, ...], ledger: Ledger
) -> Search[Boundary]:
    boundary = yield from boundary_distance(
        pairs,
        rays,
        mixup_rounds=method.mixup_rounds,
        relative=method.tolerance,
        budget=ledger,
        snapshots=COUNTS,
        surrogate=method.surrogate,
    )
    if method.sign_opt is not None:
        yield from minimal_boundary_distance(
            pairs,
            boundary,
            image_shape,
            method.sign_opt,
            seed=0,
            query_batch_size=2048,
            budget=ledger,
            surrogate=method.surrogate,
        )
    return boundary


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=100)
    options.add_argument("--source", type=int, default=3, help="class of the images")
    options.add_argument("--queries", type=int, default=max(COUNTS), help="a pair, for MBD")
    options.add_argument("--surrogate", type=Path, help="weight file from db3kd surrogate")
    options.add_argument("--target", type=int, default=8, help="class to reach")
    return options.parse_args()


if __name__ == "__main__":
    main()
