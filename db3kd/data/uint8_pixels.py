"""Pseudo samples are 8-bit images: what is stored is, to the bit, what the teacher was asked."""

import torch
from torch import Tensor

MAX_PIXEL = 255


def to_float(pixels: Tensor, bounds: tuple[float, float]) -> Tensor:
    """uint8 [n, *shape] -> float32 of that shape, level l at lower + (upper - lower)·l/255."""
    lower, upper = bounds
    images = pixels.float().div_(MAX_PIXEL)
    if bounds != (0.0, 1.0):
        images.mul_(upper - lower).add_(lower).clamp_(lower, upper)
    return images


def to_uint8(images: Tensor, bounds: tuple[float, float]) -> Tensor:
    """float [n, *shape] in bounds -> the nearest levels, uint8 of that shape."""
    lower, upper = bounds
    scaled = (images - lower) * (MAX_PIXEL / (upper - lower))
    return scaled.round_().clamp_(0, MAX_PIXEL).to(torch.uint8)
