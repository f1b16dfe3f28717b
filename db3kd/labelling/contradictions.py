"""Equal images in different classes, found while all images are decided.

A teacher that gives two classes to the same image is noisy, or was replaced. The boundary between
these classes runs through the image itself, so its distance is 0 and needs no query.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

from db3kd.data.image_source import ImageSource
from db3kd.querying.search import UNANSWERED

_READ_ROWS = 256


class EqualImages:
    """Finds equal images among N by digests of 8 bytes each.

    Args:
        count: The number N of images.
    """

    def __init__(self, count: int) -> None:
        self._digests = np.zeros(count, np.uint64)

    def add(self, index: Tensor, images: Tensor) -> None:
        """Adds images [n, ...] float32 with the indices `index`, [n] int64."""
        rows = (images.detach().cpu().flatten(1) + 0.0).numpy()  # + 0.0 makes -0.0 equal to 0.0
        digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
        self._digests[index.numpy()] = np.frombuffer(b"".join(digests), np.uint64)

    def contradictions(self, images: ImageSource, decisions: Tensor) -> Tensor:
        """Finds equal images that the teacher has put in different classes.

        Args:
            images: The N images; those with equal digests are read again and compared.
            decisions: [N] int64, -1 for an image that was not added.

        Returns:
            [K, 2] int64, sorted: the index of an image, and another class of an equal image.
        """
        decided = (decisions != UNANSWERED).nonzero()[:, 0].numpy()
        order = decided[np.argsort(self._digests[decided], kind="stable")]
        digests, classes = self._digests[order], decisions.numpy()[order]
        starts = np.flatnonzero(np.diff(digests)) + 1
        found = [
            pair
            for group, group_classes in zip(
                np.split(order, starts), np.split(classes, starts), strict=True
            )
            if len(group) > 1 and (group_classes != group_classes[0]).any()
            for pair in _contradictions_in_group(images, torch.from_numpy(group), decisions)
        ]
        return torch.tensor(sorted(found), dtype=torch.int64).view(-1, 2)


def _contradictions_in_group(
    images: ImageSource, group: Tensor, decisions: Tensor
) -> list[tuple[int, int]]:
    """The contradictions among images with one digest that really are equal."""
    first = images.read(group[:1])
    equal = [(images.read(part) == first).flatten(1).all(1) for part in group.split(_READ_ROWS)]
    group = group[torch.cat(equal).cpu()]
    classes = decisions[group].tolist()
    return [
        (index, other)
        for index, predicted in zip(group.tolist(), classes, strict=True)
        for other in sorted(set(classes) - {predicted})
    ]


def contradicted_classes(contradictions: Tensor | None, index: Tensor, classes: int) -> Tensor:
    """The classes that images equal to these samples are in, except the predicted class.

    Args:
        contradictions: [K, 2] int64, as from `EqualImages.contradictions`; None for none.
        index: [n] int64, indices of the samples.
        classes: The number of classes C.

    Returns:
        A mask [n, C] bool.
    """
    mask = torch.zeros(len(index), classes, dtype=torch.bool)
    if contradictions is not None:
        row, which = (index[:, None] == contradictions[:, 0]).nonzero(as_tuple=True)
        mask[row, contradictions[which, 1]] = True
    return mask
