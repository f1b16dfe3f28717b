"""How often the classes of a model are the expected ones: in a line, or in a file with details."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from db3kd.data.image_set import ImageSet
from db3kd.report.intervals import wilson_interval
from db3kd.storage.filesystem import json_bytes, write_atomically
from db3kd.storage.manifest import time_now
from db3kd.wording import InputNoun, class_text, counted


@dataclass(frozen=True, eq=False)
class Measurement:
    """The classes of a model for some images, and the expected ones.

    Attributes:
        predicted: [n] int64, the model's classes.
        expected: [n] int64, the true classes, or those of another model.
        class_names: The names of the classes, or None.
    """

    predicted: Tensor
    expected: Tensor
    class_names: Sequence[str] | None

    def text(self, noun: InputNoun) -> str:
        """Returns the share of images with the expected class, its interval, and a baseline.

        The baseline is the share with the most frequent class.

        Args:
            noun: What the text calls an image.
        """
        matches, total = int((self.predicted == self.expected).sum()), len(self.expected)
        low, high = wilson_interval(matches, total)
        return (
            f"{matches / total:.2%} ({matches:,} of {counted(total, noun)}), "
            f"95 % interval {low:.2%} to {high:.2%}; "
            f"{constant_answer_text(*most_frequent(self.expected), total, self.class_names)}"
        )

    def entries(self, images: ImageSet) -> dict[str, Any]:
        """Returns plain values: the share, that of each class, and the images with another class.

        Args:
            images: The images, which are named as by `ImageSet.name_of`.
        """
        match = self.predicted == self.expected
        return {
            **_share(match),
            "classes": [
                {"class": self._name(number), **_share(match[self.expected == number])}
                for number in self.expected.unique().tolist()
            ],
            "differences": [
                {
                    "image": images.name_of(place),
                    "expected": self._name(int(self.expected[place])),
                    "predicted": self._name(int(self.predicted[place])),
                }
                for place in (~match).nonzero().flatten().tolist()
            ],
        }

    def _name(self, number: int) -> str | int:
        return number if self.class_names is None else self.class_names[number]


def most_frequent(classes: Tensor) -> tuple[int, int]:
    """Returns the most frequent class of images, [n] int64, and the number of its images."""
    counts = torch.bincount(classes)
    return int(counts.argmax()), int(counts.max())


def constant_answer_text(
    constant: int, matches: int, total: int, class_names: Sequence[str] | None
) -> str:
    """Returns the clause that says how often always answering with one class would agree.

    Example:
        >>> constant_answer_text(1, 18, 20, ("ant", "bee"))
        "always answering 'bee' would reach 90.0%"

    Args:
        constant: The class.
        matches: The number of images with this class.
        total: The number of images.
        class_names: The names of the classes, or None.
    """
    usual = class_text(constant, class_names)
    return f"always answering {usual} would reach {matches / total:.1%}"


def write_measurements(
    path: Path, about: Mapping[str, Any], measurements: Mapping[str, Measurement], images: ImageSet
) -> None:
    """Writes measurements on the same images as JSON, with the time.

    Args:
        path: The file.
        about: Plain values that say what was measured.
        measurements: The measurements by name.
        images: The images.
    """
    found = {name: each.entries(images) for name, each in measurements.items()}
    write_atomically(path, json_bytes({"measured": time_now(), **about, **found}))


def _share(match: Tensor) -> dict[str, Any]:
    matches, total = int(match.sum()), len(match)
    return {
        "matches": matches,
        "total": total,
        "share": matches / total,
        "interval": wilson_interval(matches, total),
    }
