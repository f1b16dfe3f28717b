"""`db3kd teacher`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from db3kd.cli.option_sets import expand_option_sets
from db3kd.cli.options import ImageOptions, Model, TrainingDevice, TrainingOptions, refuse_existing


@expand_option_sets
def teacher(
    images: ImageOptions,
    out: Annotated[
        Path, typer.Option("--out", help="The .safetensors file to write. It must be new.")
    ],
    training: TrainingOptions,
    model: Model = "lenet5",
    epochs: Annotated[
        int,
        typer.Option(
            "--epochs",
            min=1,
            help="Passes over the training images.",
            rich_help_panel="Training",
        ),
    ] = 10,
    device: TrainingDevice = "auto",
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
    train, test = (images.source(split).load() for split in ("train", "test"))
    for part in (train, test):
        if part.labels is None:
            raise ValueError(f"data: expected labels to train and test on, {part.name} has none")
    test = match_classes(test, train.class_names, train.classes, f"the split {train.name}")
    settings = TrainSettings(
        epochs=epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        seed=training.seed,
        device=device,
        precision=training.precision,
    )
    make = partial(build_model, model, train.image_shape, train.classes)
    with counted("training the teacher", settings.total_steps(len(train)), "steps") as show:
        network = train_classifier(make, train, train.labels, settings, progress=show)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_model(
        out,
        network,
        model=model,
        image_shape=train.image_shape,
        classes=train.classes,
        class_names=train.class_names,
    )
    accuracy = evaluate(network, test, test.labels)
    described = manifest(
        {"model": model, "data": images.data, "training": settings},
        seed=training.seed,
        teacher_fingerprint=load_teacher(out).fingerprint(),
        data_fingerprint=train.fingerprint(),
    )
    write_manifest(beside, described | {"queries": 0, "test_accuracy": accuracy})
    print(f"{out}: {accuracy:.1%} of {len(test):,} test images ({images.data})")
