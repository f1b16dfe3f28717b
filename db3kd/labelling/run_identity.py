"""What makes a label run the same run: its manifest, and the digests of its images."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.data.class_names import run_class_names
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import NamedImages
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.chunk_search import surrogate_for
from db3kd.labelling.settings import LabelSettings
from db3kd.storage.manifest import CLASS_NAMES, manifest
from db3kd.storage.run_images import RunImages
from db3kd.teachers.base import Teacher, describe
from db3kd.teachers.module import module_fingerprint

DECISIONS = "decisions"
"""The stage in which all images are decided, and its journal's name."""

NAMES = ("settings.source.data", "settings.teacher")
"""What may differ when a run is resumed: the fingerprints tell whether these are the same."""


def run_images(
    images: ImageSet, settings: LabelSettings, classes: int, *, check: bool = False
) -> RunImages:
    """What the folder of a run of these images needs to know of them.

    classes: of the teacher. check: whether to do what `images.check()` does in the same pass.
    """
    limits = divide_budget(settings, len(images), classes)
    order = (limits > 0).nonzero()[:, 0].numpy()
    return RunImages(images.digests(check=check), images.name_of, order, DECISIONS)


def label_manifest(
    teacher: Teacher,
    images: NamedImages,
    settings: LabelSettings,
    *,
    source: object,
    samples_per_shard: int,
    data_fingerprint: str,
    limit: int | None = None,
    soft_labels: object = None,
    surrogate: nn.Module | None = None,
    index: Tensor | None = None,
) -> dict[str, Any]:
    """The manifest of a label run, ready for `RunFolder.open`.

    Args:
        teacher: that is asked.
        images: that are labelled, in its numbering of the classes.
        settings: how they are measured.
        source: where they come from, as a dataclass or mapping of plain values.
        samples_per_shard: samples of a chunk.
        data_fingerprint: a digest that changes with the images.
        limit: how many of the source are drawn, or None for all.
        soft_labels: how distances become soft labels, or None for distances alone.
        surrogate: as for `label_chunks`.
        index: int64 [n], which images are labelled in which order; None for all in their order.
    """
    described = {
        "source": source,
        "limit": limit,
        "teacher": describe(teacher),
        "labelling": settings,
        "soft_labels": soft_labels,
        "samples_per_shard": samples_per_shard,
    }
    names = run_class_names(teacher, images)
    if names is not None:
        described[CLASS_NAMES] = names
    if index is not None and not index.equal(torch.arange(len(images))):
        described["index"] = hashlib.sha256(index.numpy().tobytes()).hexdigest()
    if surrogate_for(teacher, settings, surrogate) is not None:
        described["surrogate"] = module_fingerprint(surrogate)
    return manifest(
        described,
        seed=settings.seed,
        teacher_fingerprint=teacher.fingerprint(),
        data_fingerprint=data_fingerprint,
    )
