"""Tables of students: one row for each cell, written as soon as it is measured."""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.common.record import measure_missing
from benchmarks.common.setting import TrainedTeacher
from db3kd.data.image_set import ImageSet
from db3kd.querying import decide_all
from db3kd.training.evaluation import predict, share_equal


@dataclass(frozen=True)
class Cell:
    """One student of a table. Each benchmark adds what else tells its students apart.

    Attributes:
        images: The number of images at hand; 0 if there are none.
    """

    images: int

    @property
    def folder(self) -> str:
        """The name of the run folder."""
        raise NotImplementedError


Train = Callable[[Any], tuple[nn.Module, dict[str, Any]] | None]
"""From a cell to its student and what else is kept about it; None if there is no student."""


def images_of_seed(trained: TrainedTeacher, count: int, seed: int) -> ImageSet:
    """Draws train images, other ones for each seed."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return trained.train.subset(torch.randperm(len(trained.train), generator=generator)[:count])


def measure_cells(
    options: argparse.Namespace,
    trained: TrainedTeacher,
    cells: Iterable[Cell],
    train: Train,
    shared: Sequence[str],
) -> None:
    """Trains the students that are missing, and writes the result after each.

    Args:
        options: The options of `setting.parser`, and those in `shared`.
        trained: The teacher. Its test images are used once for each student.
        cells: The students of the table.
        train: Trains the student of a cell. What it returns must contain `queries`.
        shared: Names of the options that all rows of a result have in common.
    """
    decisions = decide_all(trained.teacher, trained.test.read, torch.arange(len(trained.test)))

    def measure(cell: Cell) -> dict[str, Any] | None:
        started, cpu = time.monotonic(), time.process_time()
        made = train(cell)
        if made is None:
            return None
        student, facts = made
        predicted = predict(student, trained.test)
        found = {
            "accuracy": share_equal(predicted, trained.test_labels),
            "agreement": share_equal(predicted, decisions),
            "seconds": time.monotonic() - started,
            "cpu_seconds": time.process_time() - cpu,
            **facts,
        }
        print(
            f"{cell.folder}: {found['accuracy']:.2%} / {found['agreement']:.2%}, "
            f"{found['queries']:,} queries, {found['seconds']:.0f} s",
            flush=True,
        )
        return found

    measure_missing(
        options,
        {name: getattr(options, name) for name in shared},
        ((asdict(cell), partial(measure, cell)) for cell in cells),
        {
            "data": trained.train.name,
            "teacher": options.teacher_model,
            "teacher_accuracy": trained.accuracy,
        },
    )
