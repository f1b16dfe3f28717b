"""The options and the data of benchmarks that time a single labelling run."""

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.setting import parser, trained_teacher
from db3kd.data.image_set import ImageSet
from db3kd.teachers import Teacher


@dataclass(frozen=True)
class TimedRun:
    """A teacher, images, the indices of the images to label, and facts for the result."""

    teacher: Teacher
    images: ImageSet
    index: Tensor
    facts: dict[str, Any]


def timed_run_parser(description: str | None) -> argparse.ArgumentParser:
    """Makes a parser with the options of `timed_run`."""
    options = parser(description)
    options.add_argument(
        "--images", type=int, default=256, help="images to label; 256 are one chunk"
    )
    options.add_argument("--among", type=int, help="size of the transfer set (all)")
    options.add_argument("--queries-per-pair", type=int, default=200, help="budget of mbd")
    options.add_argument("--repeats", type=int, default=1)
    return options


def timed_run(options: argparse.Namespace) -> TimedRun:
    """Prepares the run that the options describe."""
    trained = trained_teacher(options)
    teacher, train = trained.teacher, trained.train
    images = train if options.among is None else train.subset(torch.arange(options.among))
    facts = {
        "data": train.name,
        "teacher_accuracy": trained.accuracy,
        "images": options.images,
        "among": len(images),
        "max_batch": teacher.max_batch,
        "queries_per_pair": options.queries_per_pair,
    }
    return TimedRun(teacher, images, torch.arange(options.images), facts)
