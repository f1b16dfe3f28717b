"""Teachers that are described: an ONNX file, an address, or a small TOML or JSON file about one.

    url = "https://models.example.org/v2/models/mnist"
                                       # or file = "mnist.onnx", or any torch file; or
                                       # function = "package.module:name", from arrays to classes
    architecture = "resnet18"          # of a file with weights alone, as `build_model` takes it
    image_shape = [1, 28, 28]          # what the model does not tell itself
    classes = 10
    labels = "classes.txt"             # class names, one a line: of a model that answers names, and
                                       # to match the classes of data that have names
    class_offset = 1                   # the model's number of class 0: it has a background class in
                                       # front, or numbers its classes from 1
    class_numbers = [3, 7, 8]          # in place of class_offset, the model's number of each class
    background = "next best"           # of scores, those of the classes alone count; by default an
                                       # answer that is none of the classes is an error
    threshold = 0.5                    # of one score an image: class 1 begins here
    input = "images"                   # which tensors, where it has several
    output = "label"
    binary = true                      # tensors as bytes or as JSON; by default as the server can
    fingerprint = "mnist, May 2026"    # text that changes with the model, in place of its address
    max_batch = 256                    # of a file; a served model has traffic.batch

    [preprocessing]                    # the fields of Preprocessing
    scale = [0, 255]
    layout = "NHWC"

    [traffic]                          # the fields of Traffic
    batch = 64
    queries_per_second = 200

    [header]                           # the fields of SecretHeader: the secret stays outside
    variable = "MNIST_AUTHORIZATION"   # sent if DB3KD_ALLOW_SECRET="MNIST_AUTHORIZATION=https://models.example.org"

    [rest]                             # the model is behind another JSON service: see rest.py
    request = { instances = "$images" }
    answer = "predictions"

Paths are relative to the description.
"""

import dataclasses
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from db3kd.teachers.answers import Numbering, read_names
from db3kd.teachers.base import Teacher
from db3kd.teachers.onnx import OnnxTeacher
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.remote.http import SecretHeader, check_secret_allowed, split_url
from db3kd.teachers.remote.open_inference import open_inference_teacher
from db3kd.teachers.remote.rest import rest_teacher
from db3kd.teachers.remote.retry import RequestSettings
from db3kd.teachers.signature import ModelOverrides

Table = TypeVar("Table")

OpenModule = Callable[[Path | str, str | None, ModelOverrides, Preprocessing, int | None], Teacher]
"""Makes a teacher of a torch file or `package.module:function`, the architecture of its weights,
what is said of it, its preprocessing, and the most images that it is asked at once."""

_SCHEMES = ("http://", "https://", "grpc://", "grpcs://")
_KEYS = {
    "url": str,
    "file": str,
    "function": str,
    "architecture": str,
    "image_shape": list,
    "classes": int,
    "labels": str,
    "class_offset": int,
    "class_numbers": list,
    "background": str,
    "threshold": float,
    "input": str,
    "output": str,
    "binary": bool,
    "fingerprint": str,
    "max_batch": int,
    "preprocessing": dict,
    "traffic": dict,
    "header": dict,
    "rest": dict,
}


def is_described(source: str | Path) -> bool:
    """Whether this names an ONNX file, an address or a description."""
    return str(source).startswith(_SCHEMES) or Path(source).suffix in (".onnx", ".toml", ".json")


def load_described(
    source: str | Path,
    given: Mapping[str, Any],
    max_batch: int | None = None,
    device: torch.device | str = "cpu",
    open_module: "OpenModule | None" = None,
) -> Teacher:
    """The teacher.

    open_module: makes a teacher of a described torch file; see `OpenModule`.

    given: image_shape, classes, bounds, assumed_shape and assumed_classes as `load_teacher` takes
    them, None where not given; what is given wins over the description. device is an ONNX model's.

    Raises FileNotFoundError, ValueError for a description that says too little, too much or what
    the model contradicts, and TeacherError where the model cannot be read or reached.
    """
    source = str(source)
    if source.startswith(_SCHEMES):
        return _open(source, {"url": source}, Path(), given, max_batch, device, None)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a teacher file or package.module:object")
    if path.suffix == ".onnx":
        return _open(source, {"file": path.name}, path.parent, given, max_batch, device, None)
    described = _read(path)
    return _open(source, described, path.parent, given, max_batch, device, open_module)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        described = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:  # what either parser raises, and a wrong encoding
        raise ValueError(f"{path}: cannot be read as {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(described, dict):
        raise ValueError(f"{path}: expected a table that describes a teacher")
    for key, value in described.items():
        if key not in _KEYS:
            raise ValueError(f"{path}: expected one of {', '.join(_KEYS)}, got the key {key!r}")
        if type(value) is int and _KEYS[key] is float:
            continue
        if type(value) is not _KEYS[key]:
            raise ValueError(f"{path}: expected {key} as {_KEYS[key].__name__}, got {value!r}")
    return described


def _open(
    source: str,
    described: Mapping[str, Any],
    folder: Path,
    given: Mapping[str, Any],
    max_batch: int | None,
    device: torch.device | str,
    open_module: "OpenModule | None",
) -> Teacher:
    _check_kind(source, described)
    overrides = _said(described, folder, given)
    preprocessing = _table(source, described, "preprocessing", Preprocessing) or Preprocessing()
    if given["bounds"] is not None:
        preprocessing = dataclasses.replace(preprocessing, bounds=given["bounds"])
    if "file" in described:
        file, most = folder / described["file"], max_batch or described.get("max_batch")
        if file.suffix != ".onnx" and open_module is not None:
            return open_module(file, described.get("architecture"), overrides, preprocessing, most)
        return OnnxTeacher(file, overrides, preprocessing, most, device, name=Path(source).name)
    if "function" in described and open_module is not None:
        most = max_batch or described.get("max_batch")
        return open_module(described["function"], None, overrides, preprocessing, most)
    traffic = _table(source, described, "traffic", RequestSettings) or RequestSettings()
    if max_batch is not None:
        traffic = traffic.with_batch(max_batch)
    rest: dict[str, Any] = described.get("rest", {})
    if isinstance(variable := described.get("header", {}).get("variable"), str):
        schemes = tuple(scheme.removesuffix("://") for scheme in _SCHEMES)
        split_url(described["url"], schemes)  # refuses a password before an error could repeat it
        check_secret_allowed(variable, described["url"])
    options = {
        "overrides": overrides,
        "preprocessing": preprocessing,
        "traffic": traffic,
        "secret": _table(source, described, "header", SecretHeader),
        "fingerprint": described.get("fingerprint"),
    }
    if not rest:
        binary = described.get("binary")
        return open_inference_teacher(described["url"], binary=binary, **options)
    if set(rest) != {"request", "answer"}:
        raise ValueError(f"{source}: expected request and answer in [rest], got {', '.join(rest)}")
    return rest_teacher(described["url"], rest["request"], rest["answer"], **options)


def _check_kind(source: str, described: Mapping[str, Any]) -> None:
    """Refuses what does not go together."""
    if sum(key in described for key in ("url", "file", "function")) != 1:
        raise ValueError(f"{source}: expected either url, file or function")
    foreign = {
        "file": ("traffic", "header", "rest", "binary", "fingerprint"),
        "url": ("max_batch", "architecture"),
        "function": (
            *("traffic", "header", "rest", "binary", "fingerprint", "architecture", "threshold"),
            *("input", "output", "class_offset", "class_numbers", "background"),
        ),
        "rest": ("input", "output", "binary"),
    }
    for kind, keys in foreign.items():
        wrong = [key for key in keys if kind in described and key in described]
        if wrong:
            raise ValueError(f"{source}: {wrong[0]} does not go with {kind}")
    onnx = ("input", "output", "class_offset", "class_numbers", "background")
    wrong = [key for key in onnx if key in described]
    if wrong and "file" in described and Path(described["file"]).suffix != ".onnx":
        raise ValueError(
            f"{source}: {wrong[0]} does not go with a torch file; give the module those classes "
            "alone, or export it to ONNX"
        )


def _said(described: Mapping[str, Any], folder: Path, given: Mapping[str, Any]) -> ModelOverrides:
    return ModelOverrides(
        input=described.get("input"),
        output=described.get("output"),
        image_shape=given["image_shape"] or described.get("image_shape"),
        classes=given["classes"] or described.get("classes"),
        names=_names(described, folder, given),
        numbering=_numbering(described),
        threshold=described.get("threshold", given.get("threshold")),
        assumed_shape=given["assumed_shape"],
        assumed_classes=given["assumed_classes"],
    )


def _names(
    described: Mapping[str, Any], folder: Path, given: Mapping[str, Any]
) -> tuple[str, ...] | None:
    if given.get("class_names") is not None:
        return tuple(given["class_names"])
    return read_names(folder / described["labels"]) if "labels" in described else None


def _numbering(described: Mapping[str, Any]) -> Numbering | None:
    if not any(key in described for key in ("class_offset", "class_numbers", "background")):
        return None
    numbers = described.get("class_numbers")
    return Numbering(
        described.get("class_offset", 0),
        None if numbers is None else tuple(numbers),
        described.get("background"),
    )


def _table(source: str, described: Mapping[str, Any], key: str, kind: type[Table]) -> Table | None:
    """The table of that name as a dataclass, or None where there is none."""
    if key not in described:
        return None
    fields = {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name, default in fields.items():
        if default is dataclasses.MISSING and name not in described[key]:
            raise ValueError(f"{source}: expected {name} in [{key}]")
    unknown = [name for name in described[key] if name not in fields]
    if unknown:
        listed = ", ".join(fields)
        raise ValueError(f"{source}: expected {listed} in [{key}], got the key {unknown[0]!r}")
    return kind(**_tuples(described[key]))


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
