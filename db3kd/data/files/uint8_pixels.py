"""Conversion between float images and uint8 pixels.

Pseudo samples are 8-bit images, so the stored images equal the queried ones, bit for bit.
"""

import torch
from torch import Tensor

MAX_PIXEL = 255


def to_float(pixels: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Converts uint8 pixels to float32 images of the same shape.

    Pixel p becomes lower + (upper - lower) · p / 255.
    """
    lower, upper = bounds
    images = pixels.float().div_(MAX_PIXEL)
    if bounds != (0.0, 1.0):
        images.mul_(upper - lower).add_(lower).clamp_(lower, upper)
    return images


def to_uint8(images: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Rounds float images within the bounds to the nearest uint8 pixels, of the same shape."""
    lower, upper = bounds
    scaled = (images - lower) * (MAX_PIXEL / (upper - lower))
    return scaled.round_().clamp_(0, MAX_PIXEL).to(torch.uint8)
