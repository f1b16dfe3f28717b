"""What benchmarks of a single labelling run share: its options, its images, what is said of it."""

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
    """A teacher, the images, the indices of those to label, and the facts for the result."""

    teacher: Teacher
    images: ImageSet
    index: Tensor
    facts: dict[str, Any]


def timed_run_parser(description: str | None) -> argparse.ArgumentParser:
    options = parser(description)
    options.add_argument("--images", type=int, default=256, help="to label; 256 are one chunk")
    options.add_argument("--among", type=int, help="images of the transfer set; all by default")
    options.add_argument("--queries-per-pair", type=int, default=200, help="of mbd")
    options.add_argument("--repeats", type=int, default=1)
    return options


def timed_run(options: argparse.Namespace) -> TimedRun:
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
