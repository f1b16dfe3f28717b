"""Weights files: a network's weights together with what is needed to build it again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from db3kd.arguments.images import check_class_names
from db3kd.arguments.plain import check_path, check_type
from db3kd.errors import ArgumentError, InputNotFoundError
from db3kd.models.metadata import ModelMetadata
from db3kd.models.networks import build_model
from db3kd.models.random_state import kept_random_state
from db3kd.models.state import changed_buffers, unsaved_buffers
from db3kd.storage.existing_runs import holds_run
from db3kd.storage.filesystem import check_new_file, write_atomically
from db3kd.storage.kinds import describe_format
from db3kd.storage.manifest import read_manifest
from db3kd.tables import Features
from db3kd.wording import shortened

STUDENT_FILE = "student.safetensors"
"""The name of the student in a run folder."""

_SHOWN_FOLDERS = 5


@dataclass(frozen=True)
class SavedModel:
    """The content of a `.safetensors` file.

    A file that `save_model` did not write has weights only: the other fields are None.

    Attributes:
        state: The weights, as `module.state_dict()` names them.
        model: The name that `build_model` takes; None if the file does not know it.
        metadata: What else the file says of the network, or None.
    """

    state: dict[str, Tensor]
    model: str | None = None
    metadata: ModelMetadata | None = None


def save_model(
    path: str | Path,
    module: nn.Module,
    *,
    model: str | None,
    image_shape: tuple[int, ...],
    classes: int,
    bounds: tuple[float, float] = (0.0, 1.0),
    class_names: Sequence[str] | None = None,
    threshold: float | None = None,
    features: Features | None = None,
) -> Path:
    """Writes a teacher's or student's weights to a file that `load_teacher(path)` can read.

    The file is written atomically: it appears complete or not at all.

    Example:
        >>> net = build_model("lenet5", (1, 28, 28), 10)
        >>> path = save_model(
        ...     "t.safetensors", net, model="lenet5", image_shape=(1, 28, 28), classes=10
        ... )
        >>> teacher = load_teacher(path)

    Args:
        path: A name that ends in `.safetensors`.
        module: The network. Only its `state_dict` is saved, so buffers that are not persistent, and
            other attributes, must be those of a new network.
        model: The name that `build_model` takes: a registry name or `package.module:factory`. None
            if there is none; then the function that makes the network is needed to load the file.
        image_shape: Shape of one image, for example `(1, 28, 28)`.
        classes: Number of classes.
        bounds: Lowest and highest pixel value that the network takes.
        class_names: Class names in the order of the class numbers.
        threshold: As for `ModuleTeacher`: for a network that returns one score per image.
        features: The features of a table, if the network takes its encoded rows. Then
            `Features.load(path)` reads them, and other tables are encoded in the same way.

    Returns:
        The path.

    Raises:
        ValueError: If the file name or any of the other arguments is invalid.
        OSError: If the file cannot be written.
    """
    path = check_path(path, "path")
    check_type(module, nn.Module, "module", "a torch.nn.Module", "weights alone have no shape")
    check_type(model, (str, NoneType), "model", "a name that build_model takes, or None")
    if path.suffix != ".safetensors":
        raise ArgumentError("path", f"expected a name ending in .safetensors, got {path.name!r}")
    check_new_file(path, "path")
    names = None if class_names is None else check_class_names(class_names, classes, path.name)
    metadata = ModelMetadata(image_shape, classes, bounds, names, threshold, features)
    if model is not None and unsaved_buffers(module):
        _check_buffers(module, model, metadata)
    write_atomically(path, weights_file(module, model, metadata.header()))
    return path


def _check_buffers(module: nn.Module, model: str, metadata: ModelMetadata) -> None:
    """Refuses a network with buffers that the file lacks and that differ from a new network's."""
    with kept_random_state():
        rebuilt = build_model(model, metadata.image_shape, metadata.classes)
    if changed := changed_buffers(module, rebuilt):
        raise ArgumentError(
            "module",
            "expected a network whose state_dict holds all values that training changed, got "
            f"{type(module).__name__} without {shortened(map(repr, changed))}; register such a "
            "buffer with persistent=True",
        )


def weights_file(module: nn.Module, model: str | None, header: Mapping[str, str]) -> bytes:
    """Returns the content of a `.safetensors` file.

    Args:
        module: The network.
        model: The name that `build_model` takes; None if there is none.
        header: The metadata, as `ModelMetadata.header` returns them, and any other texts.
    """
    named = {} if model is None else {"model": model}
    return serialized_weights(state_on_cpu(module), {**header, **named})


def serialized_weights(state: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Returns the content of a `.safetensors` file, with sorted metadata.

    safetensors writes the metadata in a random order, so files of the same weights would differ.
    """
    content = save(state, metadata)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(content)[end:]])


def state_on_cpu(module: nn.Module) -> dict[str, Tensor]:
    """Returns copies of a network's tensors, as safetensors takes them.

    Tied weights share memory, which safetensors refuses, so every tensor is cloned.
    """
    return {
        key: value.detach().cpu().clone().contiguous() for key, value in module.state_dict().items()
    }


def read_saved_model(path: str | Path) -> SavedModel:
    """Reads a `.safetensors` file of `save_model` or of another program.

    A corrupt file raises whatever safetensors and json raise.
    """
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    metadata = ModelMetadata.from_header(header)
    # The name means nothing in a file of another program.
    return SavedModel(state, None if metadata is None else header.get("model"), metadata)


def student_in_folder(folder: Path, argument: str) -> Path:
    """Returns the weights file of the one student in a folder, such as that of a run.

    Raises:
        FileNotFoundError: If there is no student in it.
        ValueError: If there are several, and none has the name `STUDENT_FILE`.
    """
    files = sorted(folder.glob("student*.safetensors"))
    if len(files) > 1 and folder / STUDENT_FILE not in files:
        names = ", ".join(file.name for file in files)
        raise ArgumentError(
            argument, f"expected one student in {folder}, got {names}; name its file"
        )
    if not files:
        found, advice = "no student", "name a weights file"
        if holds_run(folder):
            found = f"{describe_format(read_manifest(folder)['format'])} without a student"
        if inner := sorted(file.parent for file in folder.glob(f"*/{STUDENT_FILE}")):
            shown = ", ".join(map(str, inner[:_SHOWN_FOLDERS]))
            more = ", …" if len(inner) > _SHOWN_FOLDERS else ""
            found += " of its own"
            advice = f"choose one of the folders with a student: {shown}{more}"
        raise InputNotFoundError(
            f"{argument}: expected {STUDENT_FILE} in {folder}, got {found}; {advice}"
        )
    return files[0] if len(files) == 1 else folder / STUDENT_FILE
