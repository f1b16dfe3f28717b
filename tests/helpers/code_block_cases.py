"""What the code blocks of a page need before they run: names, files, and small settings."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import db3kd

IMAGES = 400
STEPS = 5


def use_small_settings(patch: pytest.MonkeyPatch) -> None:
    """Lets `db3kd` load few images and train briefly, so that pages can show useful settings."""
    load_data, settings, distill = db3kd.load_data, db3kd.TrainSettings, db3kd.distill

    def few_images(*arguments: Any, **options: Any) -> db3kd.ImageSet:
        images = load_data(*arguments, **options)
        return images.subset(range(min(IMAGES, len(images))))

    def few_steps(**options: Any) -> db3kd.TrainSettings:
        options["steps"] = min(STEPS, options.get("steps") or STEPS)
        return settings(**options | {"epochs": None})

    def short(*arguments: Any, **options: Any) -> db3kd.DistillResult:
        given = options.get("settings") or db3kd.DistillSettings()
        training = dataclasses.replace(given.training, steps=STEPS)
        chosen = dataclasses.replace(
            given, training=training, learning_rates=(3e-3,), proxies=1, time_limit=None
        )
        return distill(*arguments, **options | {"settings": chosen})

    patch.setattr(db3kd, "load_data", few_images, raising=False)
    patch.setattr(db3kd, "TrainSettings", few_steps, raising=False)
    patch.setattr(db3kd, "distill", short, raising=False)


class Network(torch.nn.Sequential):
    """A small network of a user's own."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 10))


def digits_run(folder: Path) -> dict[str, Any]:
    """Writes a run of the digits, labelled by a linear network, as runs/mine."""
    torch.manual_seed(0)
    images = db3kd.ImageSet.from_arrays(torch.rand(1000, 1, 8, 8), torch.arange(1000) % 10)
    teacher = db3kd.ModuleTeacher(Network(), (1, 8, 8), 10)
    settings = db3kd.LabelSettings(measure="sd")
    labels = db3kd.label(teacher, images, settings, out=folder / "runs/mine", progress=False)
    labels = db3kd.with_soft_labels(labels, scale=4.0, temperature=4.0)
    return {"teacher": teacher, "images": images, "labels": labels}


def guide(folder: Path) -> dict[str, Any]:
    """The names that the guide takes for granted."""
    import datasets
    import pandas

    found = digits_run(folder)
    images, labels = found["images"], found["labels"]
    return found | {
        "db3kd": db3kd,
        "torch": torch,
        "pandas": pandas,
        "datasets": datasets,
        "MyNetwork": Network,
        "network": Network(),
        "images": images,
        "labels": dataclasses.replace(labels),
    }


def deploy(folder: Path) -> dict[str, Any]:
    """An exported student of MNIST's shape, images for it, and an exported student of a table."""
    import pandas

    network = db3kd.build_model("lenet5-fifth", (1, 28, 28), 10)
    names = tuple(f"digit {number}" for number in range(10))
    teacher = db3kd.ModuleTeacher(network, (1, 28, 28), 10, class_names=names)
    for suffix in ("onnx", "pt2"):
        db3kd.export_model(teacher, folder / f"student.{suffix}")
    features = db3kd.Features(
        [
            db3kd.Feature.integer("age", 18, 99),
            db3kd.Feature.continuous("income", 0, 250_000),
            db3kd.Feature.categorical("plan", ["basic", "pro", "team"]),
        ],
        as_frame=True,
    )
    table = torch.nn.Linear(len(features.unit_names), 2)
    student = db3kd.ModuleTeacher(table, features.unit_shape, 2, features=features)
    db3kd.export_model(student, folder / "churn.onnx")
    return {"images": torch.rand(3, 1, 28, 28), "db3kd": db3kd, "pandas": pandas}


def zero_shot(folder: Path) -> dict[str, Any]:
    """Writes pseudo samples of a linear network as those of runs/none."""
    teacher = db3kd.ModuleTeacher(Network(), (1, 8, 8), 10)
    settings = db3kd.SynthesisSettings(samples=8)
    db3kd.synthesize(teacher, settings, out=folder / "runs/none/pseudo-samples", progress=False)
    return {}


BEFORE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "docs/guide.md": guide,
    "docs/deploy.md": deploy,
    "docs/zero-shot.md": zero_shot,
}
"""For pages that take more for granted than an installed db3kd."""


def check_tabular(names: dict[str, Any]) -> None:
    """Checks what the examples of the page of tables made."""
    assert names["student"].features == names["teacher"].features
    assert names["result"].queries == 5000
    assert names["seen"].shape == (80, 3)


AFTER: dict[str, Callable[[dict[str, Any]], None]] = {"docs/tabular.md": check_tabular}
"""Checks of the names that the blocks of a page leave."""

RUN_COMMANDS = {"docs/get-started.md"}
"""Pages whose commands run too, after the Python blocks above them. Elsewhere they are checked."""

NOT_RUN: dict[str, int] = {}
"""The number of Python blocks of a page that are marked as not to be run."""
