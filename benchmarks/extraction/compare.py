r"""Students of `db3kd.distill` beside those of other extraction methods.

All methods have the same teacher, pool, budget and student. The teacher counts queries, and refuses
those beyond the budget. Every student trains for the same number of steps, and test images are used
once, at its end. Each seed has another pool.

    python -m benchmarks.extraction --data DIR --teacher FILE --images 20000 --budgets 1000 \
        --steps 1500 --runs DIR --save NAME
    python -m benchmarks.extraction --data DIR --teacher FILE --images 0 --budgets 20000 \
        --steps 1500 --runs DIR --save NAME

The result is written after each student, and a stopped benchmark goes on where it was.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.record import keep, rows_so_far
from benchmarks.common.setting import TrainedTeacher, parser, trained_teacher
from benchmarks.extraction.methods import WITH_IMAGES, WITHOUT_IMAGES
from benchmarks.extraction.task import LimitedTeacher, Task
from db3kd.distillation.evaluation import predict, share_equal
from db3kd.querying import decide_all


@dataclass(frozen=True)
class Cell:
    """One student of the benchmark; without images, `images` is 0."""

    images: int
    budget: int
    method: str
    seed: int

    @property
    def folder(self) -> str:
        """The name of the run folder."""
        return f"{self.images}-{self.budget}-{self.method.replace(' ', '-')}-{self.seed}"


def main() -> None:
    """Trains what is missing, and writes the result after each student."""
    options = _options()
    trained = trained_teacher(options)
    decisions = decide_all(trained.teacher, trained.test.read, torch.arange(len(trained.test)))
    rows = rows_so_far(options.save, {name: getattr(options, name) for name in _COMPARED})
    known = {tuple(row[name] for name in Cell.__annotations__) for row in rows}
    for cell in _cells(options):
        if tuple(vars(cell).values()) in known:
            continue
        row = _row(cell, trained, decisions, options)
        rows.append(row)
        print(
            f"{cell.folder}: {row['accuracy']:.2%} / {row['agreement']:.2%}, "
            f"{row['queries']:,} queries, {row['seconds']:.0f} s",
            flush=True,
        )
        keep(options, _result(options, trained, rows))


_COMPARED = ("steps", "student")
"""Options that all rows of a result share."""


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    fitting = WITH_IMAGES if options.images else WITHOUT_IMAGES
    methods = [name for name in options.methods or fitting if name in fitting]
    for seed, budget, method in itertools.product(range(options.seeds), options.budgets, methods):
        yield Cell(options.images, budget, method, seed)


def _row(
    cell: Cell, trained: TrainedTeacher, decisions: torch.Tensor, options: argparse.Namespace
) -> dict[str, Any]:
    task = make_task(cell, trained, options)
    started, cpu = time.monotonic(), time.process_time()
    extracted = ({**WITH_IMAGES, **WITHOUT_IMAGES})[cell.method](task)
    predicted = predict(extracted.student, trained.test)
    queries = extracted.facts.get("queries", task.teacher.asked)
    if task.teacher.asked > queries:
        raise RuntimeError(
            f"{cell.method}: expected the {task.teacher.asked:,} queries that the teacher counted, "
            f"got a report of {queries:,}"
        )
    return {
        **vars(cell),
        "accuracy": share_equal(predicted, trained.test_labels),
        "agreement": share_equal(predicted, decisions),
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        "student_steps": options.steps,
        "queries": queries,
        **extracted.facts,
    }


def make_task(cell: Cell, trained: TrainedTeacher, options: argparse.Namespace) -> Task:
    """Makes the task of a cell, with the pool of its seed."""
    order = torch.randperm(
        len(trained.train), generator=torch.Generator().manual_seed(1000 + cell.seed)
    )
    return Task(
        teacher=LimitedTeacher(trained.teacher, cell.budget),
        pool=trained.train.subset(order[: cell.images]) if cell.images else None,
        budget=cell.budget,
        student=options.student,
        steps=options.steps,
        seed=cell.seed,
        folder=options.runs / trained.train.name / cell.folder,
    )


def _result(
    options: argparse.Namespace, trained: TrainedTeacher, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "data": trained.train.name,
        "teacher": "lenet5",
        "teacher_accuracy": trained.accuracy,
        **{name: getattr(options, name) for name in _COMPARED},
        "rows": rows,
    }


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=20000, help="images at hand; 0 for none")
    options.add_argument("--budgets", type=int, nargs="+", default=[1000], help="total queries")
    options.add_argument(
        "--methods", nargs="+", choices=[*WITH_IMAGES, *WITHOUT_IMAGES],
        help="all that fit --images by default",
    )  # fmt: skip
    options.add_argument("--student", default="lenet5-half", help="the architecture of students")
    options.add_argument("--steps", type=int, default=1500, help="of every full training")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--runs", type=Path, default=Path("runs/extraction"))
    chosen = options.parse_args()
    fitting = WITH_IMAGES if chosen.images else WITHOUT_IMAGES
    wrong = [name for name in chosen.methods or [] if name not in fitting]
    if wrong:
        options.error(
            f"--methods: expected methods {'with' if chosen.images else 'without'} images, got "
            f"{', '.join(wrong)}; pass another --images"
        )
    return chosen


if __name__ == "__main__":
    main()
