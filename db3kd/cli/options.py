"""Options that several commands share, and what they stand for."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from db3kd.data.image_set import ImageSet
    from db3kd.teachers import Teacher

DATA_HELP = (
    "Images: mnist5k, digits, cifar10, flowers102, hub:NAME, a directory (IDX files, Parquet, or "
    "an image folder), or a .npz, .npy or .parquet file."
)

Data = Annotated[str, typer.Option("--data", help=DATA_HELP)]
Size = Annotated[
    int | None,
    typer.Option("--size", min=1, help="Resize image files to this many pixels a side, cropped."),
]
Channels = Annotated[
    int | None,
    typer.Option("--channels", help="Read image files as grey (1) or colour (3)."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")]
Device = Annotated[
    str,
    typer.Option("--device", help="auto (CUDA where there is a device), cpu, cuda or cuda:N."),
]
Precision = Annotated[
    str, typer.Option("--precision", help="Of training: no (float32), bf16, or fp16 (CUDA only).")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Most images in a step.")]
LearningRate = Annotated[float, typer.Option("--learning-rate", help="Adam's.")]
TEACHER_HELP = (
    "A .safetensors, .pt, .pth, .pt2 or .onnx file; an address such as "
    "http://host:8000/v2/models/NAME or grpc://host:8001/NAME; a .toml file that describes one of "
    "these; or package.module:name of a teacher, a module, a factory of one, or a function from "
    "NumPy images to classes."
)
Architecture = Annotated[
    str | None,
    typer.Option(
        "--architecture",
        help="Model of a weights file that does not name its own: lenet5, resnet18, …, or "
        "package.module:factory, called as factory(image_shape, classes).",
    ),
]
Shape = Annotated[
    str | None,
    typer.Option(
        "--image-shape", help="As 1,28,28, where neither the teacher nor the images tell."
    ),
]
Classes = Annotated[
    int | None,
    typer.Option("--classes", min=2, help="Where neither the teacher nor the images tell."),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Read TorchScript and .pt2 files, which are code and can do whatever you may.",
    ),
]
MaxBatch = Annotated[
    int | None,
    typer.Option(
        "--max-batch",
        min=1,
        help="Most images that the teacher is asked at once.",
        show_default="as many as suit the model and its images",
    ),
]
Autocast = Annotated[
    Literal["bf16", "fp16"] | None,
    typer.Option("--autocast", help="Run a torch teacher in mixed precision."),
]
Compile = Annotated[bool, typer.Option("--compile", help="Run a torch teacher by torch.compile.")]
CudaGraphs = Annotated[
    bool,
    typer.Option(
        "--cuda-graphs",
        help="Run a torch teacher as CUDA graphs, so that small batches cost one launch each.",
    ),
]


def running_options(
    max_batch: int | None, autocast: str | None, compile: bool, cuda_graphs: bool
) -> dict[str, Any]:
    """How to run a teacher, as `load_teacher` takes it."""
    import torch

    dtypes = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}
    return {
        "max_batch": max_batch,
        "autocast": dtypes[autocast],
        "compile": compile,
        "cuda_graphs": cuda_graphs,
    }


def open_teacher(
    source: str,
    images: "ImageSet | None",
    architecture: str | None,
    device: str,
    running: Mapping[str, Any] | None = None,
    *,
    image_shape: str | None = None,
    classes: int | None = None,
    trust_code: bool = False,
) -> "Teacher":
    """The teacher a command line names.

    What neither the options, its file, its address nor its object tells (image shape and classes)
    is taken from the images. running: as from `running_options`.
    """
    from db3kd.teachers import load_teacher

    return load_teacher(
        source,
        model=architecture,
        image_shape=_parse_shape(image_shape),
        classes=classes,
        device=resolve_device(device),
        assumed_shape=None if images is None else images.image_shape,
        assumed_classes=None if images is None else images.classes,
        trust_code=trust_code,
        **(running or {}),
    )


def _parse_shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"image-shape: expected sizes as 1,28,28, got {text!r}") from None


def given(**options: Any) -> dict[str, Any]:
    """The options that a command line gave; those left out are None."""
    return {name: value for name, value in options.items() if value is not None}


def resolve_device(name: str) -> str:
    """A torch device for a --device option."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def parse_counts(text: str) -> tuple[int, ...]:
    """The numbers of a --snapshots option."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"snapshots: expected numbers as 5,10,20, got {text!r}") from None


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
