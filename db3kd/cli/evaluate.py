"""The `db3kd evaluate` command."""

from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.option_sets import COMMON, expand_option_sets
from db3kd.cli.options import ImageOptions, Split, load_test_or_all
from db3kd.cli.teacher_options import TEACHER_HELP, Device, ModelFileOptions

if TYPE_CHECKING:
    from torch import Tensor

    from db3kd.data.image_set import ImageSet
    from db3kd.teachers import Teacher


@expand_option_sets
def evaluate(
    model: Annotated[
        str, typer.Option("--model", "--teacher", help=f"The model to measure: {TEACHER_HELP}")
    ],
    model_file: ModelFileOptions,
    images: ImageOptions,
    agree_with: Annotated[
        str | None,
        typer.Option(
            "--agree-with",
            help="Teacher to compare decisions with; costs one query per image.",
            rich_help_panel=COMMON,
        ),
    ] = None,
    device: Device = "auto",
    split: Split = "test",
) -> None:
    """Measure the accuracy of a student or teacher, and its agreement with another model.

    For example:

        db3kd evaluate --model student.safetensors --data mnist5k --agree-with teacher.safetensors
    """
    from db3kd.data.class_names import matched, renumbered
    from db3kd.teachers.base import class_names_of

    source = images.source(split)
    loaded = load_test_or_all(source) if split == "test" else source.load()
    if loaded.labels is None and agree_with is None:
        raise ValueError(
            f"data: expected images with true classes, got none in {loaded.name}; pass --agree-with"
        )
    loaded.check()
    evaluated = model_file.load(model, loaded, device)
    decisions = _decide_all(evaluated, loaded)
    labels = None if loaded.labels is None else matched(loaded, evaluated).labels
    if labels is not None:
        correct = int((decisions == labels).sum())
        print(f"accuracy   {correct / len(loaded):.2%} ({correct:,} of {len(loaded):,} images)")
    if agree_with is not None:
        teacher = model_file.load(agree_with, loaded, device)
        decisions = renumbered(
            decisions, class_names_of(evaluated), class_names_of(teacher), model, agree_with
        )
        agreeing = int((decisions == _decide_all(teacher, loaded)).sum())
        print(f"agreement  {agreeing / len(loaded):.2%} ({agreeing:,} of {len(loaded):,} images)")
        print(f"queries    {len(loaded):,}, answered by {agree_with}")


def _decide_all(teacher: "Teacher", images: "ImageSet") -> "Tensor":
    import torch

    from db3kd.querying import decide_all
    from db3kd.teachers.rescaled import takes_unit_images

    teacher = takes_unit_images(teacher)
    return decide_all(teacher, images.read, torch.arange(len(images)))
