"""Tables of images and labels: Parquet files, and data sets of the Hugging Face hub."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from db3kd.data.arrays import optional_package
from db3kd.data.class_labels import as_labels
from db3kd.data.image_files import TableImages
from db3kd.data.parquet_size import check_parquet_size


@dataclass(frozen=True)
class ImageTable:
    """One split of a table.

    Attributes:
        split: its name.
        images: its image column.
        labels: [N] int64, or None for a table without a label column.
        classes: the number of classes in all splits, or None where the labels do not tell.
        class_names: as the table declares them, or None.
    """

    split: str
    images: TableImages
    labels: Tensor | None
    classes: int | None
    class_names: tuple[str, ...] | None


def parquet_table(files: Mapping[str, Sequence[Path]], split: str, name: str) -> ImageTable:
    """A split of the Parquet files in `files`, by split.

    Raises:
        ValueError: there is no such split, it is empty, or it has no column of images.
    """
    require_split(split, files, name)
    datasets = optional_package("datasets")
    for part_files in files.values():
        for path in part_files:
            check_parquet_size(path)
    paths = {part: [str(path) for path in part_files] for part, part_files in files.items()}
    with _without_progress(datasets):
        parts = datasets.load_dataset("parquet", data_files=paths)
    return _table(parts, split, name, trusted=())


def hub_table(hub_name: str, split: str, name: str) -> ImageTable:
    """A split of a data set of the hub, which is downloaded if it is not in the cache.

    Raises:
        ValueError: as `parquet_table`.
    """
    datasets = optional_package("datasets")
    parts = datasets.load_dataset(hub_name)
    require_split(split, parts, name)
    downloads = optional_package("huggingface_hub.constants").HF_HUB_CACHE
    # Not the folder of both, where the user's token lies too.
    return _table(parts, split, name, (Path(datasets.config.HF_DATASETS_CACHE), Path(downloads)))


def require_split(split: str, splits: Iterable[str], name: str | Path) -> None:
    """Raises ValueError unless `split` is one of `splits`."""
    if split not in splits:
        raise ValueError(f"split: {name} has {', '.join(map(repr, splits))}, got {split!r}")


def class_count(labels: Sequence[np.ndarray]) -> int | None:
    """One more than the highest label of all splits, so that a class that one lacks is counted."""
    highest = [int(part.max()) for part in labels if part.size and part.dtype.kind in "iu"]
    return max(highest) + 1 if highest else None


@contextmanager
def _without_progress(datasets: Any) -> Iterator[None]:
    """Nothing is downloaded, whatever the library's progress bars say."""
    disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()


def _table(parts: Any, split: str, name: str, trusted: Sequence[Path]) -> ImageTable:
    datasets = optional_package("datasets")
    dataset = parts[split]
    if len(dataset) == 0:
        raise ValueError(f"{name}: the split {split!r} is empty, expected at least one image")
    images = TableImages(dataset, _image_column(dataset, name, datasets.Image), trusted)
    column = _label_column(dataset, datasets.ClassLabel)
    if column is None:
        return ImageTable(split, images, None, None, None)
    declared = getattr(dataset.features[column], "names", None)
    columns = {
        part: _stored(rows, column) for part, rows in parts.items() if column in rows.features
    }
    if declared is None and all(isinstance(each, str) for each in columns[split]):
        declared = sorted({label for labels in columns.values() for label in labels})
    labels, names = as_labels(columns[split], f"{name}, column {column}", declared)
    classes = class_count([np.asarray(part) for part in columns.values()])
    return ImageTable(split, images, labels, len(names) if names else classes, names)


def _stored(rows: Any, column: str) -> list[Any]:
    """The cells of a column as they are stored.

    Features that a table declares are not decoded: that may open files and ask hosts.
    """
    return rows.select_columns([column]).with_format("arrow")[:][column].to_pylist()


def _image_column(dataset: Any, name: str, image_type: Any) -> str:
    """The first column of images; undeclared encoded bytes count when called `image` or `img`."""
    for column, feature in dataset.features.items():
        if isinstance(feature, image_type):
            return column
    for column in ("image", "img"):
        if column in dataset.features:
            return column
    raise ValueError(
        f"{name}: expected a column of images, got the columns {', '.join(dataset.features)}"
    )


def _label_column(dataset: Any, class_type: Any) -> str | None:
    for column, feature in dataset.features.items():
        if isinstance(feature, class_type):
            return column
    return next((column for column in ("label", "labels") if column in dataset.features), None)
