"""Equal images that a teacher has put in different classes: found while all images are decided.

A teacher that answers so is noisy, or was replaced. The boundary between the classes then runs
through the image itself, so the distance is 0, and no query is spent on measuring it.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

from db3kd.data.image_source import ImageSource
from db3kd.querying.search import UNANSWERED

_READ_ROWS = 256


class EqualImages:
    """Collects the digests of N images as they are read, 8 bytes each, to find equal ones."""

    def __init__(self, count: int) -> None:
        self._digests = np.zeros(count, np.uint64)

    def add(self, index: Tensor, images: Tensor) -> None:
        """Notes images [n, ...] float32 at their places `index`, [n] int64."""
        rows = (images.detach().cpu().flatten(1) + 0.0).numpy()  # so that -0.0 is 0.0
        digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
        self._digests[index.numpy()] = np.frombuffer(b"".join(digests), np.uint64)

    def contradictions(self, images: ImageSource, decisions: Tensor) -> Tensor:
        """int64 [K, 2], sorted: the number of an image, and a class that an equal image is in.

        images: those that were added. decisions: [N] int64, UNANSWERED if an image was not added.
        """
        decided = (decisions != UNANSWERED).nonzero()[:, 0].numpy()
        order = decided[np.argsort(self._digests[decided], kind="stable")]
        digests, classes = self._digests[order], decisions.numpy()[order]
        starts = np.flatnonzero(np.diff(digests)) + 1
        found = [
            pair
            for group, theirs in zip(
                np.split(order, starts), np.split(classes, starts), strict=True
            )
            if len(group) > 1 and (theirs != theirs[0]).any()
            for pair in _pairs(images, torch.from_numpy(group), decisions)
        ]
        return torch.tensor(sorted(found), dtype=torch.int64).view(-1, 2)


def _pairs(images: ImageSource, group: Tensor, decisions: Tensor) -> list[tuple[int, int]]:
    """The contradictions among images of one digest, once they are known to be equal."""
    first = images.read(group[:1])
    equal = [(images.read(part) == first).flatten(1).all(1) for part in group.split(_READ_ROWS)]
    group = group[torch.cat(equal).cpu()]
    own = decisions[group].tolist()
    return [
        (index, other)
        for index, mine in zip(group.tolist(), own, strict=True)
        for other in sorted(set(own) - {mine})
    ]


def contradicted_classes(contradictions: Tensor, index: Tensor, classes: int) -> Tensor:
    """bool [n, classes]: the classes that images equal to these samples are in, beside their own.

    contradictions: as from `EqualImages.contradictions`. index: [n] int64, of the samples.
    """
    mask = torch.zeros(len(index), classes, dtype=torch.bool)
    if len(contradictions):
        row, which = (index[:, None] == contradictions[:, 0]).nonzero(as_tuple=True)
        mask[row, contradictions[which, 1]] = True
    return mask
