"""Opens torch files: weights, checkpoints, TorchScript and exported programs."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from db3kd.errors import InputError, InputNotFoundError
from db3kd.models.factories import NetworkFactory, factory_name
from db3kd.models.metadata import ModelMetadata
from db3kd.models.networks import build_model, is_own_model
from db3kd.models.weights import SavedModel, read_saved_model
from db3kd.storage.filesystem import names_beside
from db3kd.teachers.base import TeacherError
from db3kd.teachers.signature import ModelOverrides
from db3kd.teachers.torch_modules.checkpoints import (
    first_keys,
    read_checkpoint,
    reading,
    without_prefix,
)
from db3kd.teachers.torch_modules.programs import is_torchscript, read_exported, read_torchscript
from db3kd.wording import did_you_mean

_DOTTED = re.compile(r"(?!.*\.(safetensors|pt|pth|ckpt|bin|ts|pt2|onnx|toml|json)$)\w+(\.\w+)+")
"""The names of an object and its module, with a dot where a colon is expected."""

_SHOWN = 3
"""Names of weights in an error, of each kind."""

_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".ts")


@dataclass(frozen=True)
class TorchFile:
    """A module read from a file.

    Attributes:
        module: The module.
        overrides: The user's declarations, completed with those of the file.
        fingerprint: The file's SHA-256 hex digest if it is a program, else None.
        max_batch: The largest batch that the program takes, or None if there is no limit.
    """

    module: nn.Module
    overrides: ModelOverrides
    fingerprint: str | None = None
    max_batch: int | None = None

    def limit(self, max_batch: int | None) -> int | None:
        """Returns `max_batch`, but at most what the program takes."""
        known = [size for size in (max_batch, self.max_batch) if size is not None]
        return min(known, default=None)


def open_torch_file(
    path: Path,
    model: str | NetworkFactory | None,
    overrides: ModelOverrides,
    device: torch.device,
    *,
    trust_code: bool,
) -> TorchFile:
    """Reads a torch file of any kind.

    Args:
        path: The file.
        model: The name that `build_model` takes, for a file of weights that does not declare it.
        overrides: What the user declares about the model.
        device: The device of an exported program; other modules are read on the CPU.
        trust_code: Whether the file may be a program.

    Raises:
        FileNotFoundError: If there is no such file.
        TeacherError: If the file is corrupt, holds pickled objects or does not fit the model.
        ValueError: If a declaration is missing, the file is of an unknown kind, or it is a program
            and `trust_code` is False.
    """
    check_file(path)
    if path.suffix == ".safetensors":
        return _open_weights(path, model, overrides)
    if path.suffix == ".pt2":
        _require_trust(path, "an exported program", trust_code)
        return _open_exported(path, overrides, device)
    if path.suffix not in _CHECKPOINTS:
        raise InputError(
            f"{path}: expected .safetensors, {', '.join(_CHECKPOINTS)}, .pt2, .onnx, .toml or "
            f".json, got {path.suffix or 'no suffix'!r}"
        )
    if is_torchscript(path):
        _require_trust(path, "TorchScript", trust_code)
        module, metadata = reading(path, lambda: read_torchscript(path))
        return TorchFile(module, overrides.completed(metadata, path), _file_digest(path))
    return TorchFile(_build(path, model, overrides, read_checkpoint(path)), overrides)


def check_file(path: Path) -> None:
    """Checks that a model file exists.

    Raises:
        FileNotFoundError: If it does not.
    """
    if not path.is_file():
        hint = (
            did_you_mean(path.name, names_beside(path)) or "; pass a file, or package.module:object"
        )
        if _DOTTED.fullmatch(str(path)):
            module, _, name = str(path).rpartition(".")
            hint = f"; pass a file, or an object of a module, such as {module}:{name}"
        raise InputNotFoundError(f"{path}: there is no such file{hint}")


def _open_weights(
    path: Path, model: str | NetworkFactory | None, overrides: ModelOverrides
) -> TorchFile:
    saved: SavedModel = reading(path, lambda: read_saved_model(path))
    if model is None and saved.model is not None and not is_own_model(saved.model):
        raise InputError(
            f"{path}: declares the model {saved.model!r}; a file cannot choose which code runs, so "
            "repeat the name as model="
        )
    overrides = overrides.completed(saved.metadata, path)
    module = _build(path, model or saved.model, overrides, saved.state, saved.metadata)
    return TorchFile(module, overrides)


def _open_exported(path: Path, overrides: ModelOverrides, device: torch.device) -> TorchFile:
    module = reading(path, lambda: read_exported(path, device))
    overrides = overrides.completed(module.metadata, path)
    shape = overrides.image_shape or module.image_shape
    classes = overrides.classes
    if overrides.threshold is None:
        classes = classes or module.classes
    overrides = dataclasses.replace(overrides, image_shape=shape, classes=classes)
    return TorchFile(module, overrides, _file_digest(path), module.max_batch)


def _build(
    path: Path,
    model: str | NetworkFactory | None,
    overrides: ModelOverrides,
    state: dict[str, Tensor],
    declared: ModelMetadata | None = None,
) -> nn.Module:
    if model is None:
        raise InputError(
            f"{path}: holds only weights; pass model=, the name of their architecture or "
            "package.module:factory with the function or class that makes the network"
        )
    image_shape, classes, _ = overrides.require_all(str(path))
    name = model if isinstance(model, str) else factory_name(model)
    module = build_model(model, image_shape, classes)
    expected = module.state_dict()
    state = without_prefix(state, expected)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        problem = _misfit(state, expected) or str(error).splitlines()[0]
        raise TeacherError(
            f"{path}: its weights do not fit {name} for images {image_shape} and {classes} "
            f"classes: {problem}; correct model=, image_shape= or classes={_declared(declared)}"
        ) from error
    return module


def _misfit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Returns how the weights of a file differ from those of a module; empty if they do not."""
    missing = [key for key in expected if key not in state]
    unknown = [key for key in state if key not in expected]
    if missing or unknown:
        has = (
            f"the model has {first_keys(missing, _SHOWN)}, which the file lacks" if missing else ""
        )
        holds = (
            f"the file has {first_keys(unknown, _SHOWN)}, which the model lacks" if unknown else ""
        )
        return ", and ".join(filter(None, (has, holds)))
    sizes = [
        f"{key} is {list(state[key].shape)} in the file and {list(value.shape)} in the model"
        for key, value in expected.items()
        if state[key].shape != value.shape
    ]
    more = f", and {len(sizes) - 1} more differ" if len(sizes) > 1 else ""
    return f"{sizes[0]}{more}" if sizes else ""


def _declared(metadata: ModelMetadata | None) -> str:
    """Returns what a file of weights states about its model, as the end of an error."""
    if metadata is None:
        return ""
    return f" (the file declares images {metadata.image_shape} and {metadata.classes} classes)"


def _require_trust(path: Path, kind: str, trust_code: bool) -> None:
    if not trust_code:
        raise InputError(
            f"{path}: is {kind}, which is code: it can read and write any file that you can; if "
            "you trust its author, pass trust_code=True, otherwise ask for weights or an ONNX file"
        )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
