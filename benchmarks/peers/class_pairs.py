"""Pairs of test images of one class with another class."""

import torch

from benchmarks.common.setting import TrainedTeacher
from db3kd.boundary import Pairs
from db3kd.teachers import decide_checked


def class_pairs(trained: TrainedTeacher, source: int, target: int, count: int) -> Pairs:
    """Pairs the first test images of a class, which the teacher decides rightly, with another one.

    Args:
        trained: The teacher and its test images.
        source: The class of the images.
        target: The class to reach.
        count: Maximum number of pairs.
    """
    test = trained.test
    decided = decide_checked(trained.teacher, test.read(range(len(test))))
    index = ((trained.test_labels == source) & (decided == source)).nonzero()[:count, 0]
    samples = test.read(index).flatten(1)
    return Pairs(samples, index, torch.arange(len(index)), torch.full_like(index, target))
