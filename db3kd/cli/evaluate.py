"""`db3kd evaluate`."""

from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.options import (
    TEACHER_HELP,
    Architecture,
    Channels,
    Classes,
    Data,
    Device,
    Shape,
    Size,
    TrustCode,
    open_teacher,
)

if TYPE_CHECKING:
    from torch import Tensor

    from db3kd.data.image_set import ImageSet
    from db3kd.teachers import Teacher

_READ_ROWS = 1024


def evaluate(
    model: Annotated[
        str, typer.Option("--model", "--teacher", help="What to evaluate. " + TEACHER_HELP)
    ],
    data: Data,
    split: Annotated[str, typer.Option("--split", help="Which part of the data.")] = "test",
    agree_with: Annotated[
        str | None,
        typer.Option(
            "--agree-with",
            help="A teacher to compare decisions with, one query an image. " + TEACHER_HELP,
        ),
    ] = None,
    architecture: Architecture = None,
    image_shape: Shape = None,
    classes: Classes = None,
    trust_code: TrustCode = False,
    size: Size = None,
    channels: Channels = None,
    device: Device = "auto",
) -> None:
    """Measure a student's or teacher's accuracy, and how often it decides like another.

    Example:

        db3kd evaluate --model student.safetensors --data mnist5k --agree-with teacher.safetensors
    """
    from db3kd.data.class_names import matched, renumbered
    from db3kd.labelling.source import Source
    from db3kd.teachers.base import class_names_of

    images = Source(data, split, size, channels).load()
    if images.labels is None and agree_with is None:
        raise ValueError(f"data: {images.name} has no labels to compare with; give --agree-with")
    images.check()
    described = {"image_shape": image_shape, "classes": classes, "trust_code": trust_code}
    asked = open_teacher(model, images, architecture, device, **described)
    decisions = _decide_all(asked, images)
    if images.labels is not None:
        right = int((decisions == matched(images, asked).labels).sum())
        print(f"accuracy   {right / len(images):.2%} ({right:,} of {len(images):,} {split} images)")
    if agree_with is not None:
        teacher = open_teacher(agree_with, images, architecture, device, **described)
        decisions = renumbered(
            decisions, class_names_of(asked), class_names_of(teacher), model, agree_with
        )
        alike = int((decisions == _decide_all(teacher, images)).sum())
        print(f"agreement  {alike / len(images):.2%} ({alike:,} of {len(images):,} images)")
        print(f"queries    {len(images):,}, asked of {agree_with}")


def _decide_all(teacher: "Teacher", images: "ImageSet") -> "Tensor":
    import torch

    from db3kd.querying.search import fitting_batch_size
    from db3kd.teachers import decide_checked
    from db3kd.teachers.rescaled import takes_unit_images

    teacher = takes_unit_images(teacher)
    rows = torch.arange(len(images)).split(fitting_batch_size(_READ_ROWS, images.image_shape))
    return torch.cat([decide_checked(teacher, images.read(part)) for part in rows])
