"""Finds points near a sample at which a surrogate's margin has a given sign or value.

Both searches use margins and their gradients alone, and send no query.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Margins = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Returns the margins of points [n, D], [n], and their gradients, [n, D].

A margin is positive at a point that meets the criterion.
"""

_FOLLOWING_STEPS = 3
_FOLLOWING_SHARE = 0.45
"""Steps towards the nearest point, and the share of the way that each of them covers.

Boundaries are curved, so no step covers the whole way. Eight steps of a fifth each get no closer,
and cost nearly three times as many passes.
"""

_NEAREST_STEPS = 20
_NEAREST_STEP = 0.3
"""Steps of the search for the nearest point, and the length of the first, as a share of the pair's
distance. Twice as many steps get less than 1 % nearer.
"""

_NORM_STEP, _LEAST_STEP = 0.1, 0.005
"""The share by which the norm changes in the first step, and the share of it in the last step."""


def nearest_points(
    margins: Margins, samples: Tensor, distance: Tensor, bounds: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Finds the nearest points with a positive margin.

    The search starts at the samples, not at a known point, so it can reach a nearer part of the
    boundary than any ray to an image crosses. It is "decoupled direction and norm" (Rony et al.,
    CVPR 2019): each step follows the gradient, and the norm of the perturbation shrinks if the last
    point met the criterion, and otherwise grows.

    Args:
        margins: The margins of points, one for each sample.
        samples: [n, D] float32.
        distance: [n] float32, the first norms.
        bounds: The smallest and the largest value of a point.

    Returns:
        The points, [n, D] float32, and whether one was found for each sample, [n] bool. If none
        was found, the point is the sample.
    """
    distance = distance[:, None]
    best = samples.clone()
    shortest = torch.full_like(distance, torch.inf)
    offset, norm = torch.zeros_like(samples), distance
    for number in range(_NEAREST_STEPS):
        points = samples + offset
        margin, gradient = margins(points)
        length = offset.norm(dim=1, keepdim=True)
        met = margin[:, None] > 0
        nearer = met & (length < shortest)
        best = torch.where(nearer, points, best)
        shortest = torch.where(nearer, length, shortest)
        share = (1 + math.cos(math.pi * number / _NEAREST_STEPS)) / 2 + _LEAST_STEP
        change = _NORM_STEP * share
        norm = torch.where(met, norm.minimum(length) * (1 - change), norm * (1 + change))
        moved = offset + _NEAREST_STEP * share * distance * unit(gradient)
        offset = (samples + unit(moved) * norm).clamp(*bounds) - samples
    return best, shortest[:, 0].isfinite()


def follow_boundary(
    margins: Margins, samples: Tensor, points: Tensor, bounds: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Moves points towards their samples, to the nearest points with the same margins.

    Args:
        margins: The margins of points, one for each sample.
        samples: [n, D] float32.
        points: [n, D] float32.
        bounds: The smallest and the largest value of a point.

    Returns:
        The new points, and the unit gradients of the margins at the old ones; each
        [n, D] float32.
    """
    margin, gradient = margins(points)
    level, normals = margin, unit(gradient)
    for number in range(_FOLLOWING_STEPS):
        if number:
            margin, gradient = margins(points)
        length = gradient.norm(dim=1, keepdim=True)
        normal = gradient / length
        # Here the level set is nearly a plane; the foot is its point nearest to the sample.
        offset = ((points - samples) * normal).sum(1, keepdim=True)
        foot = samples + normal * (offset - (margin - level)[:, None] / length)
        foot = torch.where(length > 0, foot, points)
        points = (points + _FOLLOWING_SHARE * (foot - points)).clamp(*bounds)
    return points, normals


def unit(rows: Tensor) -> Tensor:
    """Scales the rows of [n, D] to length 1; rows of zeros stay zeros."""
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > 0, rows / length, 0)
