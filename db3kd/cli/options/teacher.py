"""Options of models that commands load: what a file does not declare, and how a teacher runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from db3kd.cli.errors import naming_options
from db3kd.cli.options.sets import OptionSet, common_option
from db3kd.cli.options.shared import DEVICE_HELP
from db3kd.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from db3kd.data.image_set import ImageSet
    from db3kd.tables import Features
    from db3kd.teachers import Teacher

TEACHER_HELP = "a weights or ONNX file, an address, a .toml description, or package.module:name."

Device = Annotated[str, typer.Option("--device", help=DEVICE_HELP, rich_help_panel="Teacher")]


@dataclass(frozen=True, kw_only=True)
class ModelFileOptions(OptionSet):
    """Options for what a model does not declare about itself."""

    panel = "Teacher"

    image_shape: Annotated[
        str | None,
        common_option(
            help="Shape of an image, such as 1,28,28, if neither the model nor the data "
            "declares it."
        ),
    ] = None
    classes: Annotated[
        int | None,
        common_option(
            min=2, help="Number of classes, if neither the model nor the data declares it."
        ),
    ] = None
    class_names: Annotated[
        str | None,
        typer.Option(
            help="Class names such as ant,bee, or a text file with one name per line, if the model "
            "declares none."
        ),
    ] = None
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Network of a weights file that does not name it: lenet5, … or "
            "package.module:factory."
        ),
    ] = None
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code", help="Load files that contain code (TorchScript, .pt2) and run it."
        ),
    ] = False

    def load(
        self,
        source: str,
        images: "ImageSet | None",
        device: str,
        features: "Features | None" = None,
        assumed_classes: int | None = None,
        assumed_class_names: "Sequence[str] | None" = None,
        **execution: Any,
    ) -> "Teacher":
        """Loads a teacher or student.

        Args:
            source: The model, as `load_teacher` takes it.
            images: Images that supply the shape, the number of classes and the features of a table
                if nothing else does.
            device: The value of a --device option.
            features: The features of a table, by default those of the images.
            assumed_classes: The number of classes if nothing else declares it, by default that of
                the images.
            assumed_class_names: Their names if neither --class-names nor the model states them.
            execution: How a torch module runs, as `load_teacher` takes it.
        """
        from db3kd.teachers import load_teacher

        if assumed_classes is None and images is not None:
            assumed_classes = images.classes
        with naming_options(model="--architecture"):
            return load_teacher(
                source,
                model=self.architecture,
                image_shape=parse_shape(self.image_shape),
                classes=self.classes,
                device=_resolve_device(device),
                assumed_shape=None if images is None else images.image_shape,
                assumed_classes=assumed_classes,
                assumed_class_names=_class_names(self.class_names) or assumed_class_names,
                features=images.features if features is None and images is not None else features,
                trust_code=self.trust_code,
                **execution,
            )


@dataclass(frozen=True, kw_only=True)
class TeacherSource(OptionSet):
    """The teacher, in its own class so that it is the first option of `TeacherOptions`."""

    teacher: Annotated[str, common_option(help=f"The teacher: {TEACHER_HELP}")]


@dataclass(frozen=True, kw_only=True)
class TeacherOptions(ModelFileOptions, TeacherSource):
    """The teacher to query, and how it runs."""

    device: Device = "auto"
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of images or rows per call of the teacher.",
            show_default="chosen for the model",
        ),
    ] = None
    autocast: Annotated[
        Literal["bf16", "fp16"] | None, typer.Option(help="Run a torch teacher in mixed precision.")
    ] = None
    compile: Annotated[
        bool, typer.Option("--compile", help="Run a torch teacher through torch.compile.")
    ] = False
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Run a torch teacher as CUDA graphs.")
    ] = False

    def open(self, images: "ImageSet | None" = None) -> "Teacher":
        """Loads the teacher; `images` as for `load`."""
        return self.load(
            self.teacher,
            images,
            self.device,
            max_batch=self.max_batch,
            autocast=self.autocast,
            compile=self.compile,
            cuda_graphs=self.cuda_graphs,
        )


def _class_names(text: str | None) -> tuple[str, ...] | None:
    """Returns the names in the text of a --class-names option, or in the file that it names."""
    from db3kd.teachers.class_numbers import checked_names, read_names

    if text is None:
        return None
    if "," not in text or Path(text).is_file():
        if not Path(text).is_file():
            raise ArgumentError(
                "class_names",
                f"expected names separated by commas, such as ant,bee, or a text file, got {text!r}"
                "; there is no such file",
            )
        return read_names(text)
    return checked_names(text.split(","), "--class-names", "separated by commas")


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """Returns the sizes in the text of an --image-shape option."""
    if text is None:
        return None
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(
            "image_shape", f"expected sizes such as 1,28,28, got {text!r}"
        ) from None
    if len(sizes) == 2:
        raise ArgumentError(
            "image_shape",
            f"expected channels, height and width, got {text!r} without channels; use "
            f"1,{text} for grey images or 3,{text} for colour images",
        )
    return sizes


def _resolve_device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
