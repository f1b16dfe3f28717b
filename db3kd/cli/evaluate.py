"""`db3kd evaluate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.option_sets import COMMON, expand_option_sets
from db3kd.cli.options import TEACHER_HELP, Device, ImageOptions, ModelFileOptions, Split

if TYPE_CHECKING:
    from torch import Tensor

    from db3kd.data.image_set import ImageSet
    from db3kd.teachers import Teacher

_READ_ROWS = 1024


@expand_option_sets
def evaluate(
    model: Annotated[
        str, typer.Option("--model", "--teacher", help="What to evaluate. " + TEACHER_HELP)
    ],
    images: ImageOptions,
    described: ModelFileOptions,
    agree_with: Annotated[
        str | None,
        typer.Option(
            "--agree-with",
            help="A teacher to compare decisions with, one query per image. " + TEACHER_HELP,
            rich_help_panel=COMMON,
        ),
    ] = None,
    split: Split = "test",
    device: Device = "auto",
) -> None:
    """Measure a student's or teacher's accuracy, and how often it decides like another.

    Example:

        db3kd evaluate --model student.safetensors --data mnist5k --agree-with teacher.safetensors
    """
    from db3kd.data.class_names import matched, renumbered
    from db3kd.teachers.base import class_names_of

    loaded = images.source(split).load()
    if loaded.labels is None and agree_with is None:
        raise ValueError(f"data: {loaded.name} has no labels to compare with; give --agree-with")
    loaded.check()
    asked = described.load(model, loaded, device)
    decisions = _decide_all(asked, loaded)
    if loaded.labels is not None:
        right = int((decisions == matched(loaded, asked).labels).sum())
        print(f"accuracy   {right / len(loaded):.2%} ({right:,} of {len(loaded):,} {split} images)")
    if agree_with is not None:
        teacher = described.load(agree_with, loaded, device)
        decisions = renumbered(
            decisions, class_names_of(asked), class_names_of(teacher), model, agree_with
        )
        alike = int((decisions == _decide_all(teacher, loaded)).sum())
        print(f"agreement  {alike / len(loaded):.2%} ({alike:,} of {len(loaded):,} images)")
        print(f"queries    {len(loaded):,}, asked of {agree_with}")


def _decide_all(teacher: "Teacher", images: "ImageSet") -> "Tensor":
    import torch

    from db3kd.querying.search import fitting_batch_size
    from db3kd.teachers import decide_checked
    from db3kd.teachers.rescaled import takes_unit_images

    teacher = takes_unit_images(teacher)
    rows = torch.arange(len(images)).split(fitting_batch_size(_READ_ROWS, images.image_shape))
    return torch.cat([decide_checked(teacher, images.read(part)) for part in rows])
