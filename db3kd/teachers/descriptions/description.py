"""Description files: small TOML or JSON files that describe a teacher.

    url = "https://models.example.org/v2/models/mnist"
    labels = "classes.txt"

    [preprocessing]
    scale = [0, 255]
    layout = "NHWC"

    [requests]
    batch = 64
    queries_per_second = 200

    [header]
    variable = "MNIST_AUTHORIZATION"

`Description` lists the keys, and the classes of its tables list theirs. Paths are relative to the
description file.
"""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from db3kd.errors import ArgumentError, ArgumentTypeError, InputError, InputNotFoundError
from db3kd.teachers.class_numbers import Numbering, checked_names, read_names
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.teachers.remote import RequestSettings
from db3kd.teachers.remote.rest import AnswerPath, Template
from db3kd.teachers.signature import ModelOverrides
from db3kd.wording import did_you_mean

SCHEMES = ("http://", "https://", "grpc://", "grpcs://")
"""How the address of a served model begins."""

_TYPE_NAMES = {
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    tuple: "a list",
}
_NUMBERING = ("class_offset", "class_numbers", "background")
_TENSORS = ("input", "output", *_NUMBERING)
_SERVED = ("requests", "header", "rest", "binary", "fingerprint")
_NOT_WITH = {
    "file": _SERVED,
    "url": ("max_batch", "architecture"),
    "function": (*_SERVED, "architecture", "threshold", *_TENSORS),
    "rest": ("input", "output", "binary"),
}
"""For each key, the keys that cannot be used with it."""


@dataclass(frozen=True)
class HeaderTable:
    """A secret header, whose value is in an environment variable and in no file.

    Attributes:
        variable: The environment variable with the whole value, such as "Bearer …". It is sent
            only to an address that `DB3KD_ALLOW_SECRET` names together with the variable.
        name: The name of the header.
    """

    variable: str
    name: str = "Authorization"


@dataclass(frozen=True)
class RestTable:
    """Another JSON service: what to post, and where the answer is.

    Attributes:
        request: The JSON value to post, with `"$images"` in the place of all images of a request,
            or `"$image"` in the place of one, as nested lists of numbers. `"$images_png_base64"`
            stands for a list of 8-bit PNG files in base64, and `"$image_png_base64"`, also inside
            of a text, for one.
        answer: The path to the classes, class names or scores, such as `"predictions.*.label"`:
            keys, numbers of list entries, or `*` for every entry, separated by dots.
    """

    request: Any
    answer: str

    def __post_init__(self) -> None:
        Template(self.request)
        AnswerPath(self.answer)


@dataclass(frozen=True)
class Description:
    """The content of a description file.

    Attributes:
        url: The address of a served model.
        file: An ONNX file or a torch file.
        function: `package.module:name` of a function from arrays to classes, of a torch module, or
            of a function without arguments that returns either. Needs permission to run code
            (`trust_code`).
        architecture: The architecture of a file of weights, as `build_model` takes it.
        image_shape: Shape of one image, channels first, if the model does not declare it.
        classes: Number of classes, if the model does not declare it.
        labels: The class names in the order of the model's numbers: a list, or a file with one per
            line. For a model that answers with names, and to match data whose classes have names.
        class_offset: The model's number of class 0, if it has a background class in front or
            numbers its classes from 1.
        class_numbers: Instead of `class_offset`: the model's number of each class.
        background: "next best" ignores the scores of other classes. By default an answer that is
            none of the classes is an error.
        threshold: For a model that returns one score per image: class 1 begins here.
        input: The input tensor, for a model with several.
        output: The output tensor, for a model with several.
        binary: Send tensors as bytes (true) or JSON (false). By default bytes if the server
            supports them.
        fingerprint: A text that changes with the model, instead of its address.
        max_batch: Maximum number of images per call, for files and functions. For an address see
            `batch` of [requests].
        preprocessing: The steps between db3kd's images and the model's input.
        requests: How requests are sent.
        header: A secret header.
        rest: What to post to a JSON service, and where the answer is.
    """

    url: str | None = None
    file: str | None = None
    function: str | None = None
    architecture: str | None = None
    image_shape: tuple[int, ...] | None = None
    classes: int | None = None
    labels: str | tuple[str, ...] | None = None
    class_offset: int | None = None
    class_numbers: tuple[int, ...] | None = None
    background: str | None = None
    threshold: float | None = None
    input: str | None = None
    output: str | None = None
    binary: bool | None = None
    fingerprint: str | None = None
    max_batch: int | None = None
    preprocessing: Preprocessing | None = None
    requests: RequestSettings | None = None
    header: HeaderTable | None = None
    rest: RestTable | None = None

    def __post_init__(self) -> None:
        if len(self._given("url", "file", "function")) != 1:
            raise InputError("expected one of the keys url, file and function")
        for key, others in _NOT_WITH.items():
            if self._given(key) and (wrong := self._given(*others)):
                raise ArgumentError(wrong[0], f"cannot be used with {key}; remove one of them")
        if self.has_torch_file and (wrong := self._given(*_TENSORS)):
            raise ArgumentError(
                wrong[0],
                "cannot be used with a torch file; return only the scores of the "
                "classes from the module, or export it to ONNX",
            )

    @property
    def has_torch_file(self) -> bool:
        """Whether it describes a file of weights or a program, not an ONNX file."""
        return self.file is not None and Path(self.file).suffix != ".onnx"

    def overrides(self, folder: Path, given: ModelOverrides) -> ModelOverrides:
        """Returns the description's declarations, replaced by those of the caller.

        Args:
            folder: The folder of the label file.
            given: The caller's declarations.

        Raises:
            OSError: If the label file cannot be read.
            ValueError: If the label file or the class numbers are invalid.
        """
        declared = ModelOverrides(
            input=self.input,
            output=self.output,
            image_shape=self.image_shape,
            classes=self.classes,
            class_names=self._class_names(folder) if given.class_names is None else None,
            numbering=self._numbering(),
            threshold=self.threshold,
        )
        chosen = {
            field.name: value
            for field in dataclasses.fields(given)
            if (value := getattr(given, field.name)) is not None
        }
        return dataclasses.replace(declared, **chosen)

    def _given(self, *keys: str) -> list[str]:
        return [key for key in keys if getattr(self, key) is not None]

    def _class_names(self, folder: Path) -> tuple[str, ...] | None:
        if self.labels is None:
            return None
        if not isinstance(self.labels, str):
            return checked_names(self.labels, "labels", "as texts")
        path = folder / self.labels
        if not path.is_file():
            raise InputNotFoundError(f"labels: there is no file {path}")
        return read_names(path)

    def _numbering(self) -> Numbering | None:
        if not self._given(*_NUMBERING):
            return None
        return Numbering(self.class_offset or 0, self.class_numbers, self.background)


def read_description(path: Path) -> Description:
    """Reads a description file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not TOML or JSON, or a key is unknown, missing, has the wrong type or
            contradicts another one. The message names the file and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}")
    try:
        return _parse(Description, content)
    except (ValueError, ArgumentTypeError) as error:
        raise InputError(f"{path}: {error}") from None


def _parse(kind: type[Any], table: Mapping[str, Any], name: str = "") -> Any:
    """Converts a table to an instance of a dataclass; `name` is empty for the whole file."""
    place = f"[{name}] " if name else ""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in table:
        if key not in fields:
            raise InputError(
                f"{place}expected one of {', '.join(fields)}, got {key!r}"
                f"{did_you_mean(key, fields)}"
            )
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and key not in table:
            raise InputError(f"{place}expected the key {key!r}, got {', '.join(table) or 'none'}")
    hints = get_type_hints(kind)
    # Settings of other modules check the types of their fields themselves.
    convert = _converted if kind.__module__ == __name__ else _as_tuple
    values = {key: convert(value, hints[key], key) for key, value in table.items()}
    try:
        return kind(**values)
    except (ValueError, ArgumentTypeError) as error:
        raise InputError(f"{place}{error}") from None


def _converted(value: Any, hint: Any, key: str) -> Any:
    """Returns the value as its type hint, such as `X` or `X | None`, declares it."""
    kinds = [each for each in get_args(hint) or (hint,) if each is not NoneType]
    expected = kinds[0]
    if isinstance(expected, type) and dataclasses.is_dataclass(expected):
        if not isinstance(value, dict):
            raise ArgumentTypeError(key, f"expected a table [{key}], got {value!r}")
        return _parse(expected, value, key)
    value, types = _as_tuple(value), [get_origin(each) or each for each in kinds]
    if Any in types or type(value) in types or (float in types and type(value) is int):
        return value
    named = " or ".join(_TYPE_NAMES[each] for each in types)
    raise ArgumentTypeError(key, f"expected {named}, got {value!r}")


def _as_tuple(value: Any, *_: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
