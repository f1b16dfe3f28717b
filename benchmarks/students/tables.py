"""Students of a random forest over small tables, by each strategy at the same total queries.

For each split, the forest is fitted on half of the rows. The transfer set are 40 rows of the other
half, without labels; the student is measured on the rest, which is used once. Agreement is with the
forest. The same splits serve all strategies, so that differences are paired.

    python -m benchmarks.students.tables --save tables
"""

import argparse
import statistics
import time
from typing import Any

import torch
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.ensemble import RandomForestClassifier

import db3kd
from benchmarks.common.formatting import mean_and_deviation
from benchmarks.common.record import keep, plain_parser
from db3kd.planning import STRATEGIES

_TABLES = {"wine": load_wine, "breast cancer": load_breast_cancer}
_ROWS = 40


def main() -> None:
    """Measures each table, and writes the result after it."""
    options = _options()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for table in _TABLES:
        agreements: dict[str, list[float]] = {name: [] for name in options.strategies}
        queries: dict[str, list[int]] = {name: [] for name in options.strategies}
        started = time.monotonic()
        for split in range(options.splits):
            for strategy in options.strategies:
                agreement, spent = _student(table, split, strategy, options)
                agreements[strategy].append(agreement)
                queries[strategy].append(spent)
        auto = agreements["auto"]
        for strategy, shares in agreements.items():
            gained = [mine - other for mine, other in zip(auto, shares, strict=True)]
            rows.append(
                {
                    "table": table,
                    "strategy": strategy,
                    "agreements": shares,
                    "queries": statistics.fmean(queries[strategy]),
                    "auto_gains": statistics.fmean(gained),
                    "splits_auto_wins": sum(gain > 0 for gain in gained),
                    "splits_auto_loses": sum(gain < 0 for gain in gained),
                }
            )
            print(
                f"{table}, {strategy}: agreement {mean_and_deviation(shares)} at "
                f"{rows[-1]['queries']:,.0f} queries; auto {100 * statistics.fmean(gained):+.1f}",
                flush=True,
            )
        print(f"{table}: {time.monotonic() - started:.0f} s", flush=True)
        settings = {"rows": _ROWS, "budget": options.budget, "steps": options.steps}
        keep(options, {"settings": settings, "students": rows})


def _student(
    table: str, split: int, strategy: Any, options: argparse.Namespace
) -> tuple[float, int]:
    """Returns a student's agreement with the forest on unseen rows, and all queries."""
    data = _TABLES[table]()
    order = torch.randperm(len(data.data), generator=torch.Generator().manual_seed(split)).numpy()
    fitted, rest = order[: len(order) // 2], order[len(order) // 2 :]
    forest = RandomForestClassifier(random_state=split).fit(data.data[fitted], data.target[fitted])
    features = db3kd.Features.infer(data.data)
    teacher = db3kd.TabularTeacher(forest, features)
    training = db3kd.TrainSettings(
        steps=options.steps, batch_size=32, schedule="cosine", seed=split, device="cpu"
    )
    result = db3kd.distill(
        teacher,
        features.encode(data.data[rest[:_ROWS]]),
        budget=options.budget,
        strategy=strategy,
        settings=db3kd.DistillSettings(training=training),
    )
    unseen = features.encode(data.data[rest[_ROWS:]])
    with torch.no_grad():
        predicted = result.student(unseen).argmax(1)
    return (predicted == teacher.decide(unseen)).float().mean().item(), result.queries


def _options() -> argparse.Namespace:
    options = plain_parser(__doc__)
    fixed = ["auto", "augmented", "decisions", "sd", "bd", "mbd"]
    options.add_argument("--strategies", nargs="+", default=fixed, choices=STRATEGIES)
    options.add_argument("--budget", type=int, default=2000, help="queries of each student")
    options.add_argument("--steps", type=int, default=1000, help="of every full training")
    options.add_argument("--splits", type=int, default=10)
    options.add_argument("--threads", type=int, default=1)
    return options.parse_args()


if __name__ == "__main__":
    main()
