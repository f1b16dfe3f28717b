"""Checks that images are those that labels belong to."""

import numpy as np

from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import ImageSource
from db3kd.errors import ArgumentError
from db3kd.labels.labels import Labels
from db3kd.wording import counted, input_noun

_SHOWN_NUMBERS = 3


def check_labelled(images: ImageSource, labels: Labels) -> None:
    """Refuses images that are not those of the labels, as far as their numbers tell.

    The numbers of a view may be those in any set that it is a view of, or in the view itself,
    because each of these may have been labelled. Numbers that repeat belong to several sets whose
    labels were joined, so they are not compared. Of images that are no view, nothing is known.

    Args:
        images: The images that are passed with the labels.
        labels: The labels.

    Raises:
        ValueError: If there is not one row of labels for each image, or if the numbers differ.
    """
    if len(labels) != len(images):
        raise ArgumentError(
            "labels",
            f"expected {counted(len(images), 'row')}, one for each sample, got {len(labels)}; "
            "if only some were labelled, pass images.subset(labels.index)",
        )
    if not isinstance(images, ImageSet) or not images.selection.positions:
        return
    index = labels.index.cpu().numpy()
    may_be = (np.arange(len(index)), *images.selection.positions)
    if len(np.unique(index)) < len(index) or any(np.array_equal(index, each) for each in may_be):
        return
    raise ArgumentError(
        "images",
        f"expected the {input_noun(images.image_shape)}s that were labelled, whose numbers are "
        f"labels.index ({_shown(index)}), got those with the numbers "
        f"{_shown(images.selection.numbers)} of {images.name}; pass images.subset(labels.index) "
        "of the set that was labelled",
    )


def _shown(numbers: np.ndarray) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN_NUMBERS].tolist()))
    return f"{shown}, \N{HORIZONTAL ELLIPSIS}" if len(numbers) > _SHOWN_NUMBERS else shown
