"""`LabelledImages`: labelled images as a PyTorch data set, for your own training loop."""

from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor
from torch.utils.data import Dataset

from db3kd.arguments.arrays import as_number
from db3kd.arguments.images import UNIT_BOUNDS, check_images
from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.labels.image_numbers import check_labelled
from db3kd.labels.labels import Labels
from db3kd.labels.soft_labels import check_soft_labels

LabelledImage = tuple[Tensor, Tensor, Tensor]
"""An image [*image_shape] float32, its decision [] int64 and its soft label [C] float32."""


class LabelledImages(Dataset[LabelledImage]):
    """The answered images of a labelled data set, with their decisions and soft labels.

    Items are read when they are needed, a batch at a time, and a `torch.utils.data.DataLoader` may
    read them in workers.

    Example:
        >>> dataset = db3kd.LabelledImages(images, db3kd.with_soft_labels(labels))
        >>> loader = torch.utils.data.DataLoader(dataset, batch_size=128, shuffle=True)
        >>> for images, decisions, soft_labels in loader:
        ...     loss = db3kd.KDLoss()(network(images), decisions, soft_labels)

    Args:
        images: The N labelled images in [0, 1], as for `db3kd.label`.
        labels: N labels with soft labels.

    Attributes:
        rows: [n] int64, the index in `images` of each item. Images without an answer are left out.

    Raises:
        ValueError: If `labels` has no soft labels, or belongs to other images.
    """

    def __init__(self, images: ImagesLike, labels: Labels) -> None:
        self._images = as_image_source(images)
        soft_labels = check_soft_labels(labels)
        check_labelled(self._images, labels)
        self.rows = (labels.decision >= 0).nonzero().flatten().cpu()
        self._decisions = labels.decision.cpu()[self.rows]
        self._soft_labels = soft_labels.cpu()[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SupportsIndex) -> LabelledImage:
        advice = "for several items, use torch.utils.data.Subset"
        return self.__getitems__([as_number(index, len(self), advice=advice)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[LabelledImage]:
        """Reads the items of a batch at once; a `DataLoader` calls this."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        rows = self.rows[index]
        read = self._images.read(rows)
        check_images(read, tuple(read.shape[1:]), UNIT_BOUNDS, rows=rows.tolist())
        return list(zip(read, self._decisions[index], self._soft_labels[index], strict=True))
