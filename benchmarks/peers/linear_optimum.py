"""The exact distance from an image to another class of a linear teacher, inside the bounds."""

import torch
from torch import Tensor

_MOST_SLOPE = 1e6
_HALVINGS = 50


def linear_optimum(
    weights: Tensor, bias: Tensor, images: Tensor, targets: Tensor, sweeps: int = 200
) -> Tensor:
    """The least L2 distance to the points of the unit box at which the target scores highest.

    These points form a polytope. The nearest of them is y = clamp(x + Σ λ_k (w_t - w_k), 0, 1) with
    the λ_k ≥ 0 that solve the dual problem: each is 0 or makes its class tie with the target. They
    are found one at a time by bisection, in sweeps over the classes. This coordinate ascent
    converges because the dual is concave and smooth.

    Args:
        weights: [C, D].
        bias: [C].
        images: [P, D] in [0, 1].
        targets: [P] int64.
        sweeps: The most sweeps.

    Returns:
        [P] float64; +inf if no point was found at which the target scores highest.
    """
    weights, bias, images = weights.double(), bias.double(), images.double()
    normals = weights[targets, None] - weights[None]
    offsets = bias[targets, None] - bias[None]
    multipliers = torch.zeros(len(images), len(weights), dtype=torch.float64)
    shifted = images.clone()
    for _ in range(sweeps):
        before = multipliers.clone()
        for k in range(len(weights)):
            normal, offset = normals[:, k], offsets[:, k]
            base = shifted - multipliers[:, k, None] * normal
            multipliers[:, k] = _least_multiplier(base, normal, offset)
            shifted = base + multipliers[:, k, None] * normal
        if bool((multipliers - before).abs().max() <= 1e-9 * (1 + multipliers.abs().max())):
            break
    nearest = shifted.clamp(0, 1)
    margins = torch.einsum("pd,pkd->pk", nearest, normals) + offsets
    scale = normals.norm(dim=2).clamp_min(1e-12)
    reached = (margins / scale >= -1e-4).all(1)
    return torch.where(reached, (nearest - images).norm(dim=1), torch.inf)


def _least_multiplier(base: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """The least λ ≥ 0 at which clamp(base + λ·normal, 0, 1)·normal + offset is not negative, [P].

    The difference of scores grows with λ, so bisection finds it.
    """

    def wins(multiplier: Tensor) -> Tensor:
        points = (base + multiplier[:, None] * normal).clamp(0, 1)
        return (points * normal).sum(1) + offset >= 0

    low = torch.zeros(len(base), dtype=base.dtype)
    high = torch.full_like(low, 1e-3)
    for _ in range(_HALVINGS):
        grown = torch.where(wins(high) | (high >= _MOST_SLOPE), high, high * 2)
        if torch.equal(grown, high):
            break
        high = grown
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        won = wins(middle)
        low, high = torch.where(won, low, middle), torch.where(won, middle, high)
    return torch.where(wins(torch.zeros_like(low)), 0.0, high)
