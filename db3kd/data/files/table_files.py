"""Tables in `.csv` and `.parquet` files."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db3kd.data.class_labels import as_table_labels, class_count
from db3kd.data.files.extras import import_data_package
from db3kd.data.files.image_tables import IMAGE_COLUMNS
from db3kd.data.files.parquet_size import check_parquet_size
from db3kd.data.files.splits import require_split, split_set_name
from db3kd.data.image_set import ImageSet
from db3kd.errors import ArgumentError, InputError
from db3kd.tables import Features
from db3kd.tables.places import TableSource, column_named, reading
from db3kd.wording import did_you_mean

TABLE_SUFFIXES = (".csv", ".parquet")
"""The suffixes of files that may hold a table."""

LABEL_COLUMNS = ("label", "labels", "target")
"""The names of a column of class labels that need not be declared."""

_MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]
_UNNAMED = re.compile(r"Unnamed: \d+")


class MissingColumnError(ArgumentError):
    """A table lacks the column of labels that the caller named."""


@dataclass(frozen=True)
class TableOptions:
    """How the columns of a table are read.

    Attributes:
        features: The features, or a file that describes them; None to infer them from all rows of
            all splits.
        label_column: The column of class labels; None for one of `LABEL_COLUMNS`, if there is one
            that is no feature.
        clip: Whether numbers that the features do not allow are moved to the nearest valid one.
        columns: The columns to infer features from; None for all but that of the labels. Images
            ignore them.
    """

    features: Features | str | Path | None = None
    label_column: str | None = None
    clip: bool = False
    columns: Sequence[str] | None = None

    def load_features(self) -> Features | None:
        """Returns the features, read from their file if they are in one."""
        if self.features is None or isinstance(self.features, Features):
            return self.features
        return Features.load(self.features)


def holds_table(path: Path) -> bool:
    """Returns whether a file is a table of features; a `.parquet` file may be one of images.

    Raises:
        ValueError: If a Parquet file is broken.
    """
    if path.suffix != ".parquet":
        return path.suffix in TABLE_SUFFIXES
    check_parquet_size(path)
    schema = import_data_package("pyarrow.parquet").read_schema(path)
    declared = import_data_package("datasets").Features.from_arrow_schema(schema)
    image = import_data_package("datasets").Image
    return not any(
        name in IMAGE_COLUMNS or isinstance(feature, image) for name, feature in declared.items()
    )


def load_table(
    files: Mapping[str, Sequence[Path]],
    split: str,
    name: str,
    classes: int | None,
    options: TableOptions,
) -> ImageSet:
    """Loads a split of the tables in files, as `db3kd.load_data`.

    Returns:
        The encoded rows, with the labels and class names if there are any.

    Raises:
        FileNotFoundError: If there is no file of features.
        TypeError: If a column holds no values of a feature.
        ValueError: If there is no such split, a file is broken, or values are missing or invalid.
    """
    require_split(split, files, name)
    pandas = import_data_package("pandas")
    read = {part: [(path, _read(pandas, path)) for path in paths] for part, paths in files.items()}
    frames = {
        part: pandas.concat([frame for _, frame in parts], ignore_index=True)
        for part, parts in read.items()
    }
    sources = {
        part: TableSource(name, [(path, len(frame)) for path, frame in parts])
        for part, parts in read.items()
    }
    features = options.load_features()
    chosen = options.columns if features is None else features.names
    column = _label_column(frames, chosen or (), options.label_column, name)
    if features is None:
        used = _feature_columns(frames[split], column, options.columns, name)
        with reading(_joined(sources.values())):
            features = Features.infer(
                pandas.concat([_columns(frame, used, name) for frame in frames.values()]),
                names=used,
            )
    frame, set_name = frames[split], split_set_name(name, split, frames)
    labels, count, names = None, classes, None
    if column is not None and column in frame.columns:
        labelled = [part for part in frames if column in frames[part].columns]
        with reading(_joined(sources[part] for part in labelled)):
            # All splits number their classes alike, also those that lack one.
            every, names = as_table_labels(
                pandas.concat([frames[part][column] for part in labelled]), column_named(column)
            )
        first = sum(len(frames[part]) for part in labelled[: labelled.index(split)])
        labels = every[first : first + len(frame)]
        count = classes or (len(names) if names else class_count([every.numpy()]))
    with reading(sources[split]):
        return ImageSet.from_table(
            frame, labels, features, set_name, count, names, clip=options.clip
        )


def _read(pandas: Any, path: Path) -> Any:
    try:
        if path.suffix == ".parquet":
            frame = pandas.read_parquet(path, engine="pyarrow")
        else:
            frame = _read_csv(pandas, path)
    except InputError:
        raise
    except Exception as error:  # pandas and Arrow raise many types for a broken file.
        raise InputError(
            f"{path}: expected a table, which pandas could not read: {error}"
        ) from None
    if frame.empty:
        raise InputError(f"{path}: expected at least one row and one column, got none")
    unnamed = [str(column) for column in frame.columns if _UNNAMED.fullmatch(str(column))]
    if unnamed:
        raise InputError(
            f"{path}: expected a name for each column, got none for number "
            f"{unnamed[0].split()[1]}; if it numbers the rows, write the file with "
            "to_csv(index=False)"
        )
    return frame


def _read_csv(pandas: Any, path: Path) -> Any:
    """Reads a `.csv` file whose columns are separated by commas and named in its first line."""
    options = {"na_values": _MISSING, "keep_default_na": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            # Without index_col, pandas takes the first values of longer rows for names of rows.
            frame = pandas.read_csv(path, index_col=False, **options)
    except pandas.errors.ParserWarning:
        raise InputError(
            f"{path}: expected as many values in each row as names in the first line, got more; "
            "name each column in the first line, and separate columns by commas only"
        ) from None
    first = str(frame.columns[0])
    if len(frame.columns) == 1 and any(separator in first for separator in ";\t|"):
        raise InputError(
            f"{path}: expected columns separated by commas, got one column named {first!r:.80}; "
            "write the file with commas"
        )
    return frame


def _label_column(
    frames: Mapping[str, Any], used: Sequence[str], declared: str | None, name: str
) -> str | None:
    columns = {column for frame in frames.values() for column in frame.columns}
    if declared is not None:
        if declared not in columns:
            raise MissingColumnError(
                "label_column",
                f"expected one of the columns of {name} "
                f"({', '.join(map(repr, sorted(columns)))}), got {declared!r}"
                f"{did_you_mean(declared, columns)}",
            )
        if declared in used:
            raise ArgumentError(
                "label_column", f"expected no feature, got {declared!r}, which is one"
            )
        return declared
    found = [each for each in LABEL_COLUMNS if each in columns and each not in used]
    if len(found) > 1 and not used:  # the second one would be a feature
        raise ArgumentError(
            "label_column",
            f"expected one column of class labels in {name}, got {' and '.join(map(repr, found))}; "
            "name the right one, and leave the other out unless it is a feature",
        )
    return found[0] if found else None


def _feature_columns(
    frame: Any, label_column: str | None, chosen: Sequence[str] | None, name: str
) -> list[str]:
    """Returns the columns to infer features from, in the order of the table."""
    if chosen is None:
        return [each for each in frame.columns if each != label_column]
    for each in chosen:
        if each not in frame.columns:
            raise ArgumentError(
                "columns",
                f"expected columns of {name} ({', '.join(map(str, frame.columns))}), got {each!r}"
                f"{did_you_mean(each, frame.columns)}",
            )
    return [each for each in frame.columns if each in chosen]


def _columns(frame: Any, used: Sequence[str], name: str) -> Any:
    missing = [column for column in used if column not in frame.columns]
    if missing:
        raise InputError(
            f"{name}: expected the same columns in every split, but one lacks {missing[0]!r}"
        )
    return frame[list(used)]


def _joined(sources: Iterable[TableSource]) -> TableSource:
    """Returns what errors call the rows of several splits of a set, one after the other."""
    sources = list(sources)
    return TableSource(sources[0].name, [part for each in sources for part in each.parts])
