"""What the source of a model says before it is loaded: that it is one, and of which rows."""

import zipfile
from pathlib import Path

from safetensors import safe_open

from db3kd.extras import import_extra
from db3kd.models.metadata import METADATA_FILE, ModelMetadata
from db3kd.models.weights import student_in_folder
from db3kd.named_import import import_named
from db3kd.tables import Features
from db3kd.teachers.descriptions.description import SCHEMES, read_description
from db3kd.teachers.functions.tabular import fitted_columns
from db3kd.teachers.named import is_name

_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
_SUFFIXES = (*_WEIGHTS, ".ts", ".pt2", ".onnx", ".toml")
"""The suffixes of files that hold or describe a model, and no data."""


def is_model_source(source: str) -> bool:
    """Returns whether a text names a model, as `load_teacher` takes it, and no images.

    Example:
        >>> is_model_source("my_package.model:predict")
        True
    """
    path = Path(source)
    if source.startswith(SCHEMES):
        return True
    if path.exists():
        return path.is_file() and path.suffix in _SUFFIXES
    return is_name(source) and not source.startswith("hub:")


def declared_features(source: str) -> Features | None:
    """Returns the features of a table that a model declares, without loading its network.

    A model that cannot be read declares none here: `load_teacher` says what is wrong with it.

    Args:
        source: The model, as `load_teacher` takes it.
    """
    path = Path(source)
    try:
        if path.is_dir():
            path = student_in_folder(path, "teacher")
        if path.suffix in (".toml", ".json") and path.is_file():
            path = path.parent / str(read_description(path).file)
        if path.is_file():
            metadata = _read_metadata(path)
            return None if metadata is None else metadata.features
        return Features.of(import_named(source, "teacher")) if is_name(source) else None
    except Exception:  # what the code of a module or the reader of a broken file raises
        return None


def stated_columns(source: str) -> list[str] | None:
    """Returns the columns that a named model, or the model of a method, was fitted on, or None.

    Args:
        source: As for `declared_features`, which this resembles.
    """
    try:
        found = import_named(source, "teacher") if is_name(source) else None
        return fitted_columns(getattr(found, "__self__", found))
    except Exception:
        return None


def _read_metadata(path: Path) -> ModelMetadata | None:
    """Reads what `save_model` or `export_model` wrote into a file beside the network."""
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            return ModelMetadata.from_header(file.metadata() or {})
    if path.suffix == ".onnx":
        model = import_extra("onnx", "onnx").load(path, load_external_data=False)
        return ModelMetadata.from_header({each.key: each.value for each in model.metadata_props})
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if Path(name).name == METADATA_FILE]
        return ModelMetadata.from_json(archive.read(names[0])) if names else None
