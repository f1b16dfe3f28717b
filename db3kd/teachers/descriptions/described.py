"""Opens the teacher that a description describes."""

import dataclasses
import hashlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from db3kd.errors import ArgumentTypeError, InputError
from db3kd.models.factories import NetworkFactory
from db3kd.models.networks import is_own_model
from db3kd.teachers.base import Teacher
from db3kd.teachers.descriptions.description import SCHEMES, Description
from db3kd.teachers.functions.function import FunctionTeacher
from db3kd.teachers.functions.generator import is_generator_function
from db3kd.teachers.named import import_object, refuse_threshold, tabular_teacher
from db3kd.teachers.onnx.teacher import OnnxTeacher
from db3kd.teachers.preprocessing import PreprocessedModule, Preprocessing
from db3kd.teachers.remote import (
    RemoteTeacher,
    RequestSettings,
    SecretHeader,
    check_secret_allowed,
    open_inference_teacher,
    rest_teacher,
    split_url,
)
from db3kd.teachers.signature import ModelOverrides
from db3kd.teachers.torch_modules.execution import ExecutionOptions
from db3kd.teachers.torch_modules.module import ModuleTeacher
from db3kd.teachers.torch_modules.torch_files import TorchFile, check_file, open_torch_file


def open_described(
    source: str,
    description: Description,
    folder: Path,
    given: ModelOverrides,
    execution: ExecutionOptions,
    *,
    model: str | NetworkFactory | None = None,
    max_batch: int | None = None,
    trust_code: bool = False,
) -> Teacher:
    """Opens a described teacher.

    Args:
        source: The description file, the ONNX file or the address; errors begin with it.
        description: What it describes.
        folder: The folder that its paths are relative to.
        given: The caller's declarations, which replace those of the description.
        execution: How to run a torch module, and the device of an ONNX model.
        model: Replaces the description's architecture.
        max_batch: Replaces the description's maximum number of images per call.
        trust_code: Whether the description may name a program or a function.

    Raises:
        FileNotFoundError: If there is no such model file.
        TeacherError: If the model cannot be read or reached.
        ValueError: If the description is incomplete, contradicts the model, or needs trust.
    """
    try:
        overrides = description.overrides(folder, given)
    except (ValueError, ArgumentTypeError, OSError) as error:
        kind = type(error) if isinstance(error, OSError) else InputError
        raise kind(f"{source}: {error}") from None
    preprocessing = description.preprocessing or Preprocessing()
    if overrides.bounds is not None:
        preprocessing = dataclasses.replace(preprocessing, bounds=overrides.bounds)
    if not description.has_torch_file and description.function is None:
        execution.refuse_for(source)
    if description.url is not None:
        return _open_served(description.url, description, overrides, preprocessing, max_batch)
    max_batch = max_batch or description.max_batch
    if description.function is not None:
        if not trust_code:
            raise InputError(
                f"{source}: declares the function {description.function!r}; a file cannot choose "
                "which code runs: if you trust it, pass trust_code=True"
            )
        return _open_function(
            source, description.function, overrides, preprocessing, max_batch, execution
        )
    file = folder / str(description.file)
    check_file(file)
    if file.suffix == ".onnx":
        name, device = Path(source).name, execution.device
        return OnnxTeacher(file, overrides, preprocessing, max_batch, device, name=name)
    named = description.architecture
    if model is None and named is not None and not is_own_model(named):
        raise InputError(
            f"{source}: declares the architecture {description.architecture!r}; a file cannot "
            "choose which code runs, so repeat the name as model="
        )
    opened = open_torch_file(
        file,
        model or description.architecture,
        _without_preprocessing(overrides, preprocessing),
        execution.device,
        trust_code=trust_code,
    )
    return _with_preprocessing(source, opened, overrides, preprocessing, max_batch, execution)


def _without_preprocessing(
    overrides: ModelOverrides, preprocessing: Preprocessing
) -> ModelOverrides:
    """Returns the declarations for the module behind the preprocessing."""
    names = overrides.class_names
    return ModelOverrides(
        image_shape=_input_shape(overrides.image_shape, preprocessing),
        classes=overrides.classes,
        threshold=overrides.threshold,
        assumed_shape=_input_shape(overrides.assumed_shape, preprocessing),
        assumed_classes=overrides.assumed_classes or (None if names is None else len(names)),
    )


def _input_shape(
    image_shape: tuple[int, ...] | None, preprocessing: Preprocessing
) -> tuple[int, ...] | None:
    return None if image_shape is None else preprocessing.input_shape(image_shape)


def _with_preprocessing(
    source: str,
    opened: TorchFile,
    overrides: ModelOverrides,
    preprocessing: Preprocessing,
    max_batch: int | None,
    execution: ExecutionOptions,
) -> ModuleTeacher:
    """Returns the teacher of images before preprocessing."""
    inner = ExecutionOptions(execution.device).module_teacher(
        opened.module,
        source,
        opened.overrides,
        opened.max_batch,
        name=Path(source).name,
        fingerprint=opened.fingerprint,
    )
    _check_range(source, inner.bounds, preprocessing)
    image_shape = (
        overrides.image_shape
        or preprocessing.image_shape(inner.image_shape)
        or overrides.assumed_shape
        or inner.image_shape
    )
    outer = ModelOverrides(
        image_shape=image_shape,
        classes=inner.classes,
        class_names=overrides.class_names or inner.class_names,
        threshold=overrides.threshold if overrides.threshold is not None else inner.threshold,
        bounds=preprocessing.bounds,
    )
    return execution.module_teacher(
        PreprocessedModule(inner.module, preprocessing),
        source,
        outer,
        opened.limit(max_batch),
        name=Path(source).name,
        fingerprint=_digest(inner, preprocessing),
    )


def _check_range(source: str, declared: tuple[float, float], preprocessing: Preprocessing) -> None:
    """Refuses preprocessing that does not end in the bounds that a weights file declares."""
    result = preprocessing.scale or preprocessing.bounds
    normalised = any(preprocessing.mean) or any(value != 1 for value in preprocessing.std)
    if declared not in ((0.0, 1.0), result) and not normalised:
        lower, upper = declared
        raise InputError(
            f"{source}: expected preprocessing that ends in [{lower:g}, {upper:g}], the bounds of "
            f"the model file, got [{result[0]:g}, {result[1]:g}]; set "
            f"scale = [{lower:g}, {upper:g}] in [preprocessing]"
        )


def _open_function(
    source: str,
    name: str,
    overrides: ModelOverrides,
    preprocessing: Preprocessing,
    max_batch: int | None,
    execution: ExecutionOptions,
) -> FunctionTeacher | ModuleTeacher:
    function = import_object(name, "function")
    if isinstance(function, nn.Module):
        opened = TorchFile(function, _without_preprocessing(overrides, preprocessing))
        return _with_preprocessing(source, opened, overrides, preprocessing, max_batch, execution)
    execution.refuse_for(source)
    refuse_threshold(name, overrides)
    if overrides.features is not None:
        if preprocessing != Preprocessing():
            raise InputError(
                f"{source}: expected no [preprocessing] of a function that takes rows of a table; "
                "it gets them as they are in the table"
            )
        return tabular_teacher(function, Path(source).name, overrides, max_batch)
    if not callable(function):
        raise InputError(
            f"{source}: function: expected {name!r} to be a function from arrays to classes, a "
            "torch module, or a function without arguments that returns either, got "
            f"{type(function).__name__}"
        )
    image_shape, classes, _ = overrides.require_all(source)
    preprocessing.input_shape(image_shape)  # raises if the steps do not fit
    inner = FunctionTeacher(function, image_shape, classes)
    return FunctionTeacher(
        _with_steps(function, preprocessing),
        image_shape,
        classes,
        preprocessing.bounds,
        max_batch,
        name=Path(source).name,
        fingerprint=_digest(inner, preprocessing),
        class_names=overrides.class_names,
    )


def _with_steps(function: Callable[..., Any], preprocessing: Preprocessing) -> Callable[..., Any]:
    """Returns a function of images before preprocessing; that of a generator is a generator."""

    def prepared(images: np.ndarray) -> np.ndarray:
        return preprocessing(torch.from_numpy(images))

    def answers_one_by_one(images: np.ndarray) -> Generator[Any, None, None]:
        yield from function(prepared(images))

    if is_generator_function(function):
        return answers_one_by_one
    return lambda images: function(prepared(images))


def _digest(inner: Teacher, preprocessing: Preprocessing) -> str:
    return hashlib.sha256(f"{inner.fingerprint()} {preprocessing}".encode()).hexdigest()


def _open_served(
    url: str,
    description: Description,
    overrides: ModelOverrides,
    preprocessing: Preprocessing,
    max_batch: int | None,
) -> RemoteTeacher:
    requests = description.requests or RequestSettings()
    if max_batch is not None:
        requests = requests.with_batch(max_batch)
    secret = None
    if (header := description.header) is not None:
        # Refuse a password in the address before an error can repeat the address.
        split_url(url, tuple(scheme.removesuffix("://") for scheme in SCHEMES))
        check_secret_allowed(header.variable, url)
        secret = SecretHeader(header.variable, header.name)
    if (rest := description.rest) is not None:
        return rest_teacher(
            url,
            rest.request,
            rest.answer,
            overrides,
            preprocessing,
            requests,
            secret=secret,
            fingerprint=description.fingerprint,
        )
    return open_inference_teacher(
        url,
        overrides,
        preprocessing,
        requests,
        binary=description.binary,
        secret=secret,
        fingerprint=description.fingerprint,
    )
