"""Reads ONNX files, with weights in the file or in files beside it, and opens them."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch

from db3kd.errors import ArgumentError
from db3kd.extras import import_extra
from db3kd.teachers.base import TeacherError
from db3kd.wording import first_line

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True)
class OnnxFile:
    """The content of an ONNX file.

    Attributes:
        path: The file.
        content: Its bytes.
        weights: The bytes of each file of weights, by the name that the model gives it, sorted.
    """

    path: Path
    content: bytes
    weights: dict[str, bytes]


def read_onnx(path: Path) -> OnnxFile:
    """Reads an ONNX file and the files of weights that it names.

    A model may name only files in its own folder or below.

    Example:
        >>> list(read_onnx(Path("digits.onnx")).weights)  # as torch.onnx.export writes it
        ['digits.onnx.data']

    Raises:
        OSError: If the file cannot be read.
        TeacherError: If it is no ONNX file, or if a file of weights is missing or elsewhere.
    """
    onnx = import_extra("onnx", "onnx")
    content = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own exceptions share no base with Python's
        raise TeacherError(f"{path}: cannot be read as ONNX ({first_line(error)})") from None
    names = sorted(set(_named_files(model, onnx.TensorProto)))
    return OnnxFile(path, content, {name: _read_weights(path, name) for name in names})


def open_session(file: OnnxFile, device: torch.device) -> Any:
    """Returns ONNX Runtime's session of a file.

    Args:
        file: The file.
        device: "cpu", or "cuda" or "cuda:N" with a CUDA build of ONNX Runtime.

    Raises:
        TeacherError: If ONNX Runtime cannot read the file or start on the device.
        ValueError: If ONNX Runtime does not have the device.
    """
    runtime = import_extra("onnxruntime", "onnx")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            raise ArgumentError(
                "device",
                f"{device} needs a CUDA build of ONNX Runtime; install onnxruntime-gpu, or use cpu",
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    elif device.type != "cpu":
        raise ArgumentError("device", f"expected cpu or cuda for an ONNX teacher, got {device}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only
    if file.weights:
        # From memory: the bytes that the fingerprint covers, even if the files are links to the
        # cache of the Hugging Face hub, which ONNX Runtime does not follow.
        options.add_external_initializers_from_files_in_memory(
            list(file.weights), list(file.weights.values()), list(map(len, file.weights.values()))
        )
    try:
        # ONNX Runtime would look for other weights in the working folder. Give it an empty one.
        with tempfile.TemporaryDirectory() as empty:
            options.add_session_config_entry(_WEIGHTS_FOLDER, empty)
            session = runtime.InferenceSession(file.content, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own exceptions share no base
        raise TeacherError(f"{file.path}: cannot be read as ONNX ({first_line(error)})") from error
    if device.type == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise TeacherError(f"{file.path}: ONNX Runtime could not start on {device}; use cpu")
    return session


def _named_files(message: Any, tensor: type) -> Iterator[str]:
    """Yields the file of each tensor whose values are not in the model, also in its subgraphs."""
    if isinstance(message, tensor):
        stored: Any = message
        if stored.data_location == stored.EXTERNAL:
            yield from (entry.value for entry in stored.external_data if entry.key == "location")
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _named_files(inner, tensor)


def _read_weights(path: Path, name: str) -> bytes:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or PureWindowsPath(name).anchor:
        raise TeacherError(
            f"{path}: expected its weights in files beside it, got {name!r}, which is outside "
            "its folder; export it again"
        )
    file = path.parent / name
    if not file.is_file():
        raise TeacherError(
            f"{path}: expected its weights in {file}, which does not exist; copy it there, or "
            "export the model with all weights inside (external_data=False of torch.onnx.export)"
        )
    return file.read_bytes()
