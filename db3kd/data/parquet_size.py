"""How much memory a Parquet file takes once it is read, told before it is."""

from pathlib import Path
from typing import Any

from db3kd.data.arrays import check_inflated, optional_package

_MOST_EXPANSION = 20
"""How many times its size a file of images may take; encoded images hardly shrink."""


def check_parquet_size(path: Path) -> None:
    """Raises ValueError if a Parquet file is broken, or takes far more memory than disk.

    That is more than `db3kd.data.arrays.most_inflated`, and more than 20 times the file's size: its
    pages are compressed, or one large cell stands for many rows.
    """
    parquet = optional_package("pyarrow.parquet")
    try:
        described = parquet.ParquetFile(path)
        size = max(_declared_size(described.metadata), _most_size(parquet, path, described))
    except Exception as error:  # Arrow's errors have no common base but this
        raise ValueError(f"{path}: expected a Parquet file, got a broken one: {error}") from error
    if size > _MOST_EXPANSION * path.stat().st_size:
        check_inflated(path, "all cells, if each is as large as the largest", size)


def _declared_size(metadata: Any) -> int:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return sum(
        group.column(number).total_uncompressed_size
        for group in groups
        for number in range(group.num_columns)
    )


def _most_size(parquet: Any, path: Path, described: Any) -> int:
    """Bytes of all cells, if each were as large as the largest that a dictionary holds.

    Read as a dictionary, the first row of a row group brings all cells that rows can share, once.
    """
    columns = [described.schema.column(number) for number in range(len(described.schema))]
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
    arrow, compute = optional_package("pyarrow"), optional_package("pyarrow.compute")
    if arrow.types.is_dictionary(column.type):
        return compute.max(compute.binary_length(column.dictionary)).as_py() or 0
    if arrow.types.is_struct(column.type):
        return sum(_largest_cell(field) for field in column.flatten())
    return column.nbytes
