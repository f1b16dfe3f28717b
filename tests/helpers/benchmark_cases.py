"""A small teacher with its data, for benchmarks that would train one."""

import torch

from benchmarks.common.generated import generated_images
from benchmarks.common.setting import TrainedTeacher
from db3kd.data.image_set import ImageSet
from db3kd.models import build_model
from db3kd.teachers import ModuleTeacher

SHAPE, CLASSES = (1, 28, 28), 3


def small_trained() -> TrainedTeacher:
    """A linear teacher of generated images, whose train split is also the test split."""
    images, labels = generated_images(SHAPE, CLASSES, 60, 0, torch.device("cpu"))
    train = ImageSet.from_arrays(images, labels, "generated", CLASSES)
    torch.manual_seed(0)
    network = build_model("linear", SHAPE, CLASSES).eval()
    return TrainedTeacher(network, ModuleTeacher(network, SHAPE, CLASSES), train, train, 1.0)
