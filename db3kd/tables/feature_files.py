"""Files and JSON texts that describe the features of a table.

    table = "frame"                # decode rows to a pandas DataFrame; "array" (default): to NumPy

    [features.alcohol]             # the columns, in the order that the model expects
    kind = "continuous"
    lower = 11.0
    upper = 14.9

    [features.rooms]
    kind = "integer"
    lower = 1
    upper = 12
    dtype = "float64"              # by default float64, int64, bool or object, from the values

    [features.colour]
    kind = "categorical"
    values = ["red", "white"]

JSON files have the same content. A `.safetensors` file of `save_model` holds the features of the
table that its network takes.
"""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from db3kd.errors import ArgumentError, InputError, InputNotFoundError
from db3kd.tables.feature import Feature

_TABLES = ("array", "frame")
_KEYS = ("kind", "lower", "upper", "values", "dtype")


def read_features(path: Path) -> tuple[list[Feature], bool]:
    """Reads a file of features.

    Returns:
        The features, and whether rows are decoded to a DataFrame.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not describe features.
    """
    if not path.is_file():
        raise InputNotFoundError(f"features: there is no file {path}")
    if path.suffix not in (".json", ".toml", ".safetensors"):
        raise ArgumentError("features", f"expected a .json, .toml or .safetensors file, got {path}")
    try:
        text = _text_in_weights(path) if path.suffix == ".safetensors" else path.read_text("utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from None
    return parse_features(content, str(path))


def parse_features(content: Any, where: str) -> tuple[list[Feature], bool]:
    """Returns the features that the content of a file describes; see `read_features`.

    Raises:
        ValueError: If the content does not describe features.
    """
    if not isinstance(content, dict) or not isinstance(content.get("features"), dict):
        raise InputError(f"{where}: expected a table 'features' with an entry for each column")
    unknown = sorted(content.keys() - {"table", "features"})
    if unknown:
        raise InputError(f"{where}: expected the keys table and features, got {unknown[0]!r}")
    table = content.get("table", "array")
    if table not in _TABLES:
        raise InputError(f"{where}: table: expected {' or '.join(_TABLES)}, got {table!r}")
    features = [_parse(where, name, entry) for name, entry in content["features"].items()]
    return features, table == "frame"


def features_content(features: Sequence[Feature], as_frame: bool) -> dict[str, Any]:
    """Returns the content that `parse_features` reads."""
    return {
        "table": _TABLES[as_frame],
        "features": {
            feature.name: {
                key: value for key in _KEYS if (value := getattr(feature, key)) is not None
            }
            for feature in features
        },
    }


def _text_in_weights(path: Path) -> str:
    with safe_open(path, "np") as file:
        header = file.metadata() or {}
    if "features" not in header:
        raise InputError("its network does not take rows of a table")
    return header["features"]


def _parse(file: str, name: str, entry: Any) -> Feature:
    where = f"{file}: features.{name}"
    if not isinstance(entry, dict) or "kind" not in entry:
        raise InputError(f"{where}: expected a table with the key kind, got {entry!r:.80}")
    unknown = sorted(entry.keys() - set(_KEYS))
    if unknown:
        raise InputError(f"{where}: expected the keys {', '.join(_KEYS)}, got {unknown[0]!r}")
    fields = dict(entry)
    if isinstance(fields.get("values"), list):
        fields["values"] = tuple(fields["values"])
    if not isinstance(fields.get("dtype"), str | None):
        raise InputError(f"{where}: dtype: expected the name of a dtype, got {fields['dtype']!r}")
    try:
        return Feature(name, **fields)
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: {error}") from None
