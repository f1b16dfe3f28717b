"""The content of exported files: ONNX, TorchScript, exported programs and weights.

Graphs are recorded from one batch of two images, with a batch dimension of any size.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from db3kd.errors import ArgumentError
from db3kd.export.check import ExportError
from db3kd.export.image_values import where_values_are_read
from db3kd.export.student import DeployedStudent
from db3kd.extras import import_extra
from db3kd.models.metadata import METADATA_FILE, as_header
from db3kd.models.weights import weights_file
from db3kd.wording import first_line

ExportFormat = Literal["onnx", "torchscript", "pt2", "safetensors"]

FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
"""The formats that `export_model` writes."""

SUFFIXES: dict[str, ExportFormat] = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".ts": "torchscript",
    ".pt2": "pt2",
    ".safetensors": "safetensors",
}
"""The format that each suffix of a file stands for."""

INPUT, OUTPUT = "images", "scores"
"""The names of the input and output of an ONNX graph."""


def format_of(path: Path) -> ExportFormat:
    """Returns the format that a file's suffix stands for.

    Raises:
        ValueError: If the suffix is unknown.
    """
    if path.suffix not in SUFFIXES:
        raise ArgumentError(
            "out", f"expected a name ending in {', '.join(SUFFIXES)}, got {path.name!r}"
        )
    return SUFFIXES[path.suffix]


def suffix_of(kind: ExportFormat) -> str:
    """Returns the usual suffix of a format."""
    return next(suffix for suffix, each in SUFFIXES.items() if each == kind)


def encode(student: DeployedStudent, kind: ExportFormat) -> bytes:
    """Encodes a student in a file format.

    Raises:
        ExportError: If the network cannot be converted.
        ModuleNotFoundError: If the format needs a package that is not installed.
        ValueError: If the format cannot hold the student.
    """
    if kind == "safetensors":
        return _weights(student)
    writers: dict[str, Callable[[DeployedStudent, Tensor], bytes]] = {
        "onnx": _onnx,
        "torchscript": _torchscript,
        "pt2": _exported_program,
    }
    if kind == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            import_extra(package, "onnx", "export to ONNX")
    shape = student.teacher.image_shape
    example = torch.zeros(2, *shape, dtype=torch.float32)
    with _quiet(), torch.no_grad():
        try:
            return writers[kind](student, example)
        except ExportError:
            raise
        except Exception as error:  # exporters raise many kinds, and show the network's own
            first = first_line(error)
            raise ExportError(
                "student",
                f"{student.teacher.name} cannot be converted to {kind} ({first}); choose "
                f"another format: {', '.join(each for each in FORMATS if each != kind)}",
            ) from error


def _weights(student: DeployedStudent) -> bytes:
    if student.preprocessing:
        raise ArgumentError(
            "out",
            f"weights cannot hold the preprocessing of {student.teacher.name}; choose "
            "onnx, torchscript or pt2",
        )
    if student.model is None:
        raise ArgumentError(
            "model",
            "expected the name of the architecture, which a weights file declares, got no name; "
            "pass model= as text, 'package.module:make' for a function or class of your own, or "
            "choose onnx, torchscript or pt2",
        )
    return weights_file(student.teacher.module, student.model, student.metadata.header())


def _entries(student: DeployedStudent) -> dict[str, Any]:
    """Returns the metadata of a graph that applies the preprocessing itself."""
    steps = student.preprocessing
    return student.metadata.entries() | ({"preprocessing": steps} if steps else {})


def _metadata_file(student: DeployedStudent) -> dict[str, str]:
    return {METADATA_FILE: json.dumps(_entries(student), ensure_ascii=False)}


def _onnx(student: DeployedStudent, example: Tensor) -> bytes:
    import onnx

    # Without a program, the exporter silently tries graphs of a fixed batch size.
    program = torch.onnx.export(
        _recorded(student, example),
        (example,),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=_any_batch(),
    )
    assert program is not None  # it is None only if the exporter writes the file
    content = program.model_proto
    onnx.helper.set_model_props(content, as_header(_entries(student)))
    return content.SerializeToString()


def _torchscript(student: DeployedStudent, example: Tensor) -> bytes:
    file = io.BytesIO()
    network = student.make_network()
    _check_traceable(network, student)
    traced = torch.jit.trace(network, example, check_trace=False)  # checked as a file
    torch.jit.save(traced, file, _extra_files=_metadata_file(student))
    return file.getvalue()


def _check_traceable(network: nn.Module, student: DeployedStudent) -> None:
    """Checks what TorchScript would record wrongly without an error, or could not read again.

    Raises:
        ExportError: If the network cannot be traced.
    """
    named = (network.named_modules(), network.named_parameters(), network.named_buffers())
    names = (part for each in named for name, _ in each for part in name.split("."))
    if (name := next((each for each in names if not each.isascii()), None)) is not None:
        raise ExportError(
            "student",
            f"expected ASCII names of modules and weights for torchscript, got {name!r} in "
            f"{student.teacher.name}; rename it, or choose another format: onnx, pt2, safetensors",
        )
    if (place := where_values_are_read(network, student.teacher.image_shape)) is not None:
        raise ExportError(
            "student",
            f"{student.teacher.name} cannot be converted to torchscript, because its code reads "
            f"values of its images ({place}), and the file would keep those of one batch; compute "
            "with tensors instead, such as torch.where(condition, a, b) in place of if, or choose "
            "another format: safetensors",
        )


def _exported_program(student: DeployedStudent, example: Tensor) -> bytes:
    file = io.BytesIO()
    program = _recorded(student, example)
    torch.export.save(program, file, extra_files=_metadata_file(student))
    return file.getvalue()


def _recorded(student: DeployedStudent, example: Tensor) -> torch.export.ExportedProgram:
    program = torch.export.export(student.make_network(), (example,), dynamic_shapes=_any_batch())
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of the network's source, and names of its files
    return program


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1)},)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides exporter warnings that say nothing about the student.

    TorchScript is deprecated but still deployed. The tracer warns of constants, also of harmless
    ones that come from shapes; `_check_traceable` finds the others. torch warns of its own code,
    and of torchvision, which is not needed.
    """
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning, torch.jit.TracerWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        log.setLevel(level)
