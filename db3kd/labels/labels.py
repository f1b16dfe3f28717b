"""`Labels`: the distances, queries and soft labels of samples, and their columns in a table."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import torch
from torch import Tensor

from db3kd.arguments.plain import check_count, check_fields, check_path, check_type
from db3kd.errors import ArgumentError, NotAFileError
from db3kd.extras import import_extra
from db3kd.labels.targets import other_classes
from db3kd.querying.search import UNANSWERED
from db3kd.storage.column_values import check_range, check_sums, read_column
from db3kd.storage.filesystem import check_new_file, write_atomically
from db3kd.storage.kinds import DifferenceRules, Kind
from db3kd.storage.shards import import_pyarrow, to_parquet
from db3kd.wording import counted

if TYPE_CHECKING:
    import pandas
    import pyarrow

SURROGATES = "surrogate"
"""Entry that describes the surrogate that a run trained itself: a list of one mapping."""

LABELS = Kind(
    "labels",
    6,
    lists={SURROGATES: ("queries",)},
    differences=DifferenceRules(
        causes=("settings.queries",),
        later_causes=("settings.surrogate",),
        following=("settings.labelling", "settings.surrogate"),
        budget="settings.queries",
    ),
)
"""The kind of run folder that holds labels."""

Status = Literal["ok", "partly reached", "unreached", "contradictory", "budget"]
"""How far a sample was labelled; see `Labels.status`."""

STATUSES: tuple[Status, ...] = get_args(Status)
"""All statuses of a sample."""

FORMAT_KEY = b"db3kd.format"
"""Key in a Parquet file's metadata for the format of its columns, such as "db3kd labels 6"."""

_TEMPERATURE_KEY = b"db3kd.soft_label_temperature"
_SNAPSHOT = re.compile(r"distances_at_(\d+)")
_REQUIRED = ("index", "decision", "distances", "queries")
_OPTIONAL = ("label", "soft_labels", "searched")


@dataclass(frozen=True, repr=False)
class Labels:
    """The labels of n samples: a teacher's decisions and the distances to C classes.

    `db3kd.label` returns them and `db3kd.load_labels` reads them from disk:

    Example:
        >>> labels = db3kd.label(teacher, images)
        >>> labels.save("labels.parquet")
        >>> labels.to_pandas().sort_values("nearest_distance").head()

    Attributes:
        index: [n] int64, each sample's index in its data set; `ImageSet.name_of` returns its file
            or row, and `ImageSet.subset(labels.index)` the images of all samples.
        decision: [n] int64, the teacher's class for each sample; -1 if the budget refused it.
        distances: [n, C] float32, L2 in input units; +inf if a class was not reached. Measured
            distances are upper bounds of the true ones. The column of the predicted class is 0 and
            has no meaning.
        queries: [n, C] int64, queries spent per class. The column of the predicted class counts
            the query that decided the sample.
        status: n of `STATUSES`: "ok" (a distance to every class), "partly reached" (to some; a
            class that the teacher chose for no image is never reached), "unreached" (to none),
            "contradictory" (the teacher put an equal image in another class, whose distance is 0)
            or "budget" (the budget did not cover the decision).
        label: [n] int64, the sample's class in its data set, -1 if it is unknown; None if the
            data set has no classes.
        searched: [n, C] bool, True if the distance was measured and False if it is an estimate
            (see `db3kd.labels.targets`). None if all other classes were measured.
        snapshots: Distances as above, keyed by the number of queries per class that they cost.
        soft_labels: [n, C] float32, rows sum to 1, or are all 0 for samples without one; or None.
        soft_label_temperature: The temperature of `soft_labels`, which the student's loss must
            share. None without soft labels, or if it is unknown.

    Raises:
        TypeError: If an attribute has another type.
        ValueError: If a shape, dtype or value differs from the above.
    """

    index: Tensor
    decision: Tensor
    distances: Tensor
    queries: Tensor
    status: list[Status]
    label: Tensor | None = None
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    soft_labels: Tensor | None = None
    searched: Tensor | None = None
    soft_label_temperature: float | None = None

    def __post_init__(self) -> None:
        optional = [name for name in _OPTIONAL if getattr(self, name) is not None]
        check_fields(self, _without_gradient, *_REQUIRED, *optional)
        check_type(self.snapshots, dict, "snapshots", "a dict of tensors")
        snapshots = {
            check_count(count, "snapshots", 0): _without_gradient(value, f"snapshots[{count}]")
            for count, value in self.snapshots.items()
        }
        object.__setattr__(self, "snapshots", snapshots)
        n = len(self.index) if self.index.ndim == 1 else "n"
        classes = self.distances.shape[-1] if self.distances.ndim == 2 else "C"
        _check("index", self.index, (n,), torch.int64)
        _check("decision", self.decision, (n,), torch.int64)
        _check("distances", self.distances, (n, classes), torch.float32)
        _check("queries", self.queries, (n, classes), torch.int64)
        _check("label", self.label, (n,), torch.int64)
        _check("searched", self.searched, (n, classes), torch.bool)
        for count, distances in self.snapshots.items():
            _check(f"snapshots[{count}]", distances, (n, classes), torch.float32)
        _check("soft_labels", self.soft_labels, (n, classes), torch.float32)
        if len(self.status) != n or not set(self.status) <= set(STATUSES):
            raise ArgumentError(
                "status",
                f"expected {n} of {STATUSES}, got {len(self.status)}: {sorted(set(self.status))}",
            )
        _check_values(self)
        temperature = self.soft_label_temperature
        if temperature is not None and not (
            self.soft_labels is not None and 0 < temperature < math.inf
        ):
            raise ArgumentError(
                "soft_label_temperature",
                "expected a finite number above 0 together with "
                f"soft_labels, or None, got {temperature!r}"
                f"{'' if self.soft_labels is not None else ' without soft_labels'}",
            )

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        measured = self.measured_distances
        mean = f"{measured.mean().item():.4g}" if len(measured) else "none"
        soft = "none"
        if self.soft_labels is not None:
            temperature = self.soft_label_temperature
            soft = (
                "of unknown temperature" if temperature is None else f"temperature {temperature:g}"
            )
        return (
            f"Labels({counted(len(self), 'sample')}, {self.classes} classes,\n"
            f"       {int(self.targets.sum()):,} measured pairs, "
            f"{counted(int(self.queries.sum()), 'query')}, mean distance {mean},\n"
            f"       soft labels: {soft})"
        )

    @property
    def classes(self) -> int:
        """The number of classes C."""
        return self.distances.shape[1]

    @property
    def search_queries(self) -> int:
        """The number of queries that measured distances, without those that decided samples."""
        return int(self.queries.sum()) - int((self.decision != UNANSWERED).sum())

    @property
    def targets(self) -> Tensor:
        """[n, C] bool: the classes that each decided sample was measured against."""
        others = other_classes(self.decision, self.classes)
        return others if self.searched is None else others & self.searched

    @property
    def measured_distances(self) -> Tensor:
        """[k] float64: the finite distances that were measured, L2 in input units.

        Estimates and the zeros of contradictory samples are left out.
        """
        measured = self.distances.isfinite() & (self.distances > 0)
        return self.distances[self.targets & measured].double()

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Joins parts in their order.

        Raises:
            ValueError: If there are no parts, or if they differ in classes or in optional fields.
        """
        if not parts:
            raise ArgumentError("parts", "expected at least one Labels, got none")
        first = parts[0]
        for part in parts[1:]:
            if part._layout() != first._layout():
                raise ArgumentError(
                    "parts", f"expected {first._layout()} in every part, got {part._layout()}"
                )
        columns: Any = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in (*_REQUIRED, *_OPTIONAL)
            if getattr(first, name) is not None  # then it is in all parts
        }
        return replace(
            first,
            **columns,
            status=[status for part in parts for status in part.status],
            snapshots={
                count: torch.cat([part.snapshots[count] for part in parts])
                for count in first.snapshots
            },
        )

    def save(self, path: str | Path) -> None:
        """Writes the labels to one Parquet file, which `db3kd.load_labels` reads back.

        The write is atomic and replaces an existing file. The columns are the same as in the shards
        of a run folder: the attributes above, with a separate column for each snapshot
        (`distances_at_1000`).

        Args:
            path: The path of the file, for example "labels.parquet".

        Raises:
            IsADirectoryError: If `path` is a folder.
            ImportError: If pyarrow is not installed.
            OSError: If the file cannot be written.
            ValueError: If a value was changed to one that `Labels` refuses.
        """
        path = check_path(path, "path")
        if path.is_dir():
            raise NotAFileError(
                f"path: expected a file such as labels.parquet, got the folder {path}; to label "
                "into a folder, use db3kd.label(..., out=)"
            )
        check_new_file(path, "path")
        _check_values(self)  # tensors can be written to
        table = to_table(self)
        metadata = {**(table.schema.metadata or {}), FORMAT_KEY: LABELS.format.encode()}
        write_atomically(path, to_parquet(table.replace_schema_metadata(metadata)))

    def to_pandas(self) -> "pandas.DataFrame":
        """The labels as a table with one row per sample.

        Returns:
            A data frame with these columns. `index`, `decision`, `status`, and `label` if there is
            one, are as above. `queries` is the sample's total. `nearest_class` and
            `nearest_distance` are the class with the smallest measured distance, -1 and +inf if
            no class was reached. `distance_0`, `distance_1`, ... are the distances to each class
            (0 for the predicted class), and `soft_label_0`, ... the soft labels, if there are any.

        Raises:
            ImportError: If pandas is not installed.
        """
        pandas = import_extra("pandas", "data", "to_pandas")
        measured = self.distances.masked_fill(~self.targets, torch.inf)
        nearest = measured.min(1)
        columns = {
            "index": self.index,
            "decision": self.decision,
            "queries": self.queries.sum(1),
            "nearest_class": nearest.indices.masked_fill(nearest.values.isinf(), -1),
            "nearest_distance": nearest.values,
        }
        if self.label is not None:
            columns["label"] = self.label
        for number in range(self.classes):
            columns[f"distance_{number}"] = self.distances[:, number]
        if self.soft_labels is not None:
            for number in range(self.classes):
                columns[f"soft_label_{number}"] = self.soft_labels[:, number]
        arrays = {name: values.cpu().numpy() for name, values in columns.items()}
        frame = pandas.DataFrame(arrays)
        frame.insert(2, "status", self.status)
        return frame

    def _layout(self) -> str:
        """Describes the properties that two `Labels` must share to be joined."""
        soft = "without soft labels"
        if self.soft_labels is not None:
            soft = f"with soft labels of temperature {self.soft_label_temperature}"
        return (
            f"{self.classes} classes, {'a' if self.label is not None else 'no'} label, "
            f"snapshots at {sorted(self.snapshots)}, {soft}, "
            f"{'some' if self.searched is not None else 'all'} classes searched"
        )


def _without_gradient(value: Tensor, name: str) -> Tensor:
    """Returns a tensor without its gradient, with which training would go back into what made it.

    Raises:
        TypeError: If it is no tensor.
    """
    check_type(value, Tensor, name, "a tensor")
    return value.detach() if value.requires_grad else value


def _check(
    name: str, tensor: Tensor | None, shape: tuple[int | str, ...], dtype: torch.dtype
) -> None:
    if tensor is not None and (tuple(tensor.shape) != shape or tensor.dtype != dtype):
        expected = ", ".join(map(str, shape))
        raise ArgumentError(
            name, f"expected [{expected}] {dtype}, got {list(tensor.shape)} {tensor.dtype}"
        )


def to_table(labels: Labels) -> "pyarrow.Table":
    """Labels as the columns of a Parquet file; the temperature is in the table's metadata."""
    arrow, _ = import_pyarrow()

    def lists(values: Tensor, kind: "pyarrow.DataType") -> "pyarrow.Array":
        flat = arrow.array(values.flatten().cpu().numpy()).cast(kind)
        return arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])

    columns = {
        "index": arrow.array(labels.index.cpu().numpy()),
        "decision": arrow.array(labels.decision.cpu().numpy()).cast(arrow.int32()),
    }
    if labels.label is not None:
        columns["label"] = arrow.array(labels.label.cpu().numpy()).cast(arrow.int32())
    columns["status"] = arrow.array(labels.status, arrow.string())
    columns["queries"] = lists(labels.queries, arrow.int32())
    columns["distances"] = lists(labels.distances, arrow.float32())
    if labels.searched is not None:
        columns["searched"] = lists(labels.searched, arrow.bool_())
    for count, distances in sorted(labels.snapshots.items()):
        columns[f"distances_at_{count}"] = lists(distances, arrow.float32())
    if labels.soft_labels is not None:
        columns["soft_labels"] = lists(labels.soft_labels, arrow.float32())
    table = arrow.table(columns)
    if labels.soft_label_temperature is None:
        return table
    return table.replace_schema_metadata(
        {_TEMPERATURE_KEY: repr(float(labels.soft_label_temperature)).encode()}
    )


def from_table(table: "pyarrow.Table") -> Labels:
    """The labels in a table that `to_table` made.

    Raises:
        KeyError: If a column is missing.
        TypeError, ValueError: If a column or one of its values is not as `Labels` describes it.
    """

    def optional(name: str, dtype: torch.dtype) -> Tensor | None:
        return read_column(table, name, dtype) if name in table.column_names else None

    snapshots = (_SNAPSHOT.fullmatch(name) for name in table.column_names)
    temperature = (table.schema.metadata or {}).get(_TEMPERATURE_KEY)
    return Labels(
        index=read_column(table, "index", torch.int64),
        decision=read_column(table, "decision", torch.int64),
        distances=read_column(table, "distances", torch.float32),
        queries=read_column(table, "queries", torch.int64),
        status=table.column("status").to_pylist(),
        label=optional("label", torch.int64),
        snapshots={
            int(match[1]): read_column(table, match[0], torch.float32)
            for match in snapshots
            if match
        },
        soft_labels=optional("soft_labels", torch.float32),
        searched=optional("searched", torch.bool),
        soft_label_temperature=None if temperature is None else float(temperature),
    )


def _check_values(labels: Labels) -> None:
    """Raises ValueError, naming the column, if a value cannot come from a labelling."""
    classes = labels.classes
    check_range("index", labels.index, 0, math.inf)
    check_range("decision", labels.decision, -1, classes, "a class, or -1,")
    if labels.label is not None:
        check_range("label", labels.label, -1, classes, "a class, or -1,")
    check_range("queries", labels.queries, 0, 2**31)
    check_range("distances", labels.distances, 0, math.inf)
    for count, distances in labels.snapshots.items():
        check_range(f"distances_at_{count}", distances, 0, math.inf)
    if labels.soft_labels is not None:
        check_range("soft_labels", labels.soft_labels, 0, 1 + 1e-6)
        check_sums("soft_labels", labels.soft_labels)
