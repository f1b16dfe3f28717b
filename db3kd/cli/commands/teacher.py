"""The `db3kd teacher` command."""

from pathlib import Path
from typing import Annotated

import typer

from db3kd.cli.options.sets import expand_option_sets
from db3kd.cli.options.shared import DefaultModel, ImageOptions
from db3kd.cli.options.training import TrainingDevice, TrainingOptions
from db3kd.cli.outputs import check_weights_file
from db3kd.wording import counted, input_noun


@expand_option_sets
def teacher(
    images: ImageOptions,
    out: Annotated[Path, typer.Option(help="New .safetensors file.")],
    training: TrainingOptions,
    model: DefaultModel = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training data.", rich_help_panel="Training")
    ] = 10,
    device: TrainingDevice = "auto",
) -> None:
    """Train a teacher on the true classes of the train split, and test it on the test split.

    The number of epochs is fixed, so the test images influence no choice. A .json file next to
    the weights records how they were made.

    For example:

        db3kd teacher --data mnist5k --model lenet5 --epochs 10 --out teacher.safetensors
    """
    from db3kd.data.class_names import match_classes
    from db3kd.data.image_set import true_classes
    from db3kd.models.networks import default_model
    from db3kd.pipelines.teacher_training import train_teacher
    from db3kd.storage.manifest import make_manifest, write_manifest
    from db3kd.teachers import load_teacher
    from db3kd.training.evaluation import evaluate

    check_weights_file(out)
    train, test = (images.source(split).load() for split in ("train", "test"))
    _, classes = true_classes(train)
    test = match_classes(test, train.class_names, classes, f"the split {train.name}")
    test_labels, _ = true_classes(test)
    settings = training.settings(device, epochs=epochs).completed()
    model = model or default_model(train.image_shape, "lenet5")
    network = train_teacher(train, model, settings, out)
    accuracy = evaluate(network, test, test_labels)
    described = make_manifest(
        {"model": model, "data": images.data, "training": settings},
        seed=training.seed,
        teacher_fingerprint=load_teacher(out).fingerprint(),
        classes=classes,
        data_fingerprint=train.fingerprint(),
    )
    write_manifest(out.with_suffix(".json"), described | {"queries": 0, "test_accuracy": accuracy})
    tested = counted(len(test), f"test {input_noun(test.image_shape)}")
    print(f"{out}: {accuracy:.1%} of {tested} ({images.data})")
