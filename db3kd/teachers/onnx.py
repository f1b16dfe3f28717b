"""An ONNX file as a teacher, run by ONNX Runtime."""

import ast
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError
from db3kd.teachers.cpu_batch import batch_for_images
from db3kd.teachers.extras import import_extra
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.signature import ModelOverrides, TensorSpec, resolve
from db3kd.validation import check_class_names, check_count

_DTYPES = {
    "float16": "float16",
    "float": "float32",
    "double": "float64",
    "uint8": "uint8",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "string": "text",
}
_NAME_KEYS = ("names", "class_names", "labels", "classes")
"""Where exporters keep class names; Ultralytics, for example, under "names"."""

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxTeacher:
    """The class that an ONNX model names, or the largest of its scores; they never leave it.

    path           the .onnx file, complete in itself: weights in files beside it are not read
    said           what the user says of the model; the rest is read from its graph
    preprocessing  from db3kd's images to the model's input
    max_batch      most images of one run of the model; by default at most 256 on a CPU, fewer of
                   large images (see `cpu_batch`), and eight times as many elsewhere
    device         cpu, or cuda or cuda:N with a CUDA build of ONNX Runtime
    name           what errors call it; by default the file's name

    Raises TeacherError for a file that ONNX Runtime cannot read, and ValueError where what is said
    contradicts the model, or something is not known.
    """

    def __init__(
        self,
        path: str | Path,
        overrides: ModelOverrides | None = None,
        preprocessing: Preprocessing | None = None,
        max_batch: int | None = None,
        device: torch.device | str = "cpu",
        *,
        name: str | None = None,
    ) -> None:
        path = Path(path)
        self.name = name or path.name
        content = path.read_bytes()
        self._session = _open(content, torch.device(device), path)
        inputs = [_declared(node, path) for node in self._session.get_inputs()]
        outputs = [_declared(node, path) for node in self._session.get_outputs() if _plain(node)]
        overrides, preprocessing = overrides or ModelOverrides(), preprocessing or Preprocessing()
        self._contract = resolve(f"teacher {self.name}", inputs, outputs, overrides, preprocessing)
        self.preprocessing = self._contract.preprocessing
        self.image_shape = self._contract.image_shape
        self.classes = self._contract.classes
        self.bounds = self.preprocessing.bounds
        self.device = torch.device("cpu")  # NumPy's; ONNX Runtime moves the images on itself
        if max_batch is None:
            input_shape = self.preprocessing.input_shape(self.image_shape)
            max_batch = batch_for_images(input_shape)
            max_batch *= 1 if torch.device(device).type == "cpu" else 8
        self.max_batch = self._contract.batch or check_count(max_batch, "max_batch")
        self.class_names = self._contract.class_names or _names_in(
            self._session.get_modelmeta().custom_metadata_map, self.classes
        )
        said_here = (self.preprocessing, overrides.names, self._contract.output.name)
        if identity := self._contract.reader.identity():
            said_here = (*said_here, identity)
        self._fingerprint = hashlib.sha256(content + repr(said_here).encode()).hexdigest()

    def decide(self, images: Tensor) -> Tensor:
        """images [N, *image_shape] -> int64 [N]; TeacherError for unusable answers."""
        if len(images) == 0:
            return torch.empty(0, dtype=torch.int64)
        chunks = [self._decide_chunk(chunk) for chunk in images.split(self.max_batch)]
        return torch.cat(chunks).to(images.device)

    def fingerprint(self) -> str:
        """SHA-256 hex of the file, its preprocessing and its class names."""
        return self._fingerprint

    def details(self) -> Iterator[tuple[str, str]]:
        """What `db3kd info` shows beside what every teacher has."""
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        yield "runs on", f"ONNX Runtime, {provider}"
        yield from self.preprocessing.details()

    def _decide_chunk(self, images: Tensor) -> Tensor:
        array = self.preprocessing(images)
        missing = (self._contract.batch or len(array)) - len(array)
        if missing:
            array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        who = f"teacher {self.name}"
        try:
            answers = self._session.run(
                [self._contract.output.name], {self._contract.input.name: array}
            )[0]
        except Exception as error:  # ONNX Runtime's own exceptions share no base
            raise TeacherError(f"{who}: ONNX Runtime failed: {_first_line(error)}") from error
        if np.ndim(answers) == 0 or len(answers) != len(array):
            raise TeacherError(f"{who}: expected {len(array)} answers, got {np.shape(answers)}")
        return self._contract.reader.read(answers[: len(images)], len(images), who)


def _open(content: bytes, device: torch.device, path: Path) -> Any:
    runtime = import_extra("onnxruntime", "onnx")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            raise ValueError(
                f"device: {device} needs a CUDA build of ONNX Runtime (onnxruntime-gpu), and this "
                "is not one; install it, or use cpu"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    elif device.type != "cpu":
        raise ValueError(f"device: expected cpu or cuda for an ONNX teacher, got {device}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; they are raised as well
    try:
        # Weights beside the file would be looked for in the working folder, whatever lies there.
        with tempfile.TemporaryDirectory() as empty:
            options.add_session_config_entry(_WEIGHTS_FOLDER, empty)
            session = runtime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own exceptions share no base
        raise TeacherError(
            f"{path}: cannot be read as ONNX, or needs files beside it ({_first_line(error)})"
        ) from error
    if device.type == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise TeacherError(f"{path}: ONNX Runtime could not start on {device}; use cpu")
    return session


def _names_in(metadata: Mapping[str, str], classes: int) -> tuple[str, ...] | None:
    """The class names that exporters note beside a model, if they are as many as its classes.

    A list, or numbers with their names, as JSON or as a Python literal.
    """
    for key in _NAME_KEYS:
        try:
            found = ast.literal_eval(metadata.get(key, ""))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, dict):
            numbers = {str(number): name for number, name in found.items()}
            found = [numbers.get(str(number)) for number in range(len(numbers))]
        try:
            return check_class_names(found, classes, "ONNX metadata")
        except (TypeError, ValueError):
            continue
    return None


def _plain(node: Any) -> bool:
    """Whether an output is a tensor; classifiers from scikit-learn also have maps."""
    return node.type.startswith("tensor(")


def _declared(node: Any, path: Path) -> TensorSpec:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise TeacherError(f"{path}: expected tensors of numbers, {node.name!r} is {node.type}")
    known = [size if isinstance(size, int) and size > 0 else -1 for size in node.shape]
    return TensorSpec(node.name, _DTYPES[kind], tuple(known) or None)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
