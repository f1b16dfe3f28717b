"""The best student that a budget buys: `db3kd.distill` by each strategy, at equal total queries.

The teacher is trained on the whole train split. For each seed, other images of that split are the
transfer set; their labels are not used. Every student of a table trains for the same number of
steps, and test images are used once, at its end. The white box learns from the teacher's logits for
freshly mixed images, which no budget buys: it is the ceiling of this student and length.

    python -m benchmarks.students.budgets --data DIR --teacher FILE --runs DIR --save NAME

Runs that differ only in their student send the same queries, so the later ones reuse the answers
and the proxies of the first. With `--answers-of`, all students learn the answers of other runs,
for example without proxies (`--proxies 0`).

The result is written after each student. Runs stay in their folders, so that a stopped benchmark
goes on where it was.
"""

import argparse
import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import db3kd
from benchmarks.common.cells import Cell, images_of_seed, measure_cells
from benchmarks.common.setting import TrainedTeacher, parser, trained_teacher
from benchmarks.students.white_box import train_white_box
from db3kd.data.image_set import ImageSet
from db3kd.models import build_model
from db3kd.pipelines.distill_settings import LEARNING_RATES
from db3kd.planning import STRATEGIES, plan_budget
from db3kd.training.settings import TrainSettings

_WHITE_BOX = "white box, patient"

_SPENT_PER_IMAGE = {_WHITE_BOX: 0, "decisions": 1, "sd": 1}
"""The most queries per image that each of these spends, whatever the budget is."""


@dataclass(frozen=True)
class BudgetCell(Cell):
    """A student that a strategy makes with a budget."""

    queries_per_sample: float
    student: str
    strategy: Any
    seed: int

    @property
    def budget(self) -> int:
        """The queries of all stages."""
        return round(self.images * self.queries_per_sample)

    @property
    def folder(self) -> str:
        """The name of the run folder."""
        return f"{self.images}-{self.queries_per_sample}-{self.student}-{self.strategy}-{self.seed}"

    def run_folder(self, runs: Path, students: Sequence[str], answers: Path | None = None) -> Path:
        """Returns the run folder; a new one is a copy of a run with the same answers, if any.

        Args:
            runs: The folder of all runs.
            students: The students of the benchmark, whose runs send the same queries.
            answers: The folder of other runs, whose copies a new run must be; None for no others.

        Raises:
            ValueError: If the other runs lack this one.
        """
        folder = runs / self.folder
        known = [runs / replace(self, student=other).folder for other in students]
        if answers is not None:
            known = [answers / self.folder]
            if not known[0].exists():
                raise ValueError(f"--answers-of: expected a run in {known[0]}, found none")
        for source in known:
            if not folder.exists() and source.exists():
                shutil.copytree(source, folder)
        return folder


def main() -> None:
    """Trains what is missing, and writes the result after each student."""
    options = _options()
    trained = trained_teacher(options)

    def train(cell: BudgetCell) -> tuple[nn.Module, dict[str, Any]] | None:
        try:
            return _train(cell, trained, options)
        except ValueError as error:
            print(f"{cell.folder}: {error}", flush=True)
            return None

    measure_cells(options, trained, _cells(options), train, ("steps", "proxies"))


def _cells(options: argparse.Namespace) -> Iterator[BudgetCell]:
    names = [*options.strategies, *([_WHITE_BOX] if options.white_box else [])]
    for seed, count, per_sample, student, strategy in itertools.product(
        range(options.seeds), options.images, options.per_sample, options.students, names
    ):
        spends = _spent_per_image(strategy, per_sample)
        earlier = options.per_sample[: options.per_sample.index(per_sample)]
        if spends in [_spent_per_image(strategy, each) for each in earlier]:
            continue  # it would be the same student
        yield BudgetCell(count, per_sample, student, strategy, seed)


def _spent_per_image(strategy: str, per_sample: float) -> float:
    return min(per_sample, _SPENT_PER_IMAGE.get(strategy, per_sample))


def _train(
    cell: BudgetCell, trained: TrainedTeacher, options: argparse.Namespace
) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the student, and what else is kept about it."""
    images = images_of_seed(trained, cell.images, cell.seed)
    training = _training(options, cell.seed)
    if cell.strategy == _WHITE_BOX:
        return _white_box(cell, images, trained, training), {"queries": 0}
    settings = db3kd.DistillSettings(training=training, proxies=options.proxies)
    name = trained.train.name
    answers = options.answers_of and options.answers_of / name
    folder = cell.run_folder(options.runs / name, options.students, answers)
    result = db3kd.distill(
        trained.teacher,
        images,
        budget=cell.budget,
        student=cell.student,
        strategy=cell.strategy,
        settings=settings,
        out=folder,
        resume=folder.exists(),
    )
    return result.student, {
        "queries": result.queries,
        "held_out_agreement": result.agreement,
        "held_out": result.held_out,
        "choices": [
            {"question": each.question, "chosen": each.chosen, "options": dict(each.options)}
            for each in result.choices
        ],
    }


def _white_box(
    cell: BudgetCell, images: ImageSet, trained: TrainedTeacher, training: TrainSettings
) -> nn.Module:
    """Trains on the images that the students of the same seed train on.

    The learning rate is the one that `auto` starts from, and takes unless another is better.
    """
    plan = plan_budget(max(cell.budget, 10 * cell.images), trained.classes, cell.images)
    return train_white_box(
        partial(build_model, cell.student, images.image_shape, trained.classes),
        trained.network,
        images.subset(torch.arange(plan.training_images)),
        replace(training, learning_rate=LEARNING_RATES[0]),
    )


def _training(options: argparse.Namespace, seed: int) -> TrainSettings:
    return replace(db3kd.DistillSettings().training, steps=options.steps, seed=seed, device="cpu")


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    several: Callable[..., Any] = partial(options.add_argument, nargs="+")
    several("--images", type=int, default=[1000], help="sizes of the transfer set")
    several("--per-sample", type=_number, default=[10], help="total queries, divided by the images")
    several("--students", default=["lenet5-half"], help="architectures")
    several("--strategies", default=["auto", "augmented", "decisions"], choices=STRATEGIES)
    options.add_argument("--white-box", action="store_true", help="add the ceiling")
    options.add_argument("--proxies", type=int, default=db3kd.DistillSettings().proxies)
    options.add_argument("--steps", type=int, default=3000, help="of every full training")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--runs", type=Path, default=Path("runs/budgets"))
    options.add_argument(
        "--answers-of",
        type=Path,
        metavar="RUNS",
        help="finished runs (their --runs) whose answers the students learn, without a query",
    )
    return options.parse_args()


if __name__ == "__main__":
    main()
