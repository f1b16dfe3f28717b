"""Where a network that resembles the teacher sees boundaries, so that fewer queries find them.

What it says is a proposal: the teacher is asked about every point that counts. A poor surrogate
costs queries, it cannot make a distance wrong.
"""

import copy
import math

import torch
from torch import Tensor, nn

from db3kd.boundary.pairs import Pairs
from db3kd.layout import to_channels_last

WEIGHT = 5.0
"""Of a surrogate's normal beside the estimates of probes, whose weight is the square root of their
number: it counts as 25 probes in every round."""

_BLOCK_VALUES, _LEAST_BLOCK, _MOST_BLOCK = 2**20, 8, 64
"""Numbers in the images of one pass, and how few and many images. Always as many, so that a row's
rounding does not depend on who else is there."""

_STEPS = 8
_SHARE = 0.2
"""Steps towards the nearest point, and how much of the way each goes: boundaries are bent."""


class Surrogate:
    """A network of one's own that has learnt the teacher's decisions.

    A copy of the module is used, in eval mode, so that the module can go on training.

    network: images [N, *image_shape], in the teacher's bounds -> scores [N, classes]
    image_shape  of one image
    classes      of the teacher
    device       where pairs are searched; the copy is moved there

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
        self._shape = tuple(image_shape)
        self._network = to_channels_last(copy.deepcopy(network).eval().to(device))
        self._network.requires_grad_(False)
        most = _BLOCK_VALUES // math.prod(self._shape)
        self._block = max(_LEAST_BLOCK, min(_MOST_BLOCK, most))
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

    def normals(self, pairs: Pairs, points: Tensor, chosen: Tensor) -> Tensor:
        """[n, D] float32: unit normals of its boundary towards the wanted side, zeros for none.

        points: [n, D], of the pairs numbered by `chosen` [n] int64.
        """
        _, gradient = self._look(pairs, points, chosen)
        length = gradient.norm(dim=1, keepdim=True)
        return torch.where(length > 0, gradient / length, 0)

    def approach(self, pairs: Pairs, points: Tensor, chosen: Tensor) -> Tensor:
        """Where the points could be, on the surrogate's word, to be nearer to their samples.

        The teacher's boundary runs through the points, the surrogate's elsewhere; so what is looked
        for is the nearest point, in bounds, at which the surrogate's margin is what it is here. As
        `normals`; [n, D] float32.
        """
        samples, level = pairs.samples[pairs.sample_of[chosen]], None
        for _ in range(_STEPS):
            margin, gradient = self._look(pairs, points, chosen)
            level = margin if level is None else level
            length = gradient.norm(dim=1, keepdim=True)
            normal = gradient / length
            # Of the plane that the level set is here, the point nearest to the sample.
            offset = ((points - samples) * normal).sum(1, keepdim=True)
            foot = samples + normal * (offset - (margin - level)[:, None] / length)
            foot = torch.where(length > 0, foot, points)
            points = (points + _SHARE * (foot - points)).clamp(*pairs.bounds)
        return points

    def _look(self, pairs: Pairs, points: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The margin [n] by which the surrogate takes the wanted side, and its gradient [n, D]."""
        wanted = pairs.wanted[chosen]
        parts = [
            self._look_at_block(images, classes)
            for images, classes in zip(
                points.split(self._block), wanted.split(self._block), strict=True
            )
        ]
        margin, gradient = (torch.cat(part) for part in zip(*parts, strict=True))
        return (margin, gradient) if pairs.targeted else (-margin, -gradient)

    def _look_at_block(self, points: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        count = len(points)
        # The caller may be in inference mode, in which nothing has a gradient.
        with torch.inference_mode(False), torch.enable_grad():
            images = points.new_zeros(self._block, points.shape[1])
            images[:count] = points
            images.requires_grad_()
            shaped = images.view(self._block, *self._shape).to(self._dtype)
            scores = self._network(shaped)[:count].float()
            column = wanted.clone()[:, None]
            others = scores.scatter(1, column, -torch.inf).amax(1)
            margin = scores.gather(1, column)[:, 0] - others
            (gradient,) = torch.autograd.grad(margin.sum(), images)
        return margin.detach(), gradient[:count].nan_to_num(0.0, 0.0, 0.0)
