"""A label run read back from its folder, together with its images."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db3kd.boundary.distance import MEASURES, Measure
from db3kd.data.class_names import match_classes
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import fingerprint_in_run
from db3kd.data.sample_choice import draw_samples
from db3kd.data.source import Source, stored_source
from db3kd.errors import ArgumentError, InputError
from db3kd.labels.label_files import load_labels
from db3kd.labels.labels import LABELS, Labels
from db3kd.labels.soft_labels import SoftLabelSettings
from db3kd.storage.manifest import check_state, current_names, read_manifest
from db3kd.storage.source_numbers import stored_numbers
from db3kd.tables.checks import InvalidValueError
from db3kd.wording import counted, input_noun


@dataclass(frozen=True, repr=False)
class LabelRun:
    """A run's labels, with its images in the same order and its manifest.

    Attributes:
        labels: The labels of the run.
        images: The labelled images, in the order of `labels`.
        manifest: Settings, fingerprints and totals, as in the run's folder.
        source: The source that the images were loaded from; other splits of it are loaded in the
            same way.
        measure: How the distances were measured.
        teacher: A description of the teacher.
    """

    labels: Labels
    images: ImageSet
    manifest: dict[str, Any]
    source: Source
    measure: Measure
    teacher: str

    def __repr__(self) -> str:
        return (
            f"LabelRun({counted(len(self.labels), 'sample')} of {self.images.name}, "
            f"{self.labels.classes} classes, {counted(int(self.labels.queries.sum()), 'query')}, "
            f"{self.manifest['state']})"
        )

    @property
    def finished(self) -> bool:
        """Whether all samples of the run are labelled."""
        return bool(self.manifest["state"] == "finished")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of their numbers, if they have names."""
        return current_names(self.manifest)

    @property
    def soft_label_settings(self) -> SoftLabelSettings | None:
        """How the run's soft labels were made; None if it holds distances only."""
        stored = self.manifest["settings"].get("soft_labels")
        return None if stored is None else SoftLabelSettings(**stored)

    def match(self, images: ImageSet) -> ImageSet:
        """Renumbers the labels of other images, such as a test split, as the run's teacher does.

        Raises:
            ValueError: If the images have classes that the run does not know by name.
        """
        who = f"teacher {self.teacher}"
        return match_classes(images, self.class_names, self.labels.classes, who)


def open_run(folder: str | Path, data: str | None = None) -> LabelRun:
    """Reads a run and loads its images.

    The run may come from an untrusted source, so images are loaded only from this machine; a data
    set on a hub must be named with `data`.

    Args:
        folder: The folder of the run.
        data: The argument of `db3kd.load_data`, if the images have moved since they were labelled.
            A run stores only the last part of an absolute path.

    Raises:
        FileNotFoundError: If there is no run in the folder.
        ValueError: If the run is damaged, or if its images are missing or have changed.
    """
    manifest = read_manifest(folder, LABELS.format)
    check_state(folder, manifest, LABELS)
    settings = manifest.get("settings", {})
    source = stored_source(folder, settings.get("source"), data)
    measure, teacher = _stored_measure(folder, settings), _stored_teacher(folder, settings)
    try:
        images = source.load()
    except InvalidValueError as error:  # the features are those of the run
        raise ArgumentError(
            "data",
            f"expected the data that {folder} was labelled from, got other values "
            f"({error.problem}); pass the original data as data=",
        ) from None
    except (ValueError, FileNotFoundError) as error:
        if data is not None:
            raise
        raise InputError(
            f"{folder}: its data, {source.data!r}, were not found; pass their location as data="
        ) from error
    labels, numbers = load_labels(folder), stored_numbers(folder)
    if numbers is None:
        numbers = draw_samples(len(images), settings.get("limit"), manifest["seed"]).numpy()
    else:  # a run inside a distillation, whose images have the classes of the teacher
        images = _with_classes_of(manifest, labels, images, teacher)
    stored = manifest.get("data")
    found = images.subset(numbers) if numbers.max() < len(images) else None
    if found is None or fingerprint_in_run(found, found.fingerprint(), stored) != stored:
        raise ArgumentError(
            "data",
            f"expected the data that {folder} was labelled from, got other values or labels "
            f"in {source.data!r} ({source.split}); pass the original data, or a copy of the part "
            "of it that the run has, as data=",
        )
    if int(labels.index.max()) >= len(images):
        raise InputError(
            f"{folder}: column index: expected numbers in [0, {len(images)}) for "
            f"{counted(len(images), input_noun(images.image_shape))}, got {int(labels.index.max())}"
        )
    run = LabelRun(labels, images.subset(labels.index), manifest, source, measure, teacher)
    return dataclasses.replace(run, images=run.match(run.images))


def _with_classes_of(
    manifest: Mapping[str, Any], labels: Labels, images: ImageSet, teacher: str
) -> ImageSet:
    """Returns images with the classes that a run knows them by: none, or the teacher's."""
    if labels.label is None:
        return images.with_labels(None)
    return match_classes(images, current_names(manifest), labels.classes, f"teacher {teacher}")


def _stored_measure(folder: str | Path, settings: Mapping[str, Any]) -> Measure:
    """Returns the measure in the settings of a manifest, which may be damaged."""
    labelling = settings.get("labelling")
    stored = labelling.get("measure") if isinstance(labelling, Mapping) else None
    for measure in MEASURES:
        if stored == measure:
            return measure
    raise InputError(
        f"{folder}: entry settings.labelling.measure: expected one of {', '.join(MEASURES)}, got "
        f"{stored!r:.80}"
    )


def _stored_teacher(folder: str | Path, settings: Mapping[str, Any]) -> str:
    """Returns the description of the teacher in the settings of a manifest."""
    stored = settings.get("teacher")
    if not isinstance(stored, str):
        raise InputError(
            f"{folder}: entry settings.teacher: expected a description, got {stored!r:.80}"
        )
    return stored
