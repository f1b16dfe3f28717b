"""The options that benchmarks share, and a trained teacher with its data."""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.common.record import plain_parser
from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.models import build_model, model_names, read_saved_model, save_model
from db3kd.teachers import ModuleTeacher
from db3kd.training.evaluation import evaluate
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier


@dataclass(frozen=True)
class TrainedTeacher:
    """A network trained on all of a train split, as a teacher.

    Attributes:
        network: The network, for figures that need its logits or gradients.
        teacher: The same network as a teacher.
        train: The train split.
        test: The test split.
        accuracy: The share of test images that the network classifies correctly.
    """

    network: nn.Module
    teacher: ModuleTeacher
    train: ImageSet
    test: ImageSet
    accuracy: float

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.teacher.classes

    @property
    def test_labels(self) -> Tensor:
        """The true classes of the test images, [N] int64."""
        return true_labels(self.test)


def parser(description: str | None, default_data: str = "mnist5k") -> argparse.ArgumentParser:
    """Makes a parser with the options that all benchmarks have; it shows the description as is."""
    options = plain_parser(description)
    options.add_argument(
        "--data", default=default_data, help="data set, such as a folder of IDX files"
    )
    options.add_argument("--teacher", type=Path, help="weight file; trained and written if missing")
    options.add_argument(
        "--teacher-model", choices=model_names(), default="lenet5", help="its architecture"
    )
    options.add_argument("--teacher-epochs", type=int, default=10)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    return options


def load_network(options: argparse.Namespace, train: ImageSet) -> nn.Module:
    """Loads the network of `options.teacher`, or trains it and writes the file."""
    shape, classes, model = train.image_shape, class_count(train), options.teacher_model
    make = partial(build_model, model, shape, classes)
    if options.teacher is not None and options.teacher.exists():
        saved = read_saved_model(options.teacher)
        metadata = saved.metadata
        found = None if metadata is None else (metadata.image_shape, metadata.classes)
        if saved.model != model or found != (shape, classes):
            described = "weights only"
            if metadata is not None:
                described = f"{saved.model} for {metadata.classes} of {metadata.image_shape}"
            raise SystemExit(
                f"--teacher: expected {model} for {classes} classes of {shape}, got {described} "
                f"in {options.teacher}; pass --teacher-model, or another file"
            )
        network = make()
        network.load_state_dict(saved.state)
        return network.eval()
    settings = TrainSettings(epochs=options.teacher_epochs, device="cpu")
    network = train_classifier(make, train, true_labels(train), settings=settings)
    if options.teacher is not None:
        options.teacher.parent.mkdir(parents=True, exist_ok=True)
        save_model(options.teacher, network, model=model, image_shape=shape, classes=classes)
    return network


def trained_teacher(
    options: argparse.Namespace,
    splits: tuple[ImageSet, ImageSet] | None = None,
    *,
    compile: bool = False,
) -> TrainedTeacher:
    """Makes the network of `options.teacher_model`, and a teacher of it.

    The splits are those of `options.data` by default. `compile` compiles the
    teacher, for runs that do not measure its speed.
    """
    train, test = splits or (load_data(options.data, "train"), load_data(options.data, "test"))
    torch.set_num_threads(options.threads)
    network = load_network(options, train)
    accuracy = evaluate(network, test, true_labels(test))
    name = options.teacher_model
    print(f"teacher: {name}, {accuracy:.2%} of {len(test):,} test images of {train.name}")
    teacher = ModuleTeacher(network, train.image_shape, class_count(train), compile=compile)
    return TrainedTeacher(network, teacher, train, test, accuracy)


def true_labels(images: ImageSet) -> Tensor:
    """The labels of a set that must have some, [N] int64."""
    if images.labels is None:
        raise SystemExit(f"--data: expected images with labels, got {images.name} without")
    return images.labels


def class_count(images: ImageSet) -> int:
    """The number of classes of a set that must have some."""
    if images.classes is None:
        raise SystemExit(f"--data: expected images with classes, got {images.name} without")
    return images.classes
