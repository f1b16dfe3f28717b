"""The source of a run's images, as recorded in its manifest."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from db3kd.data.files.image_decoding import ImageSize
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import NamedImages
from db3kd.data.loading import is_remote, load_data
from db3kd.errors import InputError
from db3kd.tables import Features


@dataclass(frozen=True)
class Source:
    """Where images come from: the arguments of `db3kd.load_data`.

    Attributes:
        data: A data set's name, a file, a folder, or a data set on the Hugging Face hub.
        split: "train" or "test", or any other split that the data set has.
        size: Height and width of image files, or one number for both; None to keep them.
        channels: 1 or 3 to convert to; None to keep them.
        features: The features of a table, as `Features.to_json` writes them; None to infer them.
        label_column: The column of class labels of a table; None for one of the usual names.
        clip: Whether numbers that the features do not allow are moved to the nearest valid one.
    """

    data: str
    split: str = "train"
    size: ImageSize | None = None
    channels: int | None = None
    features: str | None = None
    label_column: str | None = None
    clip: bool = False

    def load(self, columns: Sequence[str] | None = None) -> ImageSet:
        """Loads the images; `columns` as for `load_data`."""
        return load_data(
            self.data,
            self.split,
            size=self.size,
            channels=self.channels,
            features=None if self.features is None else Features.from_json(self.features),
            label_column=self.label_column,
            clip=self.clip,
            columns=columns,
        )

    def with_features_of(self, images: NamedImages) -> "Source":
        """Returns the source with the features that its images were encoded by, if any.

        A run that records them encodes other splits, and the same table elsewhere, in the same way.
        """
        if not isinstance(images, ImageSet) or images.features is None:
            return self
        return dataclasses.replace(self, features=images.features.to_json())


def source_of(images: ImageSet) -> Source | None:
    """Returns the source of images, or of the set of which they are a part.

    None if `db3kd.load_data` did not load them, or got arguments that a source lacks.
    """
    if images.loaded_with is None:
        return None
    return Source(**images.loaded_with).with_features_of(images)


def stored_source(folder: str | Path, stored: object, data: str | None) -> Source:
    """The source in a run's manifest, if it may be used on this machine.

    The run may come from an untrusted source. Nothing is fetched from a network, and no absolute
    path is followed, unless the caller names it.

    Args:
        folder: The folder of the run, for error messages.
        stored: The entry `settings.source` of the run's manifest.
        data: The location of the images, if the caller names it.

    Raises:
        ValueError: If the entry is damaged, or if the caller must name the images.
    """
    source = _parse(folder, stored)
    if data is not None:
        return dataclasses.replace(source, data=data)
    if is_remote(source.data):
        raise InputError(
            f"{folder}: its images come from the Hugging Face hub, and a manifest alone may not "
            f"start a download; if you trust the run, name them with data={source.data!r}"
        )
    if Path(source.data).is_absolute():
        raise InputError(
            f"{folder}: expected the name of a data set or a relative path in its manifest, got "
            f"{source.data!r}; name its images with data="
        )
    return source


def _parse(folder: str | Path, stored: Any) -> Source:
    kinds = {**get_type_hints(Source), "size": int | tuple | None}
    size = stored.get("size") if isinstance(stored, Mapping) else None
    if isinstance(size, list) and [type(side) for side in size] == [int, int]:
        stored = {**stored, "size": tuple(size)}  # JSON has no tuples
    if (
        not isinstance(stored, Mapping)
        or not {"data"} <= stored.keys() <= kinds.keys()
        or not all(isinstance(value, kinds[name]) for name, value in stored.items())
    ):
        raise InputError(
            f"{folder}: entry settings.source: expected the arguments of load_data, got "
            f"{stored!r:.80}"
        )
    return Source(**stored)
