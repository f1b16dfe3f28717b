"""Tables of images and labels: Parquet files and data sets of the Hugging Face hub."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from db3kd.data.class_labels import as_labels, class_count
from db3kd.data.files.extras import import_data_package
from db3kd.data.files.image_decoding import DecodeOptions
from db3kd.data.files.image_files import EncodedPixels, TableImages
from db3kd.data.files.parquet_size import check_parquet_size
from db3kd.data.files.splits import require_split, split_set_name
from db3kd.data.image_set import ImageSet
from db3kd.errors import InputError
from db3kd.tables.places import TableSource, reading

IMAGE_COLUMNS = ("image", "img")
"""The names of a column of encoded images that is not declared as such."""


def load_parquet(
    files: Mapping[str, Sequence[Path]],
    split: str,
    name: str,
    classes: int | None,
    options: DecodeOptions,
) -> ImageSet:
    """Loads a split of Parquet files; see `db3kd.load_data`.

    Raises:
        ValueError: If there is no such split, or if it is empty or has no column of images.
    """
    require_split(split, files, name)
    datasets = import_data_package("datasets")
    for split_files in files.values():
        for path in split_files:
            check_parquet_size(path)
    paths = {part: [str(path) for path in split_files] for part, split_files in files.items()}
    metadata = import_data_package("pyarrow.parquet").read_metadata
    source = TableSource(name, [(path, metadata(path).num_rows) for path in files[split]])
    with _without_progress_bars(datasets):
        parts = datasets.load_dataset("parquet", data_files=paths)
    return _load(parts, split, name, classes, options, source, trusted=())


def load_hub(
    hub_name: str, split: str, name: str, classes: int | None, options: DecodeOptions
) -> ImageSet:
    """Loads a split of a data set of the hub, which is downloaded unless it is in the cache.

    The hub calls the set `hub_name`; the other arguments and errors are those of `load_parquet`.
    """
    datasets = import_data_package("datasets")
    parts = datasets.load_dataset(hub_name)
    require_split(split, parts, name)
    downloads = import_data_package("huggingface_hub.constants").HF_HUB_CACHE
    # These two folders only: their parent also holds the user's access token.
    trusted = (Path(datasets.config.HF_DATASETS_CACHE), Path(downloads))
    return _load(parts, split, name, classes, options, TableSource(), trusted)


def image_column(dataset: Any, name: str) -> str:
    """Returns the first column of images.

    A column of encoded bytes that is not declared as images counts if it is called image or img.

    Raises:
        ValueError: If there is none.
    """
    datasets = import_data_package("datasets")
    for column, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            return column
    for column in IMAGE_COLUMNS:
        if column in dataset.features:
            return column
    raise InputError(
        f"{name}: expected a column of images, got the columns {', '.join(dataset.features)}"
    )


def label_column(dataset: Any) -> str | None:
    """Returns the first column of class labels, or else one called label or labels, if any."""
    datasets = import_data_package("datasets")
    for column, feature in dataset.features.items():
        if isinstance(feature, datasets.ClassLabel):
            return column
    return next((column for column in ("label", "labels") if column in dataset.features), None)


def stored_cells(dataset: Any, column: str) -> list[Any]:
    """Returns the cells of a column without decoding them.

    Decoding may open files and contact hosts, if the table declares such features.
    """
    return dataset.select_columns([column]).with_format("arrow")[:][column].to_pylist()


def _load(
    parts: Any,
    split: str,
    name: str,
    classes: int | None,
    options: DecodeOptions,
    source: TableSource,
    trusted: Sequence[Path],
) -> ImageSet:
    dataset = parts[split]
    if len(dataset) == 0:
        raise InputError(f"{name}: the split {split!r} is empty, expected at least one image")
    images = TableImages(dataset, image_column(dataset, name), trusted, source)
    set_name, column = split_set_name(name, split, parts), label_column(dataset)
    if column is None:
        return ImageSet(EncodedPixels(images, name, options), None, classes, set_name)
    class_names = getattr(dataset.features[column], "names", None)
    columns = {
        part: stored_cells(rows, column) for part, rows in parts.items() if column in rows.features
    }
    if class_names is None and all(isinstance(label, str) for label in columns[split]):
        class_names = sorted({label for labels in columns.values() for label in labels})
    with reading(source):
        labels, names = as_labels(columns[split], f"{name}, column {column!r}", class_names)
    counted = class_count([np.asarray(part) for part in columns.values()])
    count = classes or (len(names) if names else counted)
    pixels = EncodedPixels(images, name, options)
    return ImageSet(pixels, labels, count, set_name, class_names=names)


@contextmanager
def _without_progress_bars(datasets: Any) -> Iterator[None]:
    """Hides the progress bars of a download: local files are not downloaded."""
    disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()
