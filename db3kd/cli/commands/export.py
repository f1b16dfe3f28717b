"""The `db3kd export` command."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from db3kd.cli.options.sets import OptionSet, common_option, expand_option_sets, refuse_options
from db3kd.cli.options.shared import ImageOptions, Split, load_split_or_all
from db3kd.cli.options.teacher import parse_shape
from db3kd.cli.outputs import refuse_existing
from db3kd.cli.rows import print_row
from db3kd.errors import ArgumentError, OutputExistsError
from db3kd.wording import counted

if TYPE_CHECKING:
    from db3kd.data.image_set import ImageSet


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(OptionSet):
    """Options for what the student's file does not declare."""

    model: Annotated[
        str | None,
        typer.Option(
            help="Network of the weights: lenet5, … or package.module:factory.",
            show_default="as the file states",
        ),
    ] = None
    image_shape: Annotated[
        str | None,
        typer.Option(help="Shape of an image such as 1,28,28, if the file does not state it."),
    ] = None
    classes: Annotated[
        int | None, typer.Option(min=2, help="Number of classes, if the file does not state it.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class CheckOptions(ImageOptions):
    """The images that the file is checked on."""

    data: Annotated[
        str | None,
        common_option(
            help="Images or rows to check the file on, as for db3kd evaluate.",
            show_default="random ones",
        ),
    ] = None  # type: ignore[assignment]  # images are optional here
    split: Split = "test"

    def load(self, student: Path) -> "ImageSet | None":
        """Loads the images; None without --data. The student declares the features of a table."""
        if self.data is None:
            refuse_options(self, "needs --data")
            return None
        return load_split_or_all(self.source(self.split, str(student)))[0]


@expand_option_sets
def export(
    student: Annotated[
        Path,
        typer.Argument(
            metavar="STUDENT",
            help="A weights file, a folder with a student, or a .toml description.",
            show_default=False,
        ),
    ],
    *,
    format: Annotated[
        Literal["onnx", "torchscript", "pt2", "safetensors"] | None,
        common_option(help="Format of the file.", show_default="by the suffix of --out"),
    ] = None,
    out: Annotated[
        Path | None,
        common_option(
            help="New .onnx, .pt, .pt2 or .safetensors file.", show_default="beside the student"
        ),
    ] = None,
    network: NetworkOptions,
    check: CheckOptions,
) -> None:
    """Write a student as one file for deployment: ONNX, TorchScript, an exported program, weights.

    The file declares the shape and bounds of its inputs, the class names and the threshold. It
    accepts batches of any size. It is written only if its decisions on 1,000 images or rows equal
    those of the student.

    For example:

        db3kd export student.safetensors --format onnx

        db3kd export runs/mine --out digits.pt2 --data mnist5k
    """
    from db3kd.export import export_model
    from db3kd.export.formats import format_of, suffix_of
    from db3kd.export.student import student_file

    file = student_file(student)
    if out is None:
        if format is None:
            raise ArgumentError(
                "format",
                "expected onnx, torchscript, pt2 or safetensors, or a file with such a "
                "suffix as out=",
            )
        out = file.with_suffix(suffix_of(format))
    if format not in (None, format_of(out)):
        raise ArgumentError(
            "out", f"expected a name ending in {suffix_of(format)}, got {out.name!r}"
        )
    if out.is_file() and file.is_file() and out.stat().st_mtime < file.stat().st_mtime:
        raise OutputExistsError(
            f"{out}: already exists, and is older than {file.name}, so it may hold an earlier "
            "student; remove it, or pass another --out"
        )
    another = "pass another --out"
    refuse_existing(out, advice=another if out == file else f"remove it, or {another}")
    images = check.load(file)
    result = export_model(
        file,
        out,
        model=network.model,
        image_shape=parse_shape(network.image_shape),
        classes=network.classes,
        images=images,
    )
    print(
        f"{result.path}: makes the same decisions as {file.name} on "
        f"{counted(result.images, result.noun)}"
    )
    print_row("classes", f"{result.classes_decided} among these decisions")
    print_row("difference", f"at most {result.largest_difference:.2g} between scores")
