"""The least distance that a gradient attack finds on the network of the teacher.

The attack is "decoupled direction and norm" (Rony et al., CVPR 2019) with a margin loss. The
distances of searches are compared with it.
"""

import math

import torch
from torch import Tensor, nn


def minimum_norm(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    steps: int = 400,
    starts: Tensor | None = None,
) -> Tensor:
    """Finds a near point of another class for each image.

    The norm of the perturbation shrinks by a falling factor after a step that reached the class and
    grows after a step that did not. An image that never reaches its class this way is attacked
    again, from a start that is in the class.

    Args:
        network: The network of the teacher.
        images: [n, *image_shape] float32 in [0, 1].
        targets: [n] int64, the classes to reach.
        steps: Gradient steps.
        starts: [n, *image_shape] float32, an image of the class to reach for each image; None to
            begin at the images only.

    Returns:
        [n] float32, L2 distances; +inf if no step reached the class.
    """
    best = _attack(network, images, targets, steps, torch.zeros_like(images), 3.0)
    missed = best.isinf()
    if starts is not None and missed.any():
        offset = (starts - images)[missed]
        best[missed] = _attack(
            network, images[missed], targets[missed], steps, offset, _norms(offset)
        )
    return best


def _attack(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    steps: int,
    perturbation: Tensor,
    norm: Tensor | float,
) -> Tensor:
    """Attacks images from a perturbation; `norm` is that of the first step, [n] or one for all."""
    best = torch.full((len(images),), torch.inf)
    norm = torch.as_tensor(norm).expand(len(images))
    for number in range(steps):
        decay = (1 + math.cos(math.pi * number / steps)) / 2
        moved = (images + perturbation).detach().requires_grad_(True)
        logits = network(moved)
        score = logits.gather(1, targets[:, None])[:, 0]
        other = logits.scatter(1, targets[:, None], -torch.inf).max(1).values
        (gradient,) = torch.autograd.grad((other - score).sum(), moved)
        length = _norms(perturbation)
        reached = score > other
        best = torch.where(reached, torch.minimum(best, length), best)
        step = 0.1 * decay + 0.0005
        norm = torch.where(reached, torch.minimum(norm, length) * (1 - step), norm * (1 + step))
        direction = gradient / _as_images(_norms(gradient).clamp_min(1e-12), images)
        perturbation = perturbation - (decay + 0.005) * direction
        perturbation = perturbation * _as_images(norm / _norms(perturbation), images)
        perturbation = (images + perturbation).clamp(0, 1) - images
    return best.detach()


def _norms(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1)


def _as_images(values: Tensor, images: Tensor) -> Tensor:
    return values.view(-1, *[1] * (images.ndim - 1))
