"""`db3kd teacher`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from db3kd.cli.options import (
    BatchSize,
    Channels,
    Data,
    Device,
    LearningRate,
    Precision,
    Seed,
    Size,
    refuse_existing,
)


def teacher(
    data: Data,
    out: Annotated[
        Path, typer.Option("--out", help="The .safetensors file to write; must not exist.")
    ],
    model: Annotated[
        str,
        typer.Option("--model", help="lenet5, alexnet, resnet18, …, or package.module:factory."),
    ] = "lenet5",
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Times through the training images; fixed.")
    ] = 10,
    batch_size: BatchSize = 128,
    learning_rate: LearningRate = 1e-3,
    size: Size = None,
    channels: Channels = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "no",
) -> None:
    """Train a teacher on the true classes of the train split, and test it on the test split.

    The epochs are fixed: the test images take no part in any choice.

    Example:

        db3kd teacher --data mnist5k --model lenet5 --epochs 10 --out teacher.safetensors

    Beside the weights a .json file of the same name says how they came about.
    """
    from db3kd.data.class_names import match_classes
    from db3kd.distillation.student import evaluate, train_classifier
    from db3kd.distillation.training import TrainSettings
    from db3kd.labelling.source import Source
    from db3kd.models import save_model
    from db3kd.models.networks import build_model
    from db3kd.progress import counted
    from db3kd.storage.manifest import manifest, write_manifest
    from db3kd.teachers import load_teacher

    if out.suffix != ".safetensors":
        raise ValueError(f"out: expected a name ending in .safetensors, got {out.name!r}")
    beside = out.with_suffix(".json")
    for file in (out, beside):
        refuse_existing(file)
    images, test = (Source(data, split, size, channels).load() for split in ("train", "test"))
    for part in (images, test):
        if part.labels is None:
            raise ValueError(f"data: expected labels to train and test on, {part.name} has none")
    test = match_classes(test, images.class_names, images.classes, f"the split {images.name}")
    settings = TrainSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        precision=precision,
    )
    make = partial(build_model, model, images.image_shape, images.classes)
    with counted("training the teacher", settings.total_steps(len(images)), "steps") as show:
        network = train_classifier(make, images, images.labels, settings, progress=show)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_model(
        out,
        network,
        model=model,
        image_shape=images.image_shape,
        classes=images.classes,
        class_names=images.class_names,
    )
    accuracy = evaluate(network, test, test.labels)
    described = manifest(
        {"model": model, "data": data, "training": settings},
        seed=seed,
        teacher_fingerprint=load_teacher(out).fingerprint(),
        data_fingerprint=images.fingerprint(),
    )
    write_manifest(beside, described | {"queries": 0, "test_accuracy": accuracy})
    print(f"{out}: {accuracy:.1%} of {len(test):,} test images ({data})")
