"""Pseudo samples: images that were made for a teacher, and their columns in a run folder."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, overload

import torch
from torch import Tensor

from db3kd.arguments.arrays import as_number
from db3kd.arguments.images import CONVENTIONS, interval_text
from db3kd.data.files.uint8_pixels import to_float
from db3kd.data.image_set import ImageSet
from db3kd.errors import ArgumentError, InputError
from db3kd.storage.column_values import check_range, invalid_shard, read_column
from db3kd.storage.kinds import DifferenceRules, Kind
from db3kd.storage.manifest import current_names, read_manifest
from db3kd.storage.shards import import_pyarrow, read_shards
from db3kd.wording import counted

if TYPE_CHECKING:
    import pyarrow

PSEUDO_SAMPLES = Kind(
    "pseudo-samples",
    2,
    differences=DifferenceRules(
        following=("settings.synthesis",), budget="settings.synthesis.queries"
    ),
)
"""Run folders that hold pseudo samples."""

STATUSES = ("ok", "stuck", "budget")
"""How the moves of a pseudo sample ended."""

_SNAPSHOT = re.compile(r"image_at_(\d+)")
_TENSORS = ("pixels", "decision", "start", "moves", "distance", "queries")


@dataclass(frozen=True, repr=False)
class PseudoSamples:
    """Images that were made for a teacher, with its decisions.

    Example:
        >>> samples = db3kd.synthesize(teacher, db3kd.SynthesisSettings(samples=200))
        >>> samples.images().shape
        torch.Size([200, 1, 28, 28])

    Attributes:
        pixels: [n, *image_shape] uint8; pixel p is the value lower + (upper - lower) · p / 255.
        decision: [n] int64, the teacher's class of each image.
        start: [n] int64, the number of the starting image; -1 if there was none.
        moves: [n] int64, the number of moves.
        distance: [n] float32, L2 in input units, to the nearest boundary point that the moves
            found; +inf if none was searched for.
        queries: [n] int64, the queries of its moves.
        status: n of `STATUSES`: "ok" (all moves were made), "stuck" (no boundary was found, or no
            move changes the image without leaving its class), "budget" (the budget ended its
            moves).
        bounds: Lowest and highest value of an image.
        classes: The teacher's number of classes.
        snapshots: Pixels and distance as above after some numbers of moves.
        class_names: The teacher's class names in the order of the class numbers, or None.
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

    @overload
    def __getitem__(self, index: SupportsIndex) -> tuple[Tensor, int]: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: SupportsIndex | slice) -> "tuple[Tensor, int] | Self":
        """Returns one image within the bounds with its decision, or a part of the samples."""
        if not isinstance(index, slice):
            advice = "for several samples, pass a slice"
            number = as_number(index, len(self), advice=advice)
            return to_float(self.pixels[number], self.bounds), int(self.decision[number])
        columns: Any = {name: getattr(self, name)[index] for name in (*_TENSORS, "status")}
        return replace(
            self,
            **columns,
            snapshots={
                count: (pixels[index], distance[index])
                for count, (pixels, distance) in self.snapshots.items()
            },
        )

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.status.count(status)} {status}" for status in STATUSES)
        return (
            f"PseudoSamples({counted(len(self), 'image')} of shape {tuple(self.pixels.shape[1:])} "
            f"in {interval_text(self.bounds)}, {self.classes} classes; {counts})"
        )

    def images(self) -> Tensor:
        """Returns the images within the bounds, [n, *image_shape] float32.

        They equal those that were queried, bit for bit.
        """
        return to_float(self.pixels, self.bounds)

    def as_image_set(self, name: str = "pseudo samples") -> ImageSet:
        """Returns the images in [0, 1], labelled with the teacher's decisions.

        Args:
            name: What messages call the set.

        Raises:
            ValueError: If it is not clear how to map the bounds to [0, 1], or if an image set would
                read images of this shape differently.
        """
        if self.bounds not in CONVENTIONS:
            raise ArgumentError(
                name,
                f"image sets hold values in [0, 1]; expected bounds that map to that range "
                f"({', '.join(map(interval_text, CONVENTIONS))}), got "
                f"{interval_text(self.bounds)}; load_pseudo_samples(...).images() returns the "
                "images as they are",
            )
        images = ImageSet.from_arrays(
            self.pixels.numpy(), self.decision, name, self.classes, self.class_names
        )
        shape = tuple(self.pixels.shape[1:])
        if images.image_shape != shape:
            raise ArgumentError(
                name,
                f"expected pseudo samples of shape (channels, height, width) or (values,) "
                f"for an image set, got {shape}, which would be read as {images.image_shape}",
            )
        return images

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Concatenates pseudo samples in their order.

        Raises:
            ValueError: If there are no parts.
        """
        if not parts:
            raise ArgumentError("parts", "expected at least one PseudoSamples, got none")
        columns: Any = {
            name: torch.cat([getattr(each, name) for each in parts]) for name in _TENSORS
        }
        return replace(
            parts[0],
            **columns,
            status=[status for part in parts for status in part.status],
            snapshots={
                count: (
                    torch.cat([part.snapshots[count][0] for part in parts]),
                    torch.cat([part.snapshots[count][1] for part in parts]),
                )
                for count in parts[0].snapshots
            },
        )


def to_table(samples: PseudoSamples) -> "pyarrow.Table":
    """Returns the columns of a shard: those of `PseudoSamples`, an image as a list of pixels."""
    arrow, _ = import_pyarrow()

    def image_lists(pixels: Tensor) -> "pyarrow.Array":
        flat = pixels.flatten(1)
        return arrow.FixedSizeListArray.from_arrays(
            arrow.array(flat.flatten().numpy()), flat.shape[1]
        )

    columns = {
        "image": image_lists(samples.pixels),
        "decision": arrow.array(samples.decision.numpy()).cast(arrow.int32()),
        "start": arrow.array(samples.start.numpy()),
        "moves": arrow.array(samples.moves.numpy()).cast(arrow.int32()),
        "distance": arrow.array(samples.distance.numpy()),
        "queries": arrow.array(samples.queries.numpy()),
        "status": arrow.array(samples.status, arrow.string()),
    }
    for count, (pixels, distance) in sorted(samples.snapshots.items()):
        columns[f"image_at_{count}"] = image_lists(pixels)
        columns[f"distance_at_{count}"] = arrow.array(distance.numpy())
    return arrow.table(columns)


def load_pseudo_samples(path: str | Path) -> PseudoSamples:
    """Reads the pseudo samples of a run folder, finished or not, in the run's order.

    Example:
        >>> samples = db3kd.load_pseudo_samples("runs/pseudo")

    Raises:
        FileNotFoundError: If there is no run in the folder.
        ValueError: If the run is damaged, or if it holds no pseudo samples.
    """
    manifest = read_manifest(path, PSEUDO_SAMPLES.format)
    settings = manifest["settings"]
    shape = tuple(settings["image_shape"])
    lower, upper = (float(bound) for bound in settings["bounds"])
    shards = read_shards(path, PSEUDO_SAMPLES)
    classes = settings["classes"]
    samples = PseudoSamples.concat(
        [checked_shard(path, at, table, shape, (lower, upper), classes) for at, table in shards]
    )
    names = current_names(manifest)
    return samples if names is None else replace(samples, class_names=names)


def checked_shard(
    path: str | Path,
    position: int,
    table: "pyarrow.Table",
    shape: tuple[int, ...],
    bounds: tuple[float, float],
    classes: int,
) -> PseudoSamples:
    """Reads the pseudo samples of one shard, and checks their values.

    Raises:
        ValueError: If the shard holds values that no run writes; the message names file and column.
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
        raise InputError(
            f"column status: expected {STATUSES}, got {sorted(map(str, set(part.status)))}"
        )


def from_table(
    table: "pyarrow.Table", shape: tuple[int, ...], bounds: tuple[float, float], classes: int
) -> PseudoSamples:
    """Converts the columns of a shard, as `to_table` returns them, to pseudo samples.

    Raises:
        KeyError: If a column is missing.
        ValueError: If a column has values of another type or shape.
    """

    def column(name: str, dtype: torch.dtype = torch.int64) -> Tensor:
        return read_column(table, name, dtype)

    def images(name: str) -> Tensor:
        pixels = read_column(table, name, torch.uint8)
        if pixels.shape[1:] != (math.prod(shape),):
            raise InputError(
                f"column {name}: expected {math.prod(shape)} pixels per image, got "
                f"{list(pixels.shape[1:])}"
            )
        return pixels.view(len(table), *shape)

    snapshots = [match for name in table.column_names if (match := _SNAPSHOT.fullmatch(name))]
    return PseudoSamples(
        pixels=images("image"),
        decision=column("decision"),
        start=column("start"),
        moves=column("moves"),
        distance=column("distance", torch.float32),
        queries=column("queries"),
        status=table.column("status").to_pylist(),
        bounds=bounds,
        classes=classes,
        snapshots={
            int(match[1]): (images(match[0]), column(f"distance_at_{match[1]}", torch.float32))
            for match in snapshots
        },
    )
