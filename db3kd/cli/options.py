"""Options that several commands share, and what they stand for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from db3kd.cli.errors import naming_options
from db3kd.cli.option_sets import COMMON, OptionSet

if TYPE_CHECKING:
    from db3kd.data.image_set import ImageSet
    from db3kd.labelling.source import Source
    from db3kd.teachers import Teacher

DATA_HELP = (
    "Images: mnist5k, digits, cifar10, flowers102, hub:NAME, a directory (IDX files, Parquet or an "
    "image folder), or a .npz, .npy or .parquet file."
)
TEACHER_HELP = (
    "A .safetensors, .pt, .pth, .pt2 or .onnx file; an address such as "
    "http://host:8000/v2/models/NAME or grpc://host:8001/NAME; a .toml file that describes one of "
    "these; or package.module:name of a teacher, a module, a factory, or a function from NumPy "
    "images to classes."
)

Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all random numbers.")]
Device = Annotated[
    str,
    typer.Option("--device", help="auto (CUDA if there is a GPU), cpu, cuda or cuda:N."),
]
TrainingDevice = Annotated[
    str,
    typer.Option(
        "--device",
        help="auto (CUDA if there is a GPU), cpu, cuda or cuda:N.",
        rich_help_panel="Training",
    ),
]
Split = Annotated[
    str, typer.Option("--split", help="Part of the data set.", rich_help_panel="Images")
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=1,
        help="Use only this many images, drawn at random by --seed.",
        rich_help_panel=COMMON,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in --out if teacher, data and settings are the same. Nothing that "
        "was answered is asked again.",
        rich_help_panel=COMMON,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="Architecture: lenet5, lenet5-half, alexnet, resnet18, …, or package.module:factory.",
        rich_help_panel=COMMON,
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        "--seeds",
        min=1,
        help="Number of students, with seeds --seed, --seed + 1, ….",
        rich_help_panel=COMMON,
    ),
]


@dataclass(frozen=True, kw_only=True)
class ImageOptions(OptionSet):
    """Which images a command uses."""

    panel = "Images"

    data: Annotated[str, typer.Option("--data", help=DATA_HELP, rich_help_panel=COMMON)]
    size: Annotated[
        int | None,
        typer.Option(
            "--size", min=1, help="Resize image files to this many pixels per side, cropped."
        ),
    ] = None
    channels: Annotated[
        int | None,
        typer.Option("--channels", help="Read image files as grey (1) or colour (3)."),
    ] = None

    def source(self, split: str) -> "Source":
        """Returns the images of a split as a run stores them."""
        from db3kd.labelling.source import Source

        return Source(self.data, split, self.size, self.channels)


@dataclass(frozen=True, kw_only=True)
class ModelFileOptions(OptionSet):
    """What a model does not state about itself, and where it runs."""

    panel = "Teacher"

    image_shape: Annotated[
        str | None,
        typer.Option(
            "--image-shape",
            help="Image shape such as 1,28,28, if neither the teacher nor the images state it.",
            rich_help_panel=COMMON,
        ),
    ] = None
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes",
            min=2,
            help="Number of classes, if neither the teacher nor the images state it.",
            rich_help_panel=COMMON,
        ),
    ] = None
    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture",
            help="Architecture of a weights file that does not name its own: lenet5, resnet18, …, "
            "or package.module:factory, called as factory(image_shape, classes).",
        ),
    ] = None
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code",
            help="Load TorchScript and .pt2 files, which are code and can do whatever you can.",
        ),
    ] = False

    def load(
        self, source: str, images: "ImageSet | None", device: str, **execution: Any
    ) -> "Teacher":
        """Loads a teacher or student.

        Args:
            source: What `load_teacher` takes.
            images: Supply image shape and number of classes if nothing else does.
            device: Value of a --device option.
            execution: How a torch module runs, as for `load_teacher`.
        """
        from db3kd.teachers import load_teacher

        with naming_options(model="--architecture"):
            return load_teacher(
                source,
                model=self.architecture,
                image_shape=_parse_shape(self.image_shape),
                classes=self.classes,
                device=resolve_device(device),
                assumed_shape=None if images is None else images.image_shape,
                assumed_classes=None if images is None else images.classes,
                trust_code=self.trust_code,
                **execution,
            )


@dataclass(frozen=True, kw_only=True)
class TeacherOptions(ModelFileOptions):
    """The teacher that is asked, and how it runs."""

    teacher: Annotated[str, typer.Option("--teacher", help=TEACHER_HELP, rich_help_panel=COMMON)]
    device: Device = "auto"
    max_batch: Annotated[
        int | None,
        typer.Option(
            "--max-batch",
            min=1,
            help="Maximum number of images per call of the teacher.",
            show_default="as many as suit the model and its images",
        ),
    ] = None
    autocast: Annotated[
        Literal["bf16", "fp16"] | None,
        typer.Option("--autocast", help="Run a torch teacher in mixed precision."),
    ] = None
    compile: Annotated[
        bool, typer.Option("--compile", help="Run a torch teacher through torch.compile.")
    ] = False
    cuda_graphs: Annotated[
        bool,
        typer.Option(
            "--cuda-graphs",
            help="Run a torch teacher as CUDA graphs, so that a small batch costs one launch.",
        ),
    ] = False

    def open(self, images: "ImageSet | None" = None) -> "Teacher":
        """Loads the teacher; `images` as for `load`."""
        import torch

        dtypes = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}
        return self.load(
            self.teacher,
            images,
            self.device,
            max_batch=self.max_batch,
            autocast=dtypes[self.autocast],
            compile=self.compile,
            cuda_graphs=self.cuda_graphs,
        )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(OptionSet):
    """How a single network is trained."""

    panel = "Training"

    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Maximum number of images per step.")
    ] = 128
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Learning rate of Adam.")
    ] = 1e-3
    precision: Annotated[
        str, typer.Option("--precision", help="no (float32), bf16, or fp16 (CUDA only).")
    ] = "no"
    seed: Seed = 0


def _parse_shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"image_shape: expected sizes such as 1,28,28, got {text!r}") from None


def given(**options: Any) -> dict[str, Any]:
    """Returns the options that were given; the others are None."""
    return {name: value for name, value in options.items() if value is not None}


def resolve_device(name: str) -> str:
    """Returns the torch device of a --device option."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def parse_counts(text: str) -> tuple[int, ...]:
    """Returns the numbers of a --snapshots option."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"snapshots: expected numbers such as 5,10,20, got {text!r}") from None


@contextmanager
def hint_at_resuming(*runs: Path) -> Iterator[None]:
    """Says what is kept of what the runs have paid for, if an error ends them."""
    from db3kd.storage.run_folder import holds_run
    from db3kd.teachers import TeacherError

    try:
        yield
    except (TeacherError, OSError, KeyboardInterrupt) as error:
        if any(map(holds_run, runs)) and not isinstance(error, BlockingIOError):
            print(_what_is_kept(runs), file=sys.stderr)
        raise


def _what_is_kept(runs: tuple[Path, ...]) -> str:
    from db3kd.storage.run_folder import queries_unanswered

    try:
        unanswered = sum(map(queries_unanswered, runs))
    except (ValueError, OSError) as error:
        return f"what was answered is kept, but a journal cannot be read: {error}"
    if unanswered:
        return (
            f"what was answered is kept, but for at most {unanswered:,} queries in flight, which "
            "will be asked again; go on with --resume"
        )
    return "what was answered is kept; go on with --resume"


def refuse_existing(path: Path) -> None:
    """Raises FileExistsError: nothing is overwritten, and that is said before the work."""
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path}: exists already; choose another --out, or remove it")
