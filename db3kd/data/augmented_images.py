"""`AugmentedImages`: mixed, shifted and noisy versions of samples, made when they are read."""

import copy
import math
from collections.abc import Callable
from typing import SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from db3kd.arguments.arrays import as_number
from db3kd.arguments.plain import check_seed
from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.data.image_reader import image_reader
from db3kd.data.image_set import ImageSet
from db3kd.errors import ArgumentError
from db3kd.wording import counted

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIXED_DRAWS = 6
"""Random numbers per image besides its noise: a partner, a weight, and two (y, x) shifts."""


class AugmentedImages:
    """An image set of every sample (k = 0) and augmented images of it (k = 1, 2, ...).

    Image k ≥ 1 of sample i is weight · shifted(i) + (1 - weight) · shifted(partner) + noise,
    clamped to [0, 1]. The partner is one of the first `partners` samples; without noise, it is
    never the sample itself, unless there is no other. The weight is uniform in (1 - mixup, 1], both
    images are shifted by up to `shift` of their sides (edges are repeated), and the noise is
    uniform. An image depends only on (seed, i, k), the samples and the settings.

    Rows of a table are mixed in the same way but not shifted. `project` makes all of them valid: an
    integer or categorical feature of a mixture comes from the sample with probability `weight`, and
    otherwise from the partner.

    Example:
        >>> images = AugmentedImages(db3kd.load_data("digits"), queries_per_sample=10, seed=0)
        >>> rows = AugmentedImages(features.encode(table), 10, seed=0, project=features.project)

    Args:
        images: [N, channels, height, width] or [N, D] float32 in [0, 1], or an image set.
        queries_per_sample: Images per sample, including the sample itself; at least 1.
        seed: Seed of all random numbers.
        mixup: The largest weight of the partner, in [0, 1].
        shift: The largest shift of an image as a share of its side, in [0, 1).
        noise: Standard deviation of the noise, input units, at least 0.
        partners: How many samples may be partners; all by default. Every other sample occurs only
            in its own images.
        project: Maps mixtures [n, *image_shape] to valid inputs, such as `Features.project`. Its
            attribute `groups`, if it has one, says which dimensions are mixed as a whole. By
            default, the projection of the image set if that holds a table.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        images: ImagesLike,
        queries_per_sample: int,
        seed: int,
        *,
        mixup: float = 1.0,
        shift: float = 0.08,
        noise: float = 0.05,
        partners: int | None = None,
        project: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if queries_per_sample < 1:
            raise ArgumentError(
                "queries_per_sample", f"expected at least 1, got {queries_per_sample}"
            )
        seed = check_seed(seed)
        if not 0 <= mixup <= 1:
            raise ArgumentError("mixup", f"expected 0 to 1, got {mixup}")
        if not 0 <= shift < 1:
            raise ArgumentError("shift", f"expected at least 0 and below 1, got {shift}")
        if not 0 <= noise < math.inf:
            raise ArgumentError("noise", f"expected at least 0, got {noise}")
        images = as_image_source(images)
        if project is None and isinstance(images, ImageSet) and images.features is not None:
            project = images.features.project
        self._read_clean = image_reader(images, "cpu")
        shape = self._read_clean(torch.zeros(1, dtype=torch.int64)).shape[1:]
        if len(shape) not in (1, 3):
            raise ArgumentError(
                "images",
                "expected [N, channels, height, width] or rows [N, D], got images of "
                f"{list(shape)}",
            )
        self.samples = len(images)
        self.partners = self.samples if partners is None else partners
        if not 1 <= self.partners <= self.samples:
            raise ArgumentError(
                "partners", f"expected 1 to {counted(self.samples, 'sample')}, got {partners}"
            )
        self.image_shape = tuple(shape)
        self.reading = images.reading if isinstance(images, ImageSet) else {}
        self.queries_per_sample = queries_per_sample
        self.seed = seed
        self.mixup = mixup
        self.noise = noise
        self._max_shift = [round(shift * side) for side in shape[1:]]
        self._project = project
        self._groups = self._checked_groups(getattr(project, "groups", None))

    def __repr__(self) -> str:
        return (
            f"AugmentedImages({counted(self.samples, 'sample')} of {self.image_shape}, "
            f"{counted(self.queries_per_sample, 'image')} each, seed={self.seed})"
        )

    def __getitem__(self, index: SupportsIndex) -> Tensor:
        return self.read(torch.tensor([as_number(index, len(self), advice="use read(indices)")]))[0]

    def __len__(self) -> int:
        return self.samples * self.queries_per_sample

    def with_seed(self, seed: int) -> "AugmentedImages":
        """Returns different augmented images of the same samples."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def read(self, indices: Tensor) -> Tensor:
        """Returns images by number.

        Args:
            indices: [n] int64, `sample · queries_per_sample + k`.

        Returns:
            [n, *image_shape] float32 in [0, 1].
        """
        indices = torch.as_tensor(indices)
        samples, numbers = indices // self.queries_per_sample, indices % self.queries_per_sample
        clean = self._read_clean(samples)
        drawn = numbers.nonzero().flatten()
        augmented = self._augmented(clean[drawn], samples[drawn], numbers[drawn])
        return clean.index_copy(0, drawn, augmented)

    def _augmented(self, clean: Tensor, samples: Tensor, numbers: Tensor) -> Tensor:
        """Returns image `numbers[j]` ≥ 1 of sample `samples[j]`, whose pixels are `clean[j]`."""
        places = math.prod(self.image_shape) if self.noise else 0
        groups = 0 if self._groups is None else int(self._groups.max()) + 1
        count = _FIXED_DRAWS + places + groups
        draws = torch.from_numpy(uniforms(self.seed, samples.numpy(), numbers.numpy(), count))
        partner = self._read_clean(self._partners(samples, draws[:, 0]))
        weight = 1 - self.mixup * draws[:, 1]
        clean, partner = self._shifted(clean, draws[:, 2:4]), self._shifted(partner, draws[:, 4:6])
        mixed = partner.lerp(clean, weight.view(-1, *[1] * len(self.image_shape)))
        if self._groups is not None:  # each group is taken from one of the two rows
            of_sample = (draws[:, -groups:] < weight[:, None])[:, self._groups.clamp_min(0)]
            mixed = torch.where(self._groups < 0, mixed, torch.where(of_sample, clean, partner))
        if self.noise:
            noise = draws[:, _FIXED_DRAWS : _FIXED_DRAWS + places].view_as(mixed).sub_(0.5)
            mixed.add_(noise.mul_(self.noise * math.sqrt(12))).clamp_(0, 1)
        return mixed if self._project is None else self._project(mixed)

    def _partners(self, samples: Tensor, draws: Tensor) -> Tensor:
        """Returns the partner of each sample, [n] int64.

        Without noise, a mixture of an image with itself could be that image, whose class is known.
        """
        if self.noise:
            return (draws * self.partners).long()
        others = self.partners - (samples < self.partners).long()
        drawn = (draws * others).long()
        return (drawn + (drawn >= samples).long()).clamp_max(self.partners - 1)

    def _checked_groups(self, groups: Tensor | None) -> Tensor | None:
        """Returns the groups of dimensions of a projection, or None if there are none."""
        if groups is None or not bool((groups >= 0).any()):
            return None
        if tuple(groups.shape) != self.image_shape:
            raise ArgumentError(
                "project",
                f"expected a projection of inputs of shape {self.image_shape}, got one of "
                f"shape {tuple(groups.shape)}",
            )
        return groups

    def _shifted(self, images: Tensor, draws: Tensor) -> Tensor:
        """Returns images [n, c, h, w] shifted by whole pixels, as given by draws [n, 2].

        Rows [n, D] are returned unchanged.
        """
        if not self._max_shift:
            return images
        axes = []
        for axis, limit in enumerate(self._max_shift):
            side = images.shape[2 + axis]
            offset = (draws[:, axis] * (2 * limit + 1)).long() - limit
            axes.append((torch.arange(side) - offset[:, None]).clamp_(0, side - 1))
        rows, columns = axes
        pixels = (rows[:, :, None] * images.shape[3] + columns[:, None, :]).flatten(1)
        by_channel = pixels[:, None].expand(-1, images.shape[1], -1)
        # Indexing all four dimensions at once takes three times as long.
        return images.flatten(2).gather(2, by_channel).view_as(images)


def uniforms(
    seed: int, samples: NDArray[np.int64], numbers: NDArray[np.int64], count: int
) -> NDArray[np.float32]:
    """Returns uniform random numbers that depend only on (seed, sample, number).

    SplitMix64 (Steele, Lea and Flood 2014) computes the k-th word of a state with a single hash.
    Each row has its own state: a hash of the seed, sample and number. Creating a torch generator
    for each image would take longer than computing the image.

    Args:
        seed: At least 0.
        samples: [n] int64.
        numbers: [n] int64.
        count: Random numbers per row.

    Returns:
        [n, count] float32 in [0, 1).
    """
    with np.errstate(over="ignore"):
        state = _hash(_GOLDEN * np.array([seed + 1], dtype=np.uint64))
        for part in (samples, numbers):
            state = _hash((state ^ part.astype(np.uint64)) + _GOLDEN)
        words = np.arange(1, (count + 1) // 2 + 1, dtype=np.uint64) * _GOLDEN
        words = _hash(state[:, None] + words)
    top_bits = words.view(np.uint32)[:, :count] >> np.uint32(8)
    return top_bits.astype(np.float32) * np.float32(2**-24)


def _hash(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the 64-bit hash of SplitMix64."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
