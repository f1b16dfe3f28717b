"""Pseudo samples, and the columns they have in a run folder."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from db3kd.data.uint8_pixels import to_float
from db3kd.storage.column_values import check_range, invalid_shard, read_column
from db3kd.storage.manifest import CLASS_NAMES, read_manifest
from db3kd.storage.shards import Kind, import_pyarrow, read_shards

if TYPE_CHECKING:
    import pyarrow

PSEUDO_SAMPLES = Kind("pseudo-samples", 1)
"""Run folders that hold pseudo samples."""

STATUSES = ("ok", "stuck", "budget")

_SNAPSHOT = re.compile(r"image_at_(\d+)")


@dataclass(frozen=True)
class PseudoSamples:
    """n images made for a teacher, and what it says of them.

    Attributes:
        pixels: uint8 [n, *image_shape]; level l stands for lower + (upper - lower)·l/255.
        decision: [n] int64, the teacher's class for each.
        start: [n] int64, the number of the start it came from, -1 for a crossing.
        moves: [n] int64, how often it was moved.
        distance: [n] float32, L2 in input units, to the nearest boundary point that the moves
            found; +inf where none was looked for.
        queries: [n] int64, spent on its moves.
        status: [n] of `STATUSES`: "ok" (all moves made), "stuck" (no boundary found, or no move
            that changes the image stays in the class), "budget" (its budget ended its moves).
        bounds: lowest and highest value of an image.
        classes: of the teacher.
        class_names: of the teacher's classes in the order of their numbers, or None.
        snapshots: levels and distance as above, by the number of moves after which they were noted.
    """

    pixels: Tensor
    decision: Tensor
    start: Tensor
    moves: Tensor
    distance: Tensor
    queries: Tensor
    status: list[str]
    bounds: tuple[float, float]
    classes: int
    snapshots: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.decision)

    def images(self) -> Tensor:
        """float32 [n, *image_shape] inside the bounds, to the bit what the teacher was asked."""
        return to_float(self.pixels, self.bounds)

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All parts as one, in their order.

        Raises:
            ValueError: there are no parts.
        """
        if not parts:
            raise ValueError("parts: expected at least one PseudoSamples, got none")
        first = parts[0]

        def join(name: str) -> Tensor:
            return torch.cat([getattr(part, name) for part in parts])

        return cls(
            *(join(name) for name in ("pixels", "decision", "start", "moves", "distance")),
            queries=join("queries"),
            status=[status for part in parts for status in part.status],
            bounds=first.bounds,
            classes=first.classes,
            class_names=first.class_names,
            snapshots={
                count: tuple(
                    torch.cat([part.snapshots[count][place] for part in parts]) for place in (0, 1)
                )
                for count in first.snapshots
            },
        )


def to_table(samples: PseudoSamples) -> "pyarrow.Table":
    """A shard's columns: those of `PseudoSamples`, an image as a list of its levels."""
    arrow, _ = import_pyarrow()

    def pictures(pixels: Tensor) -> "pyarrow.Array":
        flat = pixels.flatten(1)
        return arrow.FixedSizeListArray.from_arrays(
            arrow.array(flat.flatten().numpy()), flat.shape[1]
        )

    columns = {
        "image": pictures(samples.pixels),
        "decision": arrow.array(samples.decision.numpy()).cast(arrow.int32()),
        "start": arrow.array(samples.start.numpy()),
        "moves": arrow.array(samples.moves.numpy()).cast(arrow.int32()),
        "distance": arrow.array(samples.distance.numpy()),
        "queries": arrow.array(samples.queries.numpy()),
        "status": arrow.array(samples.status, arrow.string()),
    }
    for count, (pixels, distance) in sorted(samples.snapshots.items()):
        columns[f"image_at_{count}"] = pictures(pixels)
        columns[f"distance_at_{count}"] = arrow.array(distance.numpy())
    return arrow.table(columns)


def load_pseudo_samples(path: str | Path) -> PseudoSamples:
    """The pseudo samples in the run folder at `path`, finished or not, in the run's order.

    Raises:
        FileNotFoundError, ValueError: as `db3kd.storage.shards.read_shards`.
    """
    settings = read_manifest(path, PSEUDO_SAMPLES.format)["settings"]
    shape = tuple(settings["image_shape"])
    bounds = tuple(float(bound) for bound in settings["bounds"])
    shards = read_shards(path, PSEUDO_SAMPLES)
    classes = settings["classes"]
    samples = PseudoSamples.concat(
        [checked_shard(path, at, table, shape, bounds, classes) for at, table in shards]
    )
    names = settings.get(CLASS_NAMES)
    return samples if names is None else replace(samples, class_names=tuple(names))


def checked_shard(
    path: str | Path,
    position: int,
    table: "pyarrow.Table",
    shape: tuple[int, ...],
    bounds: tuple[float, float],
    classes: int,
) -> PseudoSamples:
    """The pseudo samples in the shard at a position of the run at `path`.

    Raises:
        ValueError: it holds values that no run writes; the message names file and column.
    """
    try:
        part = from_table(table, shape, bounds, classes)
        _check_values(part)
    except (KeyError, TypeError, ValueError) as error:
        raise invalid_shard(path, PSEUDO_SAMPLES, position, error) from error
    return part


def _check_values(part: PseudoSamples) -> None:
    check_range("decision", part.decision, 0, part.classes, "a class")
    check_range("start", part.start, -1, math.inf)
    check_range("moves", part.moves, 0, math.inf)
    check_range("queries", part.queries, 0, math.inf)
    check_range("distance", part.distance, 0, math.inf)
    for count, (_, distance) in part.snapshots.items():
        check_range(f"distance_at_{count}", distance, 0, math.inf)
    if not set(part.status) <= set(STATUSES):
        raise ValueError(
            f"column status: expected {STATUSES}, got {sorted(map(str, set(part.status)))}"
        )


def from_table(
    table: "pyarrow.Table", shape: tuple[int, ...], bounds: tuple[float, float], classes: int
) -> PseudoSamples:
    """What `to_table` wrote."""

    def column(name: str, dtype: torch.dtype = torch.int64) -> Tensor:
        return read_column(table, name, dtype)

    def pictures(name: str) -> Tensor:
        pixels = read_column(table, name, torch.uint8)
        if pixels.shape[1:] != (math.prod(shape),):
            raise ValueError(
                f"column {name}: expected {math.prod(shape)} levels an image, got "
                f"{list(pixels.shape[1:])}"
            )
        return pixels.view(len(table), *shape)

    noted = [match for name in table.column_names if (match := _SNAPSHOT.fullmatch(name))]
    return PseudoSamples(
        pixels=pictures("image"),
        decision=column("decision"),
        start=column("start"),
        moves=column("moves"),
        distance=column("distance", torch.float32),
        queries=column("queries"),
        status=table.column("status").to_pylist(),
        bounds=bounds,
        classes=classes,
        snapshots={
            int(match[1]): (pictures(match[0]), column(f"distance_at_{match[1]}", torch.float32))
            for match in noted
        },
    )
