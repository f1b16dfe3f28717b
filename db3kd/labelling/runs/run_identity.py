"""The identity of a label run: its manifest."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from db3kd.data.class_names import run_class_names
from db3kd.data.image_source import NamedImages
from db3kd.labelling.chunk_search import chunk_size
from db3kd.labelling.runs.source import Source
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.soft_labels import SoftLabelSettings
from db3kd.storage.existing_runs import begun_with
from db3kd.storage.manifest import CLASS_NAMES, make_manifest
from db3kd.teachers.base import Teacher, describe

DECISIONS = "decisions"
"""The stage in which all images are decided, and the name of its journal."""


def samples_per_shard(
    folder: str | Path, resume: bool, teacher: Teacher, settings: LabelSettings
) -> int:
    """Returns the number of samples in a shard of a run.

    A run that is resumed keeps the number that it was started with, because `chunk_size` depends on
    the memory of the device, and a run may be resumed on another device.
    """
    count = begun_with(folder).get("samples_per_shard") if resume else None
    if type(count) is int and count > 0:
        return count
    return chunk_size(teacher, settings)


def label_manifest(
    teacher: Teacher,
    images: NamedImages,
    settings: LabelSettings,
    *,
    source: Source | None,
    samples_per_shard: int,
    data_fingerprint: str,
    budget: int | None,
    limit: int | None = None,
    soft_labels: SoftLabelSettings | None = None,
    surrogate: str | Mapping[str, object] | None = None,
    index: Tensor | None = None,
) -> dict[str, Any]:
    """The manifest of a label run, for `RunFolder.open`.

    Args:
        teacher: The teacher of the run.
        images: The images of the run, in the teacher's numbering of the classes.
        settings: How they are measured.
        source: The source of the images; None if the caller has loaded them.
        samples_per_shard: The number of samples in a chunk.
        data_fingerprint: A digest that changes with the images.
        budget: Maximum number of queries of the run, with those of the surrogate, which
            `settings.queries` leaves out; None for no limit.
        limit: How many images of the source are drawn; None for all.
        soft_labels: How distances become soft labels; None for distances only.
        surrogate: `RunSurrogate.manifest_entry`; None without a surrogate.
        index: `[n] int64`, the images to label, in this order; None for all in their order.
    """
    entries: dict[str, object] = {
        "source": {"data": images.name} if source is None else source.with_features_of(images),
        "limit": limit,
        "teacher": describe(teacher),
        "queries": budget,
        "labelling": settings,
        "soft_labels": soft_labels,
        "samples_per_shard": samples_per_shard,
    }
    names = run_class_names(teacher, images)
    if names is not None:
        entries[CLASS_NAMES] = names
    if index is not None and not index.equal(torch.arange(len(images))):
        entries["index"] = hashlib.sha256(index.numpy().tobytes()).hexdigest()
    if surrogate is not None:
        entries["surrogate"] = surrogate
    return make_manifest(
        entries,
        seed=settings.seed,
        teacher_fingerprint=teacher.fingerprint(),
        classes=teacher.classes,
        data_fingerprint=data_fingerprint,
    )
