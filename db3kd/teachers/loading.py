"""Loads a teacher from a file, an address or a name."""

from collections.abc import Sequence
from pathlib import Path

import torch

from db3kd.arguments.images import check_class_names, check_device
from db3kd.arguments.plain import check_path
from db3kd.errors import ArgumentTypeError
from db3kd.models.factories import NetworkFactory
from db3kd.models.weights import student_in_folder
from db3kd.named_import import check_no_python_file
from db3kd.tables import Features
from db3kd.teachers.base import Teacher, class_names_of, describe
from db3kd.teachers.descriptions.described import open_described
from db3kd.teachers.descriptions.description import SCHEMES, Description, read_description
from db3kd.teachers.named import is_name, open_named
from db3kd.teachers.signature import ModelOverrides
from db3kd.teachers.torch_modules.execution import ExecutionOptions
from db3kd.teachers.torch_modules.module import Precision, as_autocast
from db3kd.teachers.torch_modules.torch_files import check_file, open_torch_file


def load_teacher(
    source: str | Path,
    *,
    model: str | NetworkFactory | None = None,
    image_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    bounds: tuple[float, float] | None = None,
    max_batch: int | None = None,
    autocast: Precision | None = None,
    device: torch.device | str | None = None,
    compile: bool = False,
    cuda_graphs: bool = False,
    assumed_shape: tuple[int, ...] | None = None,
    assumed_classes: int | None = None,
    assumed_class_names: Sequence[str] | None = None,
    trust_code: bool = False,
    class_names: Sequence[str] | None = None,
    threshold: float | None = None,
    features: Features | None = None,
) -> Teacher:
    """Loads a teacher from a file, an address or a name.

    Weights, ONNX files and addresses are data: no code in them runs, and pickled weights are read
    only by torch's restricted unpickler. TorchScript and exported programs are code, so they need
    `trust_code`.

    Example:
        >>> load_teacher("digits.onnx")
        >>> load_teacher("weights.pt", model="lenet5", image_shape=(1, 28, 28), classes=10)
        >>> load_teacher("http://localhost:8000/v2/models/digits")

    Args:
        source: One of

            - A run folder of `distill`, which stands for its student.
            - `weights.safetensors`: A file of `save_model` needs no other argument. Another file
              needs `model`, `image_shape` and `classes`.
            - `weights.pt`, `.pth`, `.ckpt`, `.bin`: A state dict, read with `weights_only=True`.
              Needs `model`, `image_shape` and `classes`.
            - `program.pt`, `.ts`: TorchScript. Needs `trust_code`, and `image_shape` and `classes`
              unless `db3kd.export_model` wrote it.
            - `program.pt2`: An exported program, which declares its shape and classes. Needs
              `trust_code`.
            - `model.onnx`: Run by ONNX Runtime. Its graph usually declares shape and classes.
            - `http://...`, `https://...`, `grpc://...`, `grpcs://...`: A model behind the Open
              Inference Protocol v2. Its metadata usually declare shape and classes.
            - `teacher.toml`, `.json`: A description of any of these files or addresses, or of
              another JSON service; see `db3kd.teachers.descriptions.description`.
            - `package.module:object`: A teacher, a torch module, a factory of either without
              arguments, or a function from float32 arrays [N, *image_shape] to N classes. Modules
              and functions need `image_shape` and `classes`. A method of a fitted model of
              scikit-learn, `package.module:model.predict`, gets rows of pixels. With `features`,
              also a fitted model of scikit-learn, and functions get rows of the table.
        model: The architecture of weights, as `build_model` takes it: a name, or the function or
            class that makes the network. If a file declares a
            `package.module:factory`, repeat it here: a file cannot choose which code runs.
        image_shape: Shape of one image.
        classes: Number of classes.
        bounds: Lowest and highest pixel value. The default is (0, 1) unless the file declares it.
        max_batch: Maximum number of images per call.
        autocast: As for `ModuleTeacher`; only for torch modules.
        device: The device to run on; by default the CPU.
        compile: As for `ModuleTeacher`; only for torch modules.
        cuda_graphs: As for `ModuleTeacher`; only for torch modules.
        assumed_shape: The image shape if neither `image_shape` nor the source declares it.
        assumed_classes: The number of classes if neither `classes` nor the source declares it.
        assumed_class_names: Class names if neither `class_names` nor the source declares them.
        trust_code: Load TorchScript and exported programs, and functions that a description names.
        class_names: Class names in the order of the class numbers.
        threshold: As for `ModuleTeacher`: for a model that returns one score per image.
        features: The features of a table. A function, or a fitted model with a method `predict`,
            becomes a `TabularTeacher`; every other teacher takes the encoded rows.

    Returns:
        The teacher. Close a teacher that has a `close` method when you no longer need it.

    Raises:
        FileNotFoundError: If there is no such file.
        TeacherError: If the file is corrupt or pickled, does not fit, or cannot be reached.
        ValueError: If an argument is missing, contradicts the source, or does not apply to it.
    """
    if isinstance(source, torch.nn.Module):
        raise ArgumentTypeError(
            "source",
            f"expected a path, an address or package.module:object, got the network "
            f"{type(source).__name__}; wrap it: db3kd.ModuleTeacher",
        )
    check_path(source, "source")
    execution = ExecutionOptions(
        check_device("cpu" if device is None else device),
        as_autocast(autocast),
        compile,
        cuda_graphs,
    )
    if assumed_class_names is not None:
        assumed_class_names = tuple(assumed_class_names)
        assumed_classes = len(assumed_class_names)
    overrides = ModelOverrides(
        image_shape=image_shape,
        classes=classes,
        class_names=None if class_names is None else tuple(class_names),
        threshold=threshold,
        bounds=bounds,
        assumed_shape=assumed_shape,
        assumed_classes=assumed_classes,
        assumed_class_names=assumed_class_names,
        features=features,
    )
    teacher = _open(source, model, overrides, max_batch, execution, trust_code=trust_code)
    if assumed_class_names is not None and class_names_of(teacher) is None:
        teacher.class_names = check_class_names(  # type: ignore[attr-defined]  # an optional attribute
            assumed_class_names, teacher.classes, describe(teacher)
        )
    return teacher


def _open(
    source: str | Path,
    model: str | NetworkFactory | None,
    overrides: ModelOverrides,
    max_batch: int | None,
    execution: ExecutionOptions,
    *,
    trust_code: bool,
) -> Teacher:
    """Opens a teacher; the arguments are those of `load_teacher`."""
    path = Path(source)
    if path.is_dir():
        path = student_in_folder(path, "teacher")
    if not path.exists() or path.suffix == ".py":
        check_no_python_file(str(source), "teacher")
    if str(source).startswith(SCHEMES):
        description, folder = Description(url=str(source)), Path()
    elif is_name(str(source)) and not path.exists():
        return open_named(str(source), overrides, max_batch, execution)
    elif path.suffix == ".onnx":
        description, folder = Description(file=path.name), path.parent
    elif path.suffix in (".toml", ".json"):
        check_file(path)
        description, folder = read_description(path), path.parent
    else:
        file = open_torch_file(path, model, overrides, execution.device, trust_code=trust_code)
        return execution.module_teacher(
            file.module,
            str(path),
            file.overrides,
            file.limit(max_batch),
            name=path.name,
            fingerprint=file.fingerprint,
        )
    return open_described(
        str(source),
        description,
        folder,
        overrides,
        execution,
        model=model,
        max_batch=max_batch,
        trust_code=trust_code,
    )
