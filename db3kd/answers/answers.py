"""`Answers`: a teacher's decisions for samples and for augmented versions of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.data.augmented_images import AugmentedImages
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import ImageSource, SelectedImages
from db3kd.wording import counted

NUMBERS = 2**20
"""Number of images per sample, itself included. Augmented images are made when they are read."""

CLEAN_SHARE = 0.25
"""Share of samples in training batches; the rest are augmented images."""


@dataclass(frozen=True, repr=False)
class Answers:
    """Decisions for some of the images of `augmentable_images`.

    Images of the first `images.partners` samples are trained on. The other samples are held out.

    Attributes:
        images: All samples and augmented images.
        rows: [n] int64, the images that were queried, `sample · NUMBERS + number`.
        decisions: [n] int64, the class of each.
    """

    images: AugmentedImages
    rows: Tensor
    decisions: Tensor

    def __repr__(self) -> str:
        held_out = int(self.is_held_out.sum())
        return (
            f"Answers({counted(len(self), 'decision')}, of which {held_out:,} are held out, for "
            f"{counted(self.images.samples, 'sample')})"
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def samples(self) -> Tensor:
        """[n] int64, the sample of each image."""
        return self.rows // NUMBERS

    @property
    def is_clean(self) -> Tensor:
        """[n] bool, whether each image is a sample itself."""
        return self.rows % NUMBERS == 0

    @property
    def is_held_out(self) -> Tensor:
        """[n] bool, whether each image belongs to a held-out sample."""
        return self.samples >= self.images.partners

    @property
    def training(self) -> "Answers":
        """The answers to train on."""
        return self.select(~self.is_held_out)

    @property
    def held_out(self) -> "Answers":
        """The answers to measure on."""
        return self.select(self.is_held_out)

    @property
    def clean(self) -> "Answers":
        """The answers for the samples themselves."""
        return self.select(self.is_clean)

    def add(self, rows: Tensor, decisions: Tensor) -> "Answers":
        """Returns these answers followed by others."""
        return replace(
            self,
            rows=torch.cat([self.rows, rows]),
            decisions=torch.cat([self.decisions, decisions]),
        )

    def as_source(self) -> SelectedImages:
        """Returns the answered images as an image source, in the order of `rows`."""
        return SelectedImages(self.images, self.rows)

    def select(self, chosen: Tensor) -> "Answers":
        """Returns some of the answers, by a mask [n] bool or by numbers [m] int64."""
        return replace(self, rows=self.rows[chosen], decisions=self.decisions[chosen])


def augmentable_images(
    images: ImagesLike,
    order: Tensor,
    held_out: int,
    seed: int,
    project: Callable[[Tensor], Tensor] | None = None,
) -> AugmentedImages:
    """Returns all augmented images of a set whose last samples are held out.

    They have no noise: it teaches students no more, and some teachers put most noisy images in one
    class.

    Args:
        images: N images in [0, 1].
        order: [N] int64, the images in the order of the samples.
        held_out: How many samples at the end are held out. No image of a training sample contains
            any part of them.
        seed: Seed of the augmentation.
        project: See `AugmentedImages`.
    """
    source = as_image_source(images)
    ordered: ImageSource = SelectedImages(source, order)
    if isinstance(source, ImageSet):
        ordered = source.subset(order)  # keeps its features
    partners = len(order) - held_out
    return AugmentedImages(ordered, NUMBERS, seed, noise=0.0, partners=partners, project=project)


def no_answers(images: AugmentedImages) -> Answers:
    """Returns an empty set of answers."""
    none = torch.empty(0, dtype=torch.int64)
    return Answers(images, none, none)
