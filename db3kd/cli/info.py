"""The `db3kd info` command."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from db3kd.cli.option_sets import COMMON, expand_option_sets
from db3kd.cli.teacher_options import TEACHER_HELP, ModelFileOptions

if TYPE_CHECKING:
    from db3kd.teachers import Teacher

_PACKAGES = (
    "db3kd",
    "torch",
    "numpy",
    "accelerate",
    "datasets",
    "safetensors",
    "pyarrow",
    "onnxruntime",
    "tritonclient",
)


@expand_option_sets
def info(
    model_file: ModelFileOptions,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            help=f"Describe this teacher: {TEACHER_HELP}",
            rich_help_panel=COMMON,
        ),
    ] = None,
) -> None:
    """Show how db3kd was built and where it runs, or describe a teacher.

    For example:

        db3kd info

        db3kd info --teacher teacher.safetensors
    """
    if teacher is None:
        _print_rows([*_build_rows(), *_device_rows(), *_version_rows()])
    else:
        _print_rows(_teacher_rows(model_file.load(teacher, None, "cpu")))


def _build_rows() -> Iterable[tuple[str, str]]:
    from db3kd.ops import build_config

    build = build_config()
    cuda = f"CUDA {build['cuda_version']}" if build["cuda"] else "CPU only"
    yield "build", f"{cuda}, torch {build['torch_version']}, {build['compiler']}"
    if build["cuda"]:
        yield "architectures", str(build["architectures"])


def _device_rows() -> Iterable[tuple[str, str]]:
    import torch

    yield "cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in torch"
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        yield f"cuda:{number}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


def _version_rows() -> Iterable[tuple[str, str]]:
    yield "python", platform.python_version()
    for package in _PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "not installed"


def _teacher_rows(teacher: "Teacher") -> Iterable[tuple[str, str]]:
    from db3kd.teachers.base import class_names_of
    from db3kd.validation import number_text

    yield "image shape", " x ".join(map(str, teacher.image_shape))
    yield "classes", str(teacher.classes)
    if (names := class_names_of(teacher)) is not None:
        yield "class names", ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    yield "bounds", " to ".join(map(number_text, teacher.bounds))
    yield "largest batch", str(teacher.max_batch)
    yield from getattr(teacher, "details", tuple)()
    yield "fingerprint", teacher.fingerprint()


def _print_rows(rows: Iterable[tuple[str, str]]) -> None:
    for name, value in rows:
        print(f"{name:14} {value}")
