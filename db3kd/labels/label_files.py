"""Reading labels from disk: from a run folder, all at once or by shard, or from one file."""

from collections.abc import Iterator
from pathlib import Path

from db3kd.arguments.plain import check_path
from db3kd.errors import InputError
from db3kd.labels.labels import FORMAT_KEY, LABELS, Labels, from_table
from db3kd.storage.column_values import check_distinct, invalid_shard
from db3kd.storage.manifest import MANIFEST, read_manifest
from db3kd.storage.shards import parse_parquet, read_shards


def load_labels(path: str | Path) -> Labels:
    """Reads all labels of a run folder, finished or not, or of a file that `Labels.save` wrote.

    Example:
        >>> labels = db3kd.load_labels("runs/mine")

    Args:
        path: The run folder or the file.

    Raises:
        FileNotFoundError: If there is no such run or file, or if the run has no shard yet.
        ValueError: If it holds no labels, or if they are damaged or incomplete.
    """
    check_path(path, "path")
    if Path(path).is_file():
        return _load_file(Path(path))
    labels = Labels.concat([labels for _, labels in iterate_shards(path)])
    check_distinct(f"{path}: index", labels.index)
    manifest = read_manifest(path, LABELS.format)
    paid = manifest["totals"].get("queries") if manifest["state"] == "finished" else None
    if paid not in (None, int(labels.queries.sum())):
        raise InputError(
            f"{path}: column queries: expected a total of {paid:,} as in {MANIFEST}, got "
            f"{int(labels.queries.sum()):,}"
        )
    return labels


def iterate_shards(path: str | Path, *, missing_ok: bool = False) -> Iterator[tuple[int, Labels]]:
    """Reads the shards of a run one by one, so that memory does not grow with the run.

    Args:
        path: The run folder.
        missing_ok: Whether shards may be missing, even all of them, or the run itself.

    Yields:
        The position of a shard's first sample in the run, and the shard's labels.

    Raises:
        FileNotFoundError: If the folder holds no run, or no shard yet.
        ValueError: If the run holds no labels, a shard is damaged or lacks a column, or a shard of
            a finished run is missing.
    """
    for position, table in read_shards(path, LABELS, missing_ok=missing_ok):
        try:
            labels = from_table(table)
            check_distinct("column index", labels.index)
        except (KeyError, TypeError, ValueError) as error:
            raise invalid_shard(path, LABELS, position, error) from error
        yield position, labels


def _load_file(path: Path) -> Labels:
    table = parse_parquet(path, path.read_bytes(), "a Parquet file of labels")
    found = (table.schema.metadata or {}).get(FORMAT_KEY, b"none").decode(errors="replace")
    if found != LABELS.format:
        raise InputError(f"{path}: expected format {LABELS.format!r}, got {found!r}")
    try:
        return from_table(table)
    except (KeyError, TypeError, ValueError) as error:
        what = str(error.args[0]) if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: does not hold valid labels: {what}") from error
