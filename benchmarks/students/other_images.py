"""Networks trained on random answers, and their agreement on other images of the train split.

Settings may be chosen by this agreement. Test images must not be used for that.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.record import measure_missing
from benchmarks.common.setting import TrainedTeacher
from db3kd.answers.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.querying import decide_all
from db3kd.training.evaluation import predict, share_equal

_MEASURED = 5000
"""The number of images that agreement is measured on."""

_HELD_OUT = 20
"""The number of held-out images, by which a training shows its progress."""


@dataclass(frozen=True)
class OtherImages:
    """The images of one seed: some to learn from, and others to measure on.

    Attributes:
        trained: The teacher and its train split.
        images: How many images networks learn from.
        seed: Seed of the choice of images and of their augmentation.
    """

    trained: TrainedTeacher
    images: int
    seed: int

    def answers(self, count: int) -> Answers:
        """Asks about every image, then about augmented versions of each, and held-out images.

        Args:
            count: How many answers there are to train on.
        """
        chosen = self._order[: self.images + _HELD_OUT]
        images = augmentable_images(
            self.trained.train.subset(chosen), torch.arange(len(chosen)), _HELD_OUT, self.seed
        )
        numbers = torch.arange(count)
        rows = numbers % self.images * NUMBERS + numbers // self.images
        rows = torch.cat([rows, torch.arange(self.images, len(chosen)) * NUMBERS])
        return no_answers(images).add(rows, decide_all(self.trained.teacher, images.read, rows))

    def agreement(self, network: nn.Module) -> float:
        """Returns the agreement of a network with the teacher on the other images, in [0, 1]."""
        others = self.trained.train.subset(self._order[self.images + _HELD_OUT :][-_MEASURED:])
        decisions = decide_all(self.trained.teacher, others.read, torch.arange(len(others)))
        return share_equal(predict(network, others), decisions)

    @property
    def _order(self) -> Tensor:
        generator = torch.Generator().manual_seed(1000 + self.seed)
        return torch.randperm(len(self.trained.train), generator=generator)


def measure_rows(
    options: argparse.Namespace,
    trained: TrainedTeacher,
    cells: Iterable[Mapping[str, Any]],
    agreement: Callable[..., float],
    shared: Iterable[str],
) -> None:
    """Measures the cells that are missing, and writes the result after each.

    Args:
        options: The options of `setting.parser`, and those in `shared`.
        trained: The teacher.
        cells: What tells the rows apart, by the names of the arguments of `agreement`.
        agreement: Returns the agreement of a cell.
        shared: Names of the options that all rows of a result have in common.
    """
    common = {name: getattr(options, name) for name in shared} | {
        "data": trained.train.name,
        "teacher": options.teacher_model,
        "teacher_accuracy": trained.accuracy,
    }

    def measure(cell: Mapping[str, Any]) -> dict[str, float]:
        found = {"agreement": agreement(**cell)}
        print({**cell, **found}, flush=True)
        return found

    measure_missing(options, common, ((cell, partial(measure, cell)) for cell in cells))
