"""What the benchmarks share: their options, and a trained teacher."""

import argparse
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.distillation.student import evaluate, train_classifier
from db3kd.distillation.training import TrainSettings
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.teachers import ModuleTeacher


def parser(description: str | None, default_data: str = "mnist5k") -> argparse.ArgumentParser:
    """A parser with the options all benchmarks have."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--data", default=default_data, help="data set, such as a directory of IDX files"
    )
    options.add_argument("--teacher", type=Path, help="weight file; trained and kept if missing")
    options.add_argument("--teacher-epochs", type=int, default=10)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--save", metavar="NAME", help="keep the result as results/NAME.json")
    return options


def kept_network(options: argparse.Namespace, train: ImageSet, model: str = "lenet5") -> nn.Module:
    """A network trained on all of `train`, read from `options.teacher` where that exists."""
    shape, classes = train.image_shape, train.classes
    make = partial(build_model, model, shape, classes)
    if options.teacher is not None and options.teacher.exists():
        network = make()
        network.load_state_dict(load_file(options.teacher))
        return network.eval()
    settings = TrainSettings(epochs=options.teacher_epochs, device="cpu")
    network = train_classifier(make, train, train.labels, settings)
    if options.teacher is not None:
        options.teacher.parent.mkdir(parents=True, exist_ok=True)
        save_model(options.teacher, network, model=model, image_shape=shape, classes=classes)
    return network


def teacher_and_data(
    options: argparse.Namespace, *, compile: bool = False
) -> tuple[nn.Module, ModuleTeacher, ImageSet, ImageSet, float]:
    """The network, the teacher it is, its data's train and test split, and its test accuracy."""
    train, test = load_data(options.data, "train"), load_data(options.data, "test")
    network, teacher, accuracy = teacher_of(options, train, test, compile=compile)
    return network, teacher, train, test, accuracy


def teacher_of(
    options: argparse.Namespace, train: ImageSet, test: ImageSet, *, compile: bool = False
) -> tuple[nn.Module, ModuleTeacher, float]:
    """The network of a train split, the teacher it is, and its accuracy on the test split.

    compile: as for `ModuleTeacher`, for runs in which the teacher's speed is not the subject.
    """
    torch.set_num_threads(options.threads)
    network = kept_network(options, train)
    accuracy = evaluate(network, test, test.labels)
    print(f"teacher: lenet5, {accuracy:.2%} of {len(test):,} test images of {train.name}")
    teacher = ModuleTeacher(network, train.image_shape, train.classes, compile=compile)
    return network, teacher, accuracy
