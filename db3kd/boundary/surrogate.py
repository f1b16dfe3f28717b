"""Where a network that resembles the teacher sees boundaries, so that fewer queries find them.

What it says is a proposal: the teacher is asked about every point that counts. A poor surrogate
costs queries, it cannot make a distance wrong.
"""

import copy
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from db3kd import ops
from db3kd.boundary.input_gradients import with_fast_input_gradients
from db3kd.boundary.pairs import Pairs, Rays
from db3kd.models.channels_last import to_channels_last

WEIGHT = 5.0
"""Of a surrogate's normal beside the estimates of probes, whose weight is the square root of their
number: it counts as 25 probes in every round."""

_LEAST_BLOCK = 8
_MOST_BLOCK = {"cpu": 64, "cuda": 1024}
_BLOCK_VALUES = {"cpu": 2**20, "cuda": 2**23}
"""Fewest and most images of a pass, and the numbers in them. Always as many, filled up with zeros,
so that a row's rounding does not depend on who else is there. A GPU needs as long for 1,024 small
images as for 64; on a CPU more of them at once gain nothing, and filling up costs more."""

_STEPS = 3
_SHARE = 0.45
"""Steps towards the nearest point, and how much of the way each goes: boundaries are bent. Eight
steps of a fifth lead no nearer, and cost nearly three times as many passes."""

_COMPARED_AT = 0.6
"""Where rays are compared, as a share of the distance to the nearest end: about where the nearest
of them meets the boundary."""


class Surrogate:
    """A network of one's own that has learnt the teacher's decisions.

    A copy of the module is used, in eval mode, so that the module can go on training.

    network: images [N, *image_shape], in the teacher's bounds -> scores [N, classes]
    image_shape  of one image
    classes      of the teacher
    device       where pairs are searched; the copy is moved there

    scored, differentiated: images of forward passes alone, and of passes forward and backward, so
    far. block: images of a pass.

    Raises TypeError for what is no module, and ValueError for one that does not take the teacher's
    images, or whose scores are not of its classes.
    """

    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, ...],
        classes: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(network, nn.Module):
            raise TypeError(f"surrogate: expected a torch.nn.Module, got {type(network).__name__}")
        self._shape, self._device = tuple(image_shape), torch.device(device)
        self._network = to_channels_last(copy.deepcopy(network).eval().to(device))
        self._network.requires_grad_(False)
        if self._device.type == "cpu":
            with_fast_input_gradients(self._network)
        self.block = block_size(self._shape, self._device.type)
        self.scored = self.differentiated = 0
        floating = (p.dtype for p in self._network.parameters() if p.is_floating_point())
        self._dtype = next(floating, torch.float32)
        try:
            with torch.no_grad():
                scores = self._network(
                    torch.zeros(1, *self._shape, device=device, dtype=self._dtype)
                )
        except Exception as error:
            raise ValueError(
                f"surrogate: expected a network of images {list(self._shape)}, as the teacher's "
                f"are, got one that fails on them: {error}"
            ) from error
        if not isinstance(scores, Tensor) or tuple(scores.shape) != (1, classes):
            found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(
                f"surrogate: expected scores [1, {classes}], as the teacher has {classes} classes, "
                f"for an image of shape {list(self._shape)}, got {found}"
            )

    def best_rays(self, pairs: Pairs, rays: Rays, nearest: Tensor) -> Rays:
        """Of each pair the ray that enters the wanted side most deeply, on the surrogate's word.

        All of a pair's rays are looked at in one distance from the sample, a share of `nearest`,
        [P] float32, the distance to the nearest end. Costs one forward pass a ray and no query.
        """
        if not len(rays):
            return rays
        radius = nearest * _COMPARED_AT
        numbers = torch.arange(len(rays), device=rays.pair_of.device)
        margins = [
            self._margins_on(pairs, rays, radius, part) for part in numbers.split(self.block)
        ]
        margin = torch.cat(margins).nan_to_num(nan=-torch.inf)
        best = torch.full_like(nearest, -torch.inf)
        best.scatter_reduce_(0, rays.pair_of, margin, "amax")
        first = torch.full_like(pairs.sample_of, len(rays))
        equal = torch.where(margin == best[rays.pair_of], numbers, len(rays))
        first.scatter_reduce_(0, rays.pair_of, equal, "amin")
        return rays.select(first[first < len(rays)])

    def seconds_an_image(self) -> tuple[float, float]:
        """Seconds that an image takes in a whole block forward, and forward and backward.

        Leaves `scored` and `differentiated` as they are. The first pass of each kind is not timed.
        """
        points = torch.zeros(self.block, math.prod(self._shape), device=self._device)
        criterion_class = points.new_zeros(self.block, dtype=torch.int64)
        return (
            _seconds(lambda: self._scores(points)) / self.block,
            _seconds(lambda: self._differentiate(points, criterion_class)) / self.block,
        )

    def normals(self, pairs: Pairs, points: Tensor, chosen: Tensor) -> Tensor:
        """[n, D] float32: unit normals of its boundary towards the wanted side, zeros for none.

        points: [n, D], of the pairs numbered by `chosen` [n] int64.
        """
        return _unit(self._look(pairs, points, chosen)[1])

    def approach(self, pairs: Pairs, points: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Where the points could be, on the surrogate's word, to be nearer to their samples.

        The teacher's boundary runs through the points, the surrogate's elsewhere; so what is looked
        for is the nearest point, in bounds, at which the surrogate's margin is what it is here.

        Returns [n, D] float32 twice: these points, and the normals where they began, as `normals`.
        """
        samples = pairs.samples[pairs.sample_of[chosen]]
        level = normals = None
        for _ in range(_STEPS):
            margin, gradient = self._look(pairs, points, chosen)
            if level is None or normals is None:
                level, normals = margin, _unit(gradient)
            length = gradient.norm(dim=1, keepdim=True)
            normal = gradient / length
            # Of the plane that the level set is here, the point nearest to the sample.
            offset = ((points - samples) * normal).sum(1, keepdim=True)
            foot = samples + normal * (offset - (margin - level)[:, None] / length)
            foot = torch.where(length > 0, foot, points)
            points = (points + _SHARE * (foot - points)).clamp(*pairs.bounds)
        return points, normals

    def _look(self, pairs: Pairs, points: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The margin [n] by which the surrogate takes the wanted side, and its gradient [n, D]."""
        criterion_class = pairs.criterion_class[chosen]
        self.differentiated += len(points)
        parts = [
            self._differentiate(images, classes)
            for images, classes in zip(
                points.split(self.block), criterion_class.split(self.block), strict=True
            )
        ]
        margin, gradient = (torch.cat(part) for part in zip(*parts, strict=True))
        return (margin, gradient) if pairs.targeted else (-margin, -gradient)

    def _margins_on(self, pairs: Pairs, rays: Rays, radius: Tensor, part: Tensor) -> Tensor:
        """[n]: the margin of the wanted side on some rays, at the radius [P] of each one's pair."""
        points = ops.bracket_queries(
            pairs.samples, rays.ends, pairs.sample_of, rays.pair_of, rays.end_of, rays.lengths,
            radius, part, lower=pairs.bounds[0], upper=pairs.bounds[1],
        )  # fmt: skip
        self.scored += len(points)
        margin = _margin(self._scores(points), pairs.criterion_class[rays.pair_of[part]])
        return margin if pairs.targeted else -margin

    @torch.inference_mode()
    def _scores(self, points: Tensor) -> Tensor:
        """[n, classes] float32, of a block or less."""
        return self._network(self._filled_up(points))[: len(points)].float()

    def _differentiate(self, points: Tensor, criterion_class: Tensor) -> tuple[Tensor, Tensor]:
        """The margin [n] of these classes, and its gradient [n, D], of a block or less."""
        count = len(points)
        # The caller may be in inference mode, in which nothing has a gradient.
        with torch.inference_mode(False), torch.enable_grad():
            images = self._filled_up(points).requires_grad_()
            margin = _margin(self._network(images)[:count].float(), criterion_class.clone())
            (gradient,) = torch.autograd.grad(margin.sum(), images)
        gradient = gradient[:count].flatten(1).float()
        return margin.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)

    def _filled_up(self, points: Tensor) -> Tensor:
        """A block of images: the points [n, D], and zeros behind them."""
        images = points.new_zeros(self.block, points.shape[1], dtype=self._dtype)
        images[: len(points)] = points
        return images.view(self.block, *self._shape)


def _margin(scores: Tensor, criterion_class: Tensor) -> Tensor:
    """[n]: by how much the score of the wanted class is above the highest other one."""
    column = criterion_class[:, None]
    others = scores.scatter(1, column, -torch.inf).amax(1)
    return scores.gather(1, column)[:, 0] - others


def _seconds(work: Callable[[], object]) -> float:
    """What the work takes, a GPU's share included: the least of three times, after a first one."""
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        work()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def _unit(rows: Tensor) -> Tensor:
    """The rows [n, D] at length 1, zeros where they are zero."""
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 0, rows / length, 0)


def block_size(shape: tuple[int, ...], device: str) -> int:
    """Images of a pass on a device of this type."""
    kind = device if device in _MOST_BLOCK else "cpu"
    return max(_LEAST_BLOCK, min(_MOST_BLOCK[kind], _BLOCK_VALUES[kind] // math.prod(shape)))
