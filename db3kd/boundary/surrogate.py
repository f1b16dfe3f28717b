"""Saves queries by proposing boundary points from a network that resembles the teacher.

The teacher confirms every point that is used. A poor surrogate wastes queries, but it cannot make
a distance wrong.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from db3kd import ops
from db3kd.boundary.input_gradients import with_fast_input_gradients
from db3kd.boundary.pairs import Pairs, Rays
from db3kd.boundary.single_thread import in_parallel
from db3kd.boundary.surrogate_points import (
    follow_boundary,
    nearest_points,
    unit,
)
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.models.channels_last import to_channels_last
from db3kd.models.copying import copy_network
from db3kd.models.state import weight_dtype

SURROGATE_WEIGHT = 5.0
"""Weight of a surrogate's normal among the estimates from probes.

The weight of an estimate is the square root of its number of probes, so a surrogate's normal counts
as much as 25 probes in every round.
"""

_MIN_BATCH = 8
_MAX_BATCH = {"cpu": 64, "cuda": 1024}
_BATCH_VALUES = {"cpu": 2**20, "cuda": 2**23}
"""Limits on the images and on the values of a forward pass, by device type.

A GPU takes as long for 64 small images as for 1,024. On a CPU larger batches are no faster, and
padding them costs more.
"""

_BISECTIONS = 8
"""Bisection steps between a sample and an image; the bracket is then 0.4 % of the segment."""

_COMPARISON_RADIUS = 0.6
"""The radius at which rays are compared, as a share of the distance to the nearest end.

The nearest of them cross the boundary at about this radius.
"""


class Surrogate:
    """A network that learned the teacher's decisions and proposes where boundaries lie.

    It uses a copy of the network in eval mode, so the network itself can be trained further.

    Every forward pass has the same number of images, padded with zeros, so that the rounding of an
    image's scores does not depend on the other images. On a CPU each pass runs on one thread, and
    several passes at the same time, so that it does not depend on the number of threads either.

    Example:
        >>> surrogate = Surrogate(network, image_shape=(1, 28, 28), classes=10)

    Args:
        network: Maps images [N, *image_shape], in the teacher's bounds, to scores [N, classes].
        image_shape: The shape of an image.
        classes: The number of the teacher's classes.
        device: Where pairs are searched; the copy is moved there.

    Attributes:
        batch_size: The images of a forward pass.

    Raises:
        TypeError: If `network` is not a module.
        ValueError: If `network` does not accept batches of the teacher's images, if its scores are
            not [N, classes], or if they have no gradient for the images.
    """

    # In inference mode, the copied weights could not take part in a gradient.
    @torch.inference_mode(False)
    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, ...],
        classes: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(network, nn.Module):
            raise ArgumentTypeError(
                "surrogate", f"expected a torch.nn.Module, got {type(network).__name__}"
            )
        self._shape, self._device = tuple(image_shape), torch.device(device)
        self._network = to_channels_last(copy_network(network, "surrogate").eval().to(device))
        for weight in self._network.parameters():  # TorchScript has no `requires_grad_` of its own
            weight.requires_grad_(False)
        if self._device.type == "cpu":
            with_fast_input_gradients(self._network)
        self.batch_size = batch_size(self._shape, self._device.type)
        self._dtype = weight_dtype(self._network)
        self._check_network(classes)

    def best_rays(self, pairs: Pairs, rays: Rays, nearest: Tensor) -> Rays:
        """Selects the ray of each pair that meets the criterion with the largest margin.

        All rays of a pair are compared at one distance from the sample. This costs one forward
        pass per ray, and no query.

        Args:
            pairs: The pairs.
            rays: Their rays.
            nearest: [P] float32, the distance to the nearest end of each pair.

        Returns:
            One ray for each pair that has any.
        """
        if not len(rays):
            return rays
        radius = nearest * _COMPARISON_RADIUS
        numbers = torch.arange(len(rays), device=rays.pair_of.device)
        (margin,) = self._by_batch(
            lambda part: (self._margins_on_rays(pairs, rays, radius, part),), numbers
        )
        margin = margin.nan_to_num(nan=-torch.inf)
        best = torch.full_like(nearest, -torch.inf)
        best.scatter_reduce_(0, rays.pair_of, margin, "amax")
        first = torch.full_like(pairs.sample_of, len(rays))
        equal = torch.where(margin == best[rays.pair_of], numbers, len(rays))
        first.scatter_reduce_(0, rays.pair_of, equal, "amin")
        return rays.select(first[first < len(rays)])

    def normals(self, pairs: Pairs, points: Tensor, chosen: Tensor) -> Tensor:
        """Returns the normals of the surrogate's boundary at some points.

        Args:
            pairs: All pairs.
            points: [n, D] float32, the points of the chosen pairs.
            chosen: [n] int64, the numbers of the pairs.

        Returns:
            [n, D] float32, unit vectors towards the side that meets the criterion; zeros if the
            surrogate has no gradient there.
        """
        (normals,) = self._by_batch(
            lambda ends, pair: (unit(self._margins(pairs, ends, pair)[1]),), points, chosen
        )
        return normals

    def nearest(self, pairs: Pairs, distance: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Finds the nearest points that meet the criterion according to the surrogate.

        Args:
            pairs: All pairs.
            distance: [P] float32, finite for the chosen pairs: the first norm.
            chosen: [n] int64, the numbers of the pairs.

        Returns:
            The points, [n, D] float32, and whether one was found for each pair, [n] bool. The
            point of a pair without one is its sample.
        """
        points, found = self._by_batch(
            lambda norm, pair: nearest_points(
                lambda ends: self._margins(pairs, ends, pair),
                pairs.samples[pairs.sample_of[pair]],
                norm,
                pairs.bounds,
            ),
            distance[chosen],
            chosen,
        )
        return points, found

    def crossings(self, pairs: Pairs, images: Tensor) -> Tensor:
        """Returns the points at which the surrogate changes its class, on the way to images.

        Args:
            pairs: The pairs.
            images: [P, D] float32, an image for each pair, which should meet the criterion.

        Returns:
            [P, D] float32, points between the samples and the images that meet the criterion; the
            image itself if the surrogate finds no other point that does.
        """
        numbers = torch.arange(len(pairs), device=images.device)
        (points,) = self._by_batch(
            lambda *rows: (self._bisect(pairs, *rows),),
            pairs.samples[pairs.sample_of],
            images,
            numbers,
        )
        return points

    def approach(self, pairs: Pairs, points: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Moves points along the surrogate's boundary towards their samples.

        The teacher's boundary runs through the points, but the surrogate's may run elsewhere. So
        the new points are the nearest ones, inside the bounds, at which the surrogate's margin is
        the same as at the old ones.

        Args:
            pairs: All pairs.
            points: [n, D] float32, the points of the chosen pairs.
            chosen: [n] int64, the numbers of the pairs.

        Returns:
            The new points, and the normals at the old points as from `normals`; each
            [n, D] float32.
        """
        moved, normals = self._by_batch(
            lambda ends, pair: follow_boundary(
                lambda moved: self._margins(pairs, moved, pair),
                pairs.samples[pairs.sample_of[pair]],
                ends,
                pairs.bounds,
            ),
            points,
            chosen,
        )
        return moved, normals

    def _check_network(self, classes: int) -> None:
        """Tries both passes of a search on a batch, before a query is paid for."""
        image = torch.zeros(1, math.prod(self._shape), device=self._device)
        try:
            with torch.inference_mode():
                scores = self._network(self._pad(image))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ArgumentError(
                "surrogate",
                f"expected a network for batches of the teacher's images, shape "
                f"{list(self._shape)}, got one that fails on {self.batch_size} of them: {error}",
            ) from error
        if not isinstance(scores, Tensor) or tuple(scores.shape) != (self.batch_size, classes):
            came = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ArgumentError(
                "surrogate",
                f"expected scores [{self.batch_size}, {classes}] for images of shape "
                f"{list(self._shape)}, because the teacher has {classes} classes, got {came}",
            )
        try:
            self._differentiate(image, torch.zeros(1, dtype=torch.int64, device=self._device))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ArgumentError(
                "surrogate",
                "expected scores that have a gradient for the images, which proposes boundary "
                f"points, got {type(self._network).__name__} without one: {error}",
            ) from error

    def _by_batch(
        self, work: Callable[..., tuple[Tensor, ...]], *arguments: Tensor
    ) -> tuple[Tensor, ...]:
        """Applies a function to batches of the rows of its arguments, and joins its results."""
        batches = list(zip(*(rows.split(self.batch_size) for rows in arguments), strict=True))
        if self._device.type == "cpu":
            parts = in_parallel(lambda batch: work(*batch), batches)
        else:
            parts = [work(*batch) for batch in batches]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _margins(self, pairs: Pairs, points: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the margins by which points of one batch meet the criterion, and gradients."""
        margin, gradient = self._differentiate(points, pairs.criterion_class[chosen])
        return (margin, gradient) if pairs.targeted else (-margin, -gradient)

    def _bisect(self, pairs: Pairs, samples: Tensor, images: Tensor, chosen: Tensor) -> Tensor:
        """Returns a crossing of each segment, on the side that meets the criterion, [n, D]."""
        near, far = samples.new_zeros(len(chosen), 1), samples.new_ones(len(chosen), 1)
        for _ in range(_BISECTIONS):
            middle = (near + far) / 2
            scores = self._scores(samples.lerp(images, middle))
            margin = _margin(scores, pairs.criterion_class[chosen])
            met = ((margin if pairs.targeted else -margin) > 0)[:, None]
            near, far = torch.where(met, near, middle), torch.where(met, middle, far)
        return samples.lerp(images, far)

    def _margins_on_rays(self, pairs: Pairs, rays: Rays, radius: Tensor, chosen: Tensor) -> Tensor:
        """Returns the margins of one batch of rays, [n]; `radius` is [P], one for each pair."""
        points = ops.bracket_queries(
            pairs.samples, rays.ends, pairs.sample_of, rays.pair_of, rays.end_of, rays.lengths,
            radius, chosen, lower=pairs.bounds[0], upper=pairs.bounds[1],
        )  # fmt: skip
        margin = _margin(self._scores(points), pairs.criterion_class[rays.pair_of[chosen]])
        return margin if pairs.targeted else -margin

    @torch.inference_mode()
    def _scores(self, points: Tensor) -> Tensor:
        """Returns the scores of at most a batch, [n, classes] float32."""
        return self._network(self._pad(points))[: len(points)].float()

    def _differentiate(self, points: Tensor, criterion_class: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the margins of these classes, [n], and gradients, [n, D], of one batch."""
        count = len(points)
        # The caller may be in inference mode, in which no tensor has a gradient.
        with torch.inference_mode(False), torch.enable_grad():
            images = self._pad(points).requires_grad_()
            margin = _margin(self._network(images)[:count].float(), criterion_class.clone())
            (gradient,) = torch.autograd.grad(margin.sum(), images)
        gradient = gradient[:count].flatten(1).float()
        return margin.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)

    def _pad(self, points: Tensor) -> Tensor:
        """Returns a full batch of images: the points [n, D], and zeros after them."""
        images = points.new_zeros(self.batch_size, points.shape[1], dtype=self._dtype)
        images[: len(points)] = points
        return images.view(self.batch_size, *self._shape)


def _margin(scores: Tensor, criterion_class: Tensor) -> Tensor:
    """Returns by how much a class scores above the highest other class, [n]."""
    column = criterion_class[:, None]
    others = scores.scatter(1, column, -torch.inf).amax(1)
    return scores.gather(1, column)[:, 0] - others


def batch_size(image_shape: tuple[int, ...], device_type: str) -> int:
    """Returns the images of a surrogate's forward pass on a device of this type."""
    kind = device_type if device_type in _MAX_BATCH else "cpu"
    return max(_MIN_BATCH, min(_MAX_BATCH[kind], _BATCH_VALUES[kind] // math.prod(image_shape)))
