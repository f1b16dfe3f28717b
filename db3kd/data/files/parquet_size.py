"""The memory that a Parquet file takes, estimated before it is read."""

from pathlib import Path
from typing import Any

from db3kd.data.files.decompression import check_decompressed_size
from db3kd.data.files.extras import import_data_package
from db3kd.errors import InputError

_MAX_EXPANSION = 20
"""How many times its size a file of images may take; encoded images hardly compress further."""


def check_parquet_size(path: Path) -> None:
    """Refuses a Parquet file that takes far more memory than disk space.

    Compressed pages, or one large cell that stands for many rows, can expand without limit.

    Raises:
        ValueError: If the file is broken, or if it takes both more than
            `max_decompressed_bytes()` and more than 20 times its size.
    """
    parquet = import_data_package("pyarrow.parquet")
    try:
        opened = parquet.ParquetFile(path)
        size = max(_declared_bytes(opened.metadata), _max_bytes(parquet, path, opened))
    except Exception as error:  # Arrow's errors have no other common base class.
        raise InputError(f"{path}: expected a valid Parquet file: {error}") from error
    if size > _MAX_EXPANSION * path.stat().st_size:
        check_decompressed_size(path, "all cells, if each is as large as the largest", size)


def _declared_bytes(metadata: Any) -> int:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return sum(
        group.column(number).total_uncompressed_size
        for group in groups
        for number in range(group.num_columns)
    )


def _max_bytes(parquet: Any, path: Path, opened: Any) -> int:
    """Returns the bytes of all cells, if each were as large as the largest in its dictionary.

    If a column is read as a dictionary, the first row of a row group loads each distinct cell once.
    """
    columns = [opened.schema.column(number) for number in range(len(opened.schema))]
    shared = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    file = parquet.ParquetFile(path, read_dictionary=shared, memory_map=True, pre_buffer=False)
    size = 0
    for number in range(file.num_row_groups):
        first = next(file.iter_batches(1, row_groups=[number]), None)
        if first is not None:
            rows = file.metadata.row_group(number).num_rows
            size += rows * sum(_largest_cell(column) for column in first.columns)
    return size


def _largest_cell(column: Any) -> int:
    arrow = import_data_package("pyarrow")
    compute = import_data_package("pyarrow.compute")
    if arrow.types.is_dictionary(column.type):
        return compute.max(compute.binary_length(column.dictionary)).as_py() or 0
    if arrow.types.is_struct(column.type):
        return sum(_largest_cell(field) for field in column.flatten())
    return column.nbytes
