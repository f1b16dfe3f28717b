"""`Features`: the columns of a table, and how its rows become vectors in [0, 1]."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.images import UNIT_BOUNDS, check_images
from db3kd.arguments.plain import check_path
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.storage.filesystem import check_new_file, json_bytes, write_atomically
from db3kd.tables.checks import check_numbers
from db3kd.tables.column_encoding import (
    as_unit,
    decode_column,
    invalid_number,
    nearest_valid,
    one_hot,
)
from db3kd.tables.columns import Table, read_columns
from db3kd.tables.feature import CATEGORY, ORDERED_CATEGORY, Feature, Kind
from db3kd.tables.feature_files import (
    features_content,
    parse_features,
    read_features,
)
from db3kd.tables.inference import infer_features
from db3kd.tables.places import table_named
from db3kd.tables.projection import Projection
from db3kd.wording import counted

_LOG = logging.getLogger(__name__)


class Features:
    """The features of a table: which rows are valid, and how unit vectors encode them.

    Everything in db3kd works on vectors in [0, 1]. A continuous or integer feature has one
    dimension, which maps its bounds to 0 and 1. A categorical feature has one dimension per
    category (one-hot). A constant feature has none.

    `Features` is a sequence of `Feature`; `features["age"]` is the one with that name.

    Example:
        >>> features = db3kd.Features.infer(frame, bounds={"age": (0, 120)})
        >>> unit = features.encode(frame)  # [n, D'] float32 in [0, 1]
        >>> features.decode(unit)  # the same rows, as a DataFrame
        >>> features.project(unit + 0.1)  # the nearest vectors of valid rows

    Args:
        features: The features in the order of the columns.
        as_frame: Whether rows are decoded to a pandas DataFrame instead of a NumPy array.

    Attributes:
        names: The names of the columns.
        as_frame: See above.
        unit_names: The feature of each dimension of the unit vector, with the category if there is
            one.
        unit_shape: The shape (D',) of a unit vector.
        project: The `Projection` to unit vectors of valid rows.

    Raises:
        TypeError: If an element is not a `Feature`.
        ValueError: If names are repeated, or every feature is constant.
    """

    def __init__(self, features: Sequence[Feature], *, as_frame: bool = False) -> None:
        self._features = tuple(features)
        for feature in self._features:
            if not isinstance(feature, Feature):
                raise ArgumentTypeError("features", f"expected Feature objects, got {feature!r}")
        self.names = tuple(feature.name for feature in self._features)
        if len(set(self.names)) < len(self.names):
            repeated = next(name for name, count in Counter(self.names).items() if count > 1)
            raise ArgumentError("features", f"expected different names, got {repeated!r} twice")
        self.as_frame = as_frame
        self.unit_names = tuple(name for each in self._features for name in each.unit_names)
        if not self.unit_names:
            constants = ", ".join(self.names) or "none"
            raise ArgumentError(
                table_named("features"),
                f"expected at least one feature that varies, got only constants: {constants}",
            )
        self.unit_shape = (len(self.unit_names),)
        self.project = Projection(self._features)

    @classmethod
    def of(cls, owner: object) -> "Features | None":
        """Returns the features that an object declares, or None.

        Args:
            owner: An object whose attribute `features` may be the features of a table, such as a
                `TabularTeacher` or an `ImageSet`. Scikit-learn's data sets, for example, use this
                name for something else.
        """
        features = getattr(owner, "features", None)
        return features if isinstance(features, cls) else None

    @classmethod
    def infer(
        cls,
        table: Table,
        *,
        names: Sequence[str] | None = None,
        kinds: Mapping[str, Kind] | None = None,
        bounds: Mapping[str, tuple[float, float]] | None = None,
        values: Mapping[str, Sequence[Any]] | None = None,
    ) -> Self:
        """Infers features from the values of a table.

        - Booleans, strings, objects and the pandas dtype `category` are categorical. Their values
          are those of the column, sorted; for a `category`, all of its categories, in their order.
        - Numbers are integer if all of them are whole, whatever their dtype, and span at most 2^23;
          otherwise they are continuous. The bounds are the lowest and highest value.
        - A column with a single value is constant.

        Example:
            >>> db3kd.Features.infer(sklearn.datasets.load_wine())
            Features(13 features: 11 continuous, 2 integer; 13 dimensions)
            >>> db3kd.Features.infer(frame, kinds={"postcode": "categorical"})

        Args:
            table: A pandas DataFrame, a NumPy array [n, F], or a scikit-learn Bunch.
            names: The columns that the model takes, in its order; by default all. For an array, the
                names of its columns.
            kinds: "continuous", "integer" or "categorical" for some columns.
            bounds: The lowest and highest valid value of some columns.
            values: All valid values of some columns, which makes these categorical.

        Raises:
            TypeError: If a column has values that cannot be features, such as dates.
            ValueError: If values are missing or infinite, if most values of a categorical column
                differ, or if the values contradict an argument.
        """
        columns = read_columns(table, names)
        features = infer_features(columns, kinds or {}, bounds or {}, values or {})
        return cls(features, as_frame=columns.is_frame)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads features from a `.json`, `.toml` or `.safetensors` file.

        `save` writes `.json` files; `save_model` writes `.safetensors` files of networks with their
        features.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file does not describe features; the message says where.
        """
        features, as_frame = read_features(Path(path))
        return cls(features, as_frame=as_frame)

    def save(self, path: str | Path) -> Path:
        """Writes the features to a `.json` file, which `load` reads, and returns its path.

        Raises:
            ValueError: If the path has another suffix.
        """
        path = check_path(path, "path")
        if path.suffix != ".json":
            raise ArgumentError("features", f"expected a path that ends in .json, got {path}")
        check_new_file(path, "path")
        write_atomically(path, json_bytes(features_content(self._features, self.as_frame)))
        return path

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the features that `to_json` wrote.

        Raises:
            ValueError: If the text does not describe features.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArgumentError("features", f"expected JSON: {error}") from None
        features, as_frame = parse_features(content, "features")
        return cls(features, as_frame=as_frame)

    def to_json(self) -> str:
        """Returns the features as JSON, for files that also hold other things."""
        return json.dumps(features_content(self._features, self.as_frame), ensure_ascii=False)

    @overload
    def __getitem__(self, key: str | int) -> Feature: ...

    @overload
    def __getitem__(self, key: slice) -> tuple[Feature, ...]: ...

    def __getitem__(self, key: str | int | slice) -> Feature | tuple[Feature, ...]:
        if not isinstance(key, str):
            return self._features[key]
        if key not in self.names:
            raise KeyError(key)
        return self._features[self.names.index(key)]

    def __len__(self) -> int:
        return len(self._features)

    def __iter__(self) -> Iterator[Feature]:
        return iter(self._features)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Features):
            return NotImplemented
        return self._features == other._features and self.as_frame == other.as_frame

    def __hash__(self) -> int:
        return hash((self._features, self.as_frame))

    def __repr__(self) -> str:
        kinds = [feature.kind for feature in self._features]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(sorted(kinds)))
        dimensions = counted(len(self.unit_names), "dimension")
        return f"Features({counted(len(self), 'feature')}: {counts}; {dimensions})"

    def encode(self, table: Table, *, clip: bool = False) -> Tensor:
        """Encodes rows as unit vectors.

        Args:
            table: The rows. In a DataFrame, the columns with these names are read, in any order; an
                array must have exactly these columns.
            clip: Whether numbers outside the bounds are moved to the nearest bound, and fractions
                of integer features are rounded. A warning is logged that counts the rows. A
                category that the features do not have is an error nevertheless.

        Returns:
            [n, D'] float32 in [0, 1]. `decode` restores integers and categories exactly, and real
            numbers to float32 precision relative to their range.

        Raises:
            TypeError: If a column has an unsuitable type.
            ValueError: If a value is missing or not valid; the message names the column and the
                row.
        """
        columns = read_columns(table, self.names)
        parts, clipped = [], []
        for feature, column in zip(self._features, columns.arrays, strict=True):
            if feature.values is not None:
                parts.append(one_hot(feature, column, clip))
                continue
            numbers = check_numbers(feature.name, column)
            valid = nearest_valid(feature, numbers)
            if changed := int((valid != numbers).sum()):
                if not clip:
                    raise invalid_number(feature, numbers, valid)
                clipped.append(f"{counted(changed, 'row')} of column {feature.name!r}")
            parts.append(as_unit(feature, valid))
        if clipped:
            _LOG.warning(
                "%s: clipped to valid values: %s", table_named("table"), ", ".join(clipped)
            )
        return torch.from_numpy(np.concatenate(parts, axis=1))

    def decode(self, unit: Tensor | np.ndarray, *, as_frame: bool | None = None) -> Any:
        """Decodes unit vectors to the nearest valid rows.

        Args:
            unit: [n, D'] float32 in [0, 1].
            as_frame: Whether to return a DataFrame; by default `self.as_frame`.

        Returns:
            A DataFrame with the dtypes of the features, or an array [n, F] of numbers, or of
            objects if some features are not numbers.

        Raises:
            TypeError: If the vectors are not float32.
            ValueError: If the shape or a value is wrong.
        """
        vectors = torch.as_tensor(unit).cpu()
        check_images(vectors, self.unit_shape, UNIT_BOUNDS, "unit")
        valid = self.project(vectors).numpy().astype(np.float64)
        columns, place = [], 0
        for feature in self._features:
            columns.append(decode_column(feature, valid[:, place : place + feature.width]))
            place += feature.width
        if as_frame is None:
            as_frame = self.as_frame
        return self._frame(columns) if as_frame else self._array(columns)

    def fingerprint(self) -> str:
        """Returns a SHA-256 digest, in hex, of all features."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def _frame(self, columns: list[np.ndarray]) -> Any:
        import pandas

        series = {}
        for feature, column in zip(self._features, columns, strict=True):
            dtype: Any = feature.dtype
            values = feature.values or ()
            if dtype in (CATEGORY, ORDERED_CATEGORY):
                dtype = pandas.CategoricalDtype(list(values), dtype == ORDERED_CATEGORY)
            elif dtype == "object" and all(isinstance(value, str) for value in values):
                dtype = None  # pandas chooses its string dtype.
            series[feature.name] = pandas.Series(column, dtype=dtype)
        return pandas.DataFrame(series)

    def _array(self, columns: list[np.ndarray]) -> np.ndarray:
        kinds = {column.dtype.kind for column in columns}
        dtype = np.dtype(object)
        if kinds <= set("iuf") or kinds == {"b"}:
            dtype = np.result_type(*{column.dtype for column in columns})
        array = np.empty((len(columns[0]), len(columns)), dtype)
        for number, column in enumerate(columns):
            array[:, number] = column.tolist() if dtype.kind == "O" else column
        return array
