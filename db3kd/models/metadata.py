"""What a model file declares about its network, in words that every file format can hold."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from db3kd.arguments.images import (
    UNIT_BOUNDS,
    check_bounds,
    check_class_names,
    check_image_shape,
    check_threshold,
)
from db3kd.arguments.plain import check_count
from db3kd.errors import ArgumentError
from db3kd.tables import Features
from db3kd.tables.feature_files import features_content, parse_features

METADATA_FILE = "db3kd.json"
"""The file inside a TorchScript archive or an exported program that holds the metadata."""

_FORMAT = "db3kd-teacher-1"


@dataclass(frozen=True)
class ModelMetadata:
    """What `load_teacher` needs to use a network, beyond its weights or its graph.

    Example:
        >>> metadata = ModelMetadata((1, 28, 28), classes=10)
        >>> ModelMetadata.from_header(metadata.header()) == metadata
        True

    Attributes:
        image_shape: Shape of one image.
        classes: Number of classes.
        bounds: Lowest and highest pixel value that the network takes.
        class_names: Class names in the order of the class numbers.
        threshold: For a network that returns one score per image: class 1 begins here.
        features: The features of the table whose encoded rows the network takes.

    Raises:
        TypeError: If the class names are no sequence.
        ValueError: If any of the values is invalid.
    """

    image_shape: tuple[int, ...]
    classes: int
    bounds: tuple[float, float] = UNIT_BOUNDS
    class_names: tuple[str, ...] | None = None
    threshold: float | None = None
    features: Features | None = None

    def __post_init__(self) -> None:
        assign = object.__setattr__  # the dataclass is frozen
        assign(self, "image_shape", check_image_shape(self.image_shape))
        assign(self, "classes", check_count(self.classes, "classes", least=2))
        assign(self, "bounds", check_bounds(self.bounds))
        if self.class_names is not None:
            assign(self, "class_names", check_class_names(self.class_names, self.classes, "model"))
        if self.threshold is not None:
            assign(self, "threshold", check_threshold(self.threshold, self.classes))
        if self.features is not None and self.features.unit_shape != self.image_shape:
            raise ArgumentError(
                "features",
                f"expected those of encoded rows of shape {self.image_shape}, got ones "
                f"of shape {self.features.unit_shape}",
            )

    def entries(self) -> dict[str, Any]:
        """Returns the values by name, as JSON has them, with the name of this format."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if self.features is not None:
            given["features"] = features_content(tuple(self.features), self.features.as_frame)
        return {"format": _FORMAT, **given}

    def header(self) -> dict[str, str]:
        """Returns the entries for formats that hold texts by name; see `as_header`."""
        return as_header(self.entries())

    @classmethod
    def from_header(cls, header: Mapping[str, str]) -> Self | None:
        """Reads the texts of `header`.

        Returns:
            The metadata, or None if another program wrote the texts.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a value is missing, no JSON, or invalid.
        """
        if header.get("format") != _FORMAT:
            return None
        return cls._from({name: json.loads(header[name]) for name in _NAMES if name in header})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self | None:
        """Reads the entries from a JSON object.

        Returns:
            The metadata, or None if the text is empty or another program wrote it.

        Raises:
            TypeError: If a value has the wrong type.
            ValueError: If a value is missing or invalid, or the text is no JSON.
        """
        entries = json.loads(text) if text else None
        if not isinstance(entries, dict) or entries.get("format") != _FORMAT:
            return None
        return cls._from({name: entries[name] for name in _NAMES if name in entries})

    @classmethod
    def _from(cls, values: Mapping[str, Any]) -> Self:
        missing = {"image_shape", "classes"} - values.keys()
        if missing:
            raise ArgumentError("metadata", f"expected {', '.join(sorted(missing))}, got none")
        given = dict(values)
        if "features" in given:
            features, as_frame = parse_features(given["features"], "metadata")
            given["features"] = Features(features, as_frame=as_frame)
        return cls(**given)


_NAMES = tuple(ModelMetadata.__dataclass_fields__)


def as_header(entries: Mapping[str, Any]) -> dict[str, str]:
    """Returns the entries of a JSON object as texts: strings as they are, other values as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in entries.items()
    }
