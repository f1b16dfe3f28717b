"""How near the searches come to the boundary for their queries.

For pairs of test images of one class and another class to reach: mean distance over the mean of the
white-box optimum, after so many queries a pair. Rays start towards images of the train split.

    python -m benchmarks.peers.distances --data DIR --teacher FILE
"""

import argparse

import torch

from benchmarks.common.record import keep
from benchmarks.common.setting import parser, teacher_and_data
from benchmarks.peers.whitebox import minimum_norm
from db3kd.boundary import (
    Pairs,
    SignOptSettings,
    StartingPoints,
    boundary_distance,
    minimal_boundary_distance,
)
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.teachers import decide_checked

COUNTS = (25, 50, 100, 150, 250, 500, 1000, 2000, 4000)


def main() -> None:
    options = _options()
    network, teacher, train, test, accuracy = teacher_and_data(options)
    decided = decide_checked(teacher, test.read(range(len(test))))
    chosen = ((test.labels == options.own) & (decided == options.own)).nonzero()[:, 0]
    chosen = chosen[: options.pairs]
    images = test.read(chosen)
    optimum = minimum_norm(network, images, torch.full((len(chosen),), options.target))
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
        print(f"{name}: {spent.mean():.0f} queries a pair; distance over optimum after so many:")
        print("   ".join(f"{count}: {ratio:.3f}" for count, ratio in curves[name].items()))
    keep(
        options,
        {
            "data": train.name,
            "teacher_accuracy": accuracy,
            "pairs": len(pairs),
            "classes": [options.own, options.target],
            "optimum_mean_l2": optimum.mean().item(),
            "distance_over_optimum": curves,
        },
    )


def _search(pairs, rays, mixup_rounds, tolerance, sign_opt, image_shape, ledger):
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
    options.add_argument("--own", type=int, default=3)
    options.add_argument("--target", type=int, default=8)
    return options.parse_args()


if __name__ == "__main__":
    main()
