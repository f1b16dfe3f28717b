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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.common.cells import Cell, images_of_seed, measure_cells
from benchmarks.common.setting import TrainedTeacher, parser, trained_teacher
from benchmarks.extraction.methods import WITH_IMAGES, WITHOUT_IMAGES
from benchmarks.extraction.task import LimitedTeacher, Task


@dataclass(frozen=True)
class MethodCell(Cell):
    """A student that a method makes with a budget."""

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

    def train(cell: MethodCell) -> tuple[nn.Module, dict[str, Any]]:
        return _extract(cell, make_task(cell, trained, options))

    measure_cells(options, trained, _cells(options), train, ("steps", "student"))


def _cells(options: argparse.Namespace) -> Iterator[MethodCell]:
    fitting = WITH_IMAGES if options.images else WITHOUT_IMAGES
    methods = [name for name in options.methods or fitting if name in fitting]
    for seed, budget, method in itertools.product(range(options.seeds), options.budgets, methods):
        yield MethodCell(options.images, budget, method, seed)


def _extract(cell: MethodCell, task: Task) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the student, and what else is kept about it."""
    extracted = ({**WITH_IMAGES, **WITHOUT_IMAGES})[cell.method](task)
    queries = extracted.facts.get("queries", task.teacher.asked)
    if task.teacher.asked > queries:
        raise RuntimeError(
            f"{cell.method}: expected the {task.teacher.asked:,} queries that the teacher counted, "
            f"got a report of {queries:,}"
        )
    return extracted.student, {"student_steps": task.steps, "queries": queries, **extracted.facts}


def make_task(cell: MethodCell, trained: TrainedTeacher, options: argparse.Namespace) -> Task:
    """Makes the task of a cell, with the pool of its seed."""
    return Task(
        teacher=LimitedTeacher(trained.teacher, cell.budget),
        pool=images_of_seed(trained, cell.images, cell.seed) if cell.images else None,
        budget=cell.budget,
        student=options.student,
        steps=options.steps,
        seed=cell.seed,
        folder=options.runs / trained.train.name / cell.folder,
    )


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
