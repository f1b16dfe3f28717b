"""A teacher made of an ONNX file, run by ONNX Runtime."""

import ast
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.images import UNIT_BOUNDS, check_class_names
from db3kd.arguments.plain import check_count
from db3kd.models.metadata import ModelMetadata
from db3kd.teachers.base import TeacherError, teacher_repr
from db3kd.teachers.cpu_batch import batch_for_images
from db3kd.teachers.given_images import as_images
from db3kd.teachers.onnx.files import open_session, read_onnx
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.signature import ModelOverrides, TensorSpec, resolve
from db3kd.wording import counted, first_line

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
"""Metadata keys under which exporters keep class names; Ultralytics, for example, uses "names"."""


class OnnxTeacher:
    """A teacher that returns the class of an ONNX model, or the argmax of its scores.

    Example:
        >>> OnnxTeacher("digits.onnx", preprocessing=Preprocessing(scale=(0, 255)))

    Args:
        path: The `.onnx` file. Its weights are in it, or in files beside it that it names, such as
            the `.onnx.data` of `torch.onnx.export`.
        overrides: What neither the model's graph nor the metadata of `export_model` declares.
        preprocessing: The steps from db3kd's images to the model's input.
        max_batch: Maximum number of images per run of the model. The default on a CPU is 256, or
            fewer for large images (see `cpu_batch`); on a GPU it is eight times as many.
        device: "cpu", or "cuda" or "cuda:N" with a CUDA build of ONNX Runtime.
        name: The name in errors; by default the file's name.

    Raises:
        TeacherError: If ONNX Runtime cannot read the file, or a file of weights is missing.
        ValueError: If the arguments contradict the model, or if information is missing.
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
        file = read_onnx(path)
        self._session = open_session(file, torch.device(device))
        inputs = [_declared(node, path) for node in self._session.get_inputs()]
        outputs = [
            _declared(node, path)
            for node in self._session.get_outputs()
            if node.type.startswith("tensor(")  # classifiers from scikit-learn also have maps
        ]
        overrides, preprocessing = overrides or ModelOverrides(), preprocessing or Preprocessing()
        properties = self._session.get_modelmeta().custom_metadata_map
        overrides = _completed(overrides, preprocessing, properties, path)
        self._signature = resolve(f"teacher {self.name}", inputs, outputs, overrides, preprocessing)
        self.preprocessing = self._signature.preprocessing
        self.image_shape = self._signature.image_shape
        self.classes = self._signature.classes
        self.bounds = self.preprocessing.bounds
        self.device = torch.device("cpu")  # of the images; ONNX Runtime copies them to its device
        if max_batch is None:
            input_shape = self.preprocessing.input_shape(self.image_shape)
            max_batch = batch_for_images(input_shape)
            max_batch *= 1 if torch.device(device).type == "cpu" else 8
        self.max_batch = self._signature.batch or check_count(max_batch, "max_batch")
        self.features = overrides.features
        self.class_names = self._signature.class_names or _names_in(properties, self.classes)
        output, reader = self._signature.output.name, self._signature.reader
        identity = (self.preprocessing, output, reader.identity(), reader.names)
        digest = hashlib.sha256(file.content)
        for part in (*file.weights.values(), repr(identity).encode()):
            digest.update(part)
        self._fingerprint = digest.hexdigest()

    def __repr__(self) -> str:
        return teacher_repr(self)

    def decide(self, images: Tensor) -> Tensor:
        """Returns the class of each image; see `Teacher.decide`.

        Raises:
            TeacherError: If ONNX Runtime fails, or the model's answers are not classes or scores.
        """
        images = as_images(images, self)
        if len(images) == 0:
            return torch.empty(0, dtype=torch.int64)
        chunks = [self._decide_chunk(chunk) for chunk in images.split(self.max_batch)]
        return torch.cat(chunks).to(images.device)

    def fingerprint(self) -> str:
        """Returns the SHA-256 digest of model and preprocessing, and one of the class names."""
        return self._fingerprint

    def details(self) -> Iterator[tuple[str, str]]:
        """Yields names and values that `db3kd info` shows in addition to those of every teacher."""
        provider = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        yield "runs on", f"ONNX Runtime, {provider}"
        yield from self.preprocessing.details()

    def _decide_chunk(self, images: Tensor) -> Tensor:
        array = self.preprocessing(images)
        missing = (self._signature.batch or len(array)) - len(array)
        if missing:
            array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        who = f"teacher {self.name}"
        try:
            answers = self._session.run(
                [self._signature.output.name], {self._signature.input.name: array}
            )[0]
        except Exception as error:  # ONNX Runtime's own exceptions share no base
            raise TeacherError(f"{who}: ONNX Runtime failed: {first_line(error)}") from error
        if np.ndim(answers) == 0 or len(answers) != len(array):
            raise TeacherError(
                f"{who}: expected {counted(len(array), 'answer')}, got an array of shape "
                f"{np.shape(answers)}"
            )
        return self._signature.reader.read(answers[: len(images)], len(images), who)


def _completed(
    overrides: ModelOverrides,
    preprocessing: Preprocessing,
    properties: Mapping[str, str],
    path: Path,
) -> ModelOverrides:
    """Returns the declarations, completed with the metadata of `export_model` if there are any."""
    try:
        declared = ModelMetadata.from_header(properties)
    except (TypeError, ValueError) as error:
        raise TeacherError(f"{path}: its metadata are damaged ({error})") from error
    if declared is None:
        return overrides
    user_decides: tuple[str, ...] = ()
    if preprocessing != Preprocessing():
        user_decides += ("bounds",)
    if dataclasses.replace(preprocessing, bounds=UNIT_BOUNDS) != Preprocessing():
        user_decides += ("image_shape",)  # the file declares the images behind these steps
    if overrides.numbering is not None:
        user_decides += ("classes", "class_names")
    return dataclasses.replace(
        overrides.completed(declared, path),
        **{name: getattr(overrides, name) for name in user_decides},
    )


def _names_in(metadata: Mapping[str, str], classes: int) -> tuple[str, ...] | None:
    """Returns the class names in a model's metadata if there is one for each class.

    Exporters write a list, or a map from numbers to names, as JSON or as a Python literal.
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


def _declared(node: Any, path: Path) -> TensorSpec:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _DTYPES:
        raise TeacherError(f"{path}: expected tensors of numbers, got {node.name!r}: {node.type}")
    known = [size if isinstance(size, int) and size > 0 else -1 for size in node.shape]
    return TensorSpec(node.name, _DTYPES[kind], tuple(known) or None)
