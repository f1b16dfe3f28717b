"""How near the searches get to the boundary with a number of queries.

Each pair is a test image of one class and another class to reach. The result is the mean distance
over the mean of the white-box optimum by queries a pair. Starting points are training images.

    python -m benchmarks.peers.distances --data DIR --teacher FILE
"""

import argparse

import torch

from benchmarks.common.record import keep
from benchmarks.common.setting import parser, trained_teacher
from benchmarks.peers.whitebox import minimum_norm
from db3kd.boundary import (
    Boundary,
    Pairs,
    Rays,
    SignOptSettings,
    StartingPoints,
    boundary_distance,
    minimal_boundary_distance,
)
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import Search
from db3kd.teachers import decide_checked

COUNTS = (25, 50, 100, 150, 250, 500, 1000, 2000, 4000)


def main() -> None:
    """Measures the searches and writes their curves."""
    options = _options()
    trained = trained_teacher(options)
    teacher, train, test = trained.teacher, trained.train, trained.test
    decided = decide_checked(teacher, test.read(range(len(test))))
    chosen = ((trained.test_labels == options.source) & (decided == options.source)).nonzero()[:, 0]
    chosen = chosen[: options.pairs]
    images = test.read(chosen)
    optimum = minimum_norm(trained.network, images, torch.full((len(chosen),), options.target))
    print(f"white-box optimum: mean L2 {optimum.mean():.3f} over {len(chosen)} pairs")

    number = torch.arange(len(chosen))
    pairs = Pairs(images.flatten(1), chosen, number, torch.full_like(number, options.target))
    candidate_pool = torch.cat([decide_checked(teacher, train.read(part)) for part in
                      torch.arange(len(train)).split(4096)])  # fmt: skip
    curves = {}
    searches = {
        "BD, rays to images alone": (40, 0, 1e-2, None, 150),
        "BD": (20, 2, 1e-2, None, 150),
        "MBD": (10, 0, 1e-3, SignOptSettings(), max(COUNTS)),
    }
    for name, (starting_points, mixup_rounds, tolerance, sign_opt, budget) in searches.items():
        rays = StartingPoints(train, candidate_pool, starting_points).rays(pairs)
        ledger = Ledger(torch.full((len(pairs),), budget))
        search = _search(
            pairs, rays, mixup_rounds, tolerance, sign_opt, teacher.image_shape, ledger
        )
        boundary = run(search, teacher, ledger)
        curves[name] = {
            count: (noted.mean() / optimum.mean()).item()
            for count, noted in boundary.snapshots.items()
            if count <= budget
        }
        spent = ledger.spent.double()
        print(f"{name}: {spent.mean():.0f} queries a pair; distance over optimum by queries:")
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


def _search(
    pairs: Pairs,
    rays: Rays,
    mixup_rounds: int,
    tolerance: float,
    sign_opt: SignOptSettings | None,
    image_shape: tuple[int, ...],
    ledger: Ledger,
) -> Search[Boundary]:
    boundary = yield from boundary_distance(
        pairs, rays, mixup_rounds=mixup_rounds, relative=tolerance, budget=ledger, snapshots=COUNTS
    )
    if sign_opt is not None:
        yield from minimal_boundary_distance(
            pairs, boundary, image_shape, sign_opt, seed=0, query_batch_size=2048, budget=ledger
        )
    return boundary


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=100)
    options.add_argument("--source", type=int, default=3, help="class of the images")
    options.add_argument("--target", type=int, default=8, help="class to reach")
    return options.parse_args()


if __name__ == "__main__":
    main()
