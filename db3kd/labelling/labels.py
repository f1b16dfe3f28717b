"""Labels, and the columns they have in a run folder.

Anything that reads Parquet reads them; the columns are those of `Labels`, with each snapshot in a
column of its own (`distances_at_1000`). Reading and writing need pyarrow.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from db3kd.labelling.targets import other_classes
from db3kd.storage.column_values import (
    check_distinct,
    check_range,
    check_sums,
    invalid_shard,
    read_column,
)
from db3kd.storage.manifest import MANIFEST, read_manifest
from db3kd.storage.shards import Kind, import_pyarrow, read_shards

if TYPE_CHECKING:
    import pyarrow

LABELS = Kind("labels", 2)
"""Run folders that hold labels."""

STATUSES = ("ok", "partly reached", "unreached", "contradictory", "budget")

_SNAPSHOT = re.compile(r"distances_at_(\d+)")


@dataclass(frozen=True)
class Labels:
    """What a run has learnt of n samples against C classes.

    Attributes:
        index: [n] int64, each sample's index in its data set.
        decision: [n] int64, the teacher's class for the sample: its own class.
        distances: [n, C] float32, L2 in input units; +inf where a class was not reached. The own
            column means nothing.
        queries: [n, C] int64, queries spent per class; the own column holds those of the sample's
            own decision.
        status: [n] of `STATUSES`: "ok" (a distance to every class), "partly reached", "unreached"
            (to none), "contradictory" (the teacher put an equal image in another class, whose
            distance is 0), "budget" (a budget ended the search).
        label: [n] int64, the data set's own class, -1 where it has none; or None.
        searched: [n, C] bool, where the distance was measured; elsewhere it is estimated (see
            db3kd.labelling.targets). None where all other classes were.
        snapshots: distances as above, by the number of queries per class they had cost.
        soft_labels: [n, C] float32, rows sum to 1; or None.

    Raises:
        ValueError: a shape, dtype or status is not as above.
    """

    index: Tensor
    decision: Tensor
    distances: Tensor
    queries: Tensor
    status: list[str]
    label: Tensor | None = None
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    soft_labels: Tensor | None = None
    searched: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.index)
        classes = self.distances.shape[-1] if self.distances.ndim == 2 else "C"
        _check("index", self.index, (n,), torch.int64)
        _check("decision", self.decision, (n,), torch.int64)
        _check("distances", self.distances, (n, classes), torch.float32)
        _check("queries", self.queries, (n, classes), torch.int64)
        if self.label is not None:
            _check("label", self.label, (n,), torch.int64)
        if self.searched is not None:
            _check("searched", self.searched, (n, classes), torch.bool)
        for count, distances in self.snapshots.items():
            _check(f"snapshots[{count}]", distances, (n, classes), torch.float32)
        if self.soft_labels is not None:
            _check("soft_labels", self.soft_labels, (n, classes), torch.float32)
        if len(self.status) != n or not set(self.status) <= set(STATUSES):
            raise ValueError(
                f"status: expected {n} of {STATUSES}, got {len(self.status)}: "
                f"{sorted(set(self.status))}"
            )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def classes(self) -> int:
        return self.distances.shape[1]

    @property
    def targets(self) -> Tensor:
        """[n, C] bool: the classes whose distance was measured, of each answered sample."""
        others = other_classes(self.decision, self.classes)
        return others if self.searched is None else others & self.searched

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """One `Labels` of all parts, in their order.

        Raises:
            ValueError: there are no parts, or they differ in classes or in what they hold.
        """
        if not parts:
            raise ValueError("parts: expected at least one Labels, got none")
        first = parts[0]
        for part in parts[1:]:
            if part._layout() != first._layout():
                raise ValueError(
                    f"parts: expected {first._layout()} in every part, got {part._layout()}"
                )

        def join(tensors: list[Tensor | None]) -> Tensor | None:
            return None if tensors[0] is None else torch.cat(tensors)

        return cls(
            index=join([part.index for part in parts]),
            decision=join([part.decision for part in parts]),
            distances=join([part.distances for part in parts]),
            queries=join([part.queries for part in parts]),
            status=[status for part in parts for status in part.status],
            label=join([part.label for part in parts]),
            snapshots={
                count: join([part.snapshots[count] for part in parts]) for count in first.snapshots
            },
            soft_labels=join([part.soft_labels for part in parts]),
            searched=join([part.searched for part in parts]),
        )

    def _layout(self) -> str:
        """What must agree for two `Labels` to lie in one run."""
        return (
            f"{self.classes} classes, {'a' if self.label is not None else 'no'} label, "
            f"snapshots at {sorted(self.snapshots)}, "
            f"{'with' if self.soft_labels is not None else 'without'} soft labels, "
            f"{'some' if self.searched is not None else 'all'} classes searched"
        )


def _check(name: str, tensor: Tensor, shape: tuple[int | str, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        wanted = ", ".join(map(str, shape))
        raise ValueError(
            f"{name}: expected [{wanted}] {dtype}, got {list(tensor.shape)} {tensor.dtype}"
        )


def load_labels(path: str | Path) -> Labels:
    """All labels of the run folder at `path`, finished or not, in the run's order.

    Raises:
        FileNotFoundError, ValueError: as `iterate_shards`.
    """
    labels = Labels.concat([labels for _, labels in iterate_shards(path)])
    check_distinct(f"{path}: index", labels.index)
    manifest = read_manifest(path, LABELS.format)
    paid = manifest["totals"].get("queries") if manifest["state"] == "finished" else None
    if paid not in (None, int(labels.queries.sum())):
        raise ValueError(
            f"{path}: column queries: expected {paid:,} in all as {MANIFEST} says, got "
            f"{int(labels.queries.sum()):,}"
        )
    return labels


def iterate_shards(path: str | Path) -> Iterator[tuple[int, Labels]]:
    """The run's shards and the positions of their first samples, one by one.

    So a reader's memory need not grow with the run.

    Raises:
        FileNotFoundError: the folder holds no run, or no shard yet.
        ValueError: it holds no labels, a shard is damaged or lacks a column, or one is missing
            from a finished run.
    """
    for position, table in read_shards(path, LABELS):
        try:
            labels = from_table(table)
            _check_values(labels)
        except (KeyError, TypeError, ValueError) as error:
            raise invalid_shard(path, LABELS, position, error) from error
        yield position, labels


def _check_values(labels: Labels) -> None:
    """Raises ValueError, naming the column, for values that no run writes."""
    classes = labels.classes
    check_range("index", labels.index, 0, math.inf)
    check_distinct("column index", labels.index)
    check_range("decision", labels.decision, -1, classes, "a class, or -1,")
    check_range("label", labels.label, -1, classes, "a class, or -1,")
    check_range("queries", labels.queries, 0, 2**31)
    check_range("distances", labels.distances, 0, math.inf)
    for count, distances in labels.snapshots.items():
        check_range(f"distances_at_{count}", distances, 0, math.inf)
    if labels.soft_labels is not None:
        check_range("soft_label", labels.soft_labels, 0, 1 + 1e-6)
        check_sums("soft_label", labels.soft_labels)


def to_table(labels: Labels) -> "pyarrow.Table":
    """Labels as a shard's columns."""
    arrow, _ = import_pyarrow()

    def rows(values: Tensor, kind: "pyarrow.DataType") -> "pyarrow.Array":
        flat = arrow.array(values.flatten().cpu().numpy()).cast(kind)
        return arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])

    label = torch.full_like(labels.index, -1) if labels.label is None else labels.label
    columns = {
        "index": arrow.array(labels.index.cpu().numpy()),
        "decision": arrow.array(labels.decision.cpu().numpy()).cast(arrow.int32()),
        "label": arrow.array(label.cpu().numpy()).cast(arrow.int32()),
        "status": arrow.array(labels.status, arrow.string()),
        "queries": rows(labels.queries, arrow.int32()),
        "distances": rows(labels.distances, arrow.float32()),
    }
    if labels.searched is not None:
        columns["searched"] = rows(labels.searched, arrow.bool_())
    for count, distances in sorted(labels.snapshots.items()):
        columns[f"distances_at_{count}"] = rows(distances, arrow.float32())
    if labels.soft_labels is not None:
        columns["soft_label"] = rows(labels.soft_labels, arrow.float32())
    return arrow.table(columns)


def from_table(table: "pyarrow.Table") -> Labels:
    """The labels in a shard.

    Raises:
        KeyError, ValueError: a column is missing or is not as in `Labels`.
    """

    def column(name: str, dtype: torch.dtype) -> Tensor:
        return read_column(table, name, dtype)

    def optional(name: str, dtype: torch.dtype) -> Tensor | None:
        return column(name, dtype) if name in table.column_names else None

    snapshots = (_SNAPSHOT.fullmatch(name) for name in table.column_names)
    return Labels(
        index=column("index", torch.int64),
        decision=column("decision", torch.int64),
        distances=column("distances", torch.float32),
        queries=column("queries", torch.int64),
        status=table.column("status").to_pylist(),
        label=column("label", torch.int64),
        snapshots={int(match[1]): column(match[0], torch.float32) for match in snapshots if match},
        soft_labels=optional("soft_label", torch.float32),
        searched=optional("searched", torch.bool),
    )
