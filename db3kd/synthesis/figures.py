"""Textured shapes and strokes on backgrounds, and blends of them.

Overlapping shapes are the dead leaves model (Lee, Mumford and Huang, IJCV 2001), which Baradad et
al., "Learning to see by looking at noise" (NeurIPS 2021), also use. Here the outlines are soft and
wavy, and there are few shapes. Coordinates run from -1 to 1 over height and width.
"""

import math

import numpy as np

from db3kd.synthesis.fields import field, texture
from db3kd.synthesis.random_draws import Array, Draws

Shape = tuple[int, int, int]

_DARK = 0.7  # share of images with a black background; half of the rest is textured, half inverted
_INVERTED = 0.15
_WAVES = 5  # half periods in the path of a stroke
_DISCS = 24
_STEEPEST = 40.0  # exp() of it and of twice it fits into float32


def shapes(draws: Draws, shape: Shape) -> Array:
    """Draws one soft, textured shape on a background: [images, C, H, W] in [0, 1]."""
    cover = soft_shapes(draws, shape)
    return _with_background(draws, cover * texture(draws, shape), cover)


def blends(draws: Draws, shape: Shape) -> Array:
    """Draws two shapes on one background, blended by a third mask: [images, C, H, W] in [0, 1]."""
    cover = soft_shapes(draws, shape)
    images = cover * texture(draws, shape)
    other_cover = soft_shapes(draws, shape)
    other = other_cover * texture(draws, shape)
    turn = soft_shapes(draws, shape)
    for first, second in ((cover, other_cover), (images, other)):
        second -= first
        second *= turn
        first += second
    return _with_background(draws, images, cover)


def strokes(draws: Draws, shape: Shape) -> Array:
    """Draws one or two soft, textured curves on a background: [images, C, H, W] in [0, 1]."""
    cover = _soft_strokes(draws, shape)
    two = np.flatnonzero(draws.happens(0.5, ()))
    cover[two] = np.maximum(cover[two], _soft_strokes(draws.some(len(two)), shape))
    return _with_background(draws, cover * texture(draws, shape), cover)


def _with_background(draws: Draws, images: Array, cover: Array) -> Array:
    """Gives some images on black, with cover [images, 1, H, W], another background."""
    lot = draws.uniform(0, 1, ())
    inverted = np.flatnonzero(lot < _INVERTED)
    images[inverted] = 1 - images[inverted]
    textured = np.flatnonzero(lot >= _INVERTED + _DARK)
    ground = texture(draws.some(len(textured)), images.shape[1:])
    images[textured] += (1 - cover[textured]) * ground
    return images


def soft_shapes(draws: Draws, shape: Shape) -> Array:
    """Draws masks of shapes: the covered part of each pixel, [images, 1, H, W] in [0, 1].

    A shape is a superellipse whose outline is displaced by a low-frequency field, sharp to blurred.
    Half of the shapes are mirror-symmetric.
    """
    _, height, width = shape
    mirrored = draws.happens(0.5)
    waves = field(draws, (1, height, width), 1, 6)
    waves = np.where(mirrored, (waves + waves[..., ::-1]) / 2, waves)
    distance = _superellipse_distance(draws, height, width, mirrored)
    sharpness = draws.log_uniform(2, 30)
    fringe = np.exp(np.minimum(2 * sharpness * (distance - 1.05), _STEEPEST))
    waves *= draws.uniform(0, 0.75)
    distance -= 1
    distance *= draws.uniform(0.6, 2.4)
    distance -= waves
    distance *= sharpness
    outline = np.exp(np.minimum(distance, _STEEPEST, out=distance), out=distance)
    outline += 1
    outline *= 1 + fringe
    return np.reciprocal(outline, out=outline)


def _superellipse_distance(draws: Draws, height: int, width: int, centred: np.ndarray) -> Array:
    """Draws superellipses: [images, 1, H, W], below 1 inside and above 1 outside.

    Args:
        draws: Source of random numbers.
        height: Height of the images.
        width: Width of the images.
        centred: [images, 1, 1, 1] bool, whether to centre the shape horizontally.
    """
    vertical, horizontal = _axis(height)[:, None], _axis(width)
    middle_y, middle_x = draws.uniform(-0.3, 0.3), draws.uniform(-0.3, 0.3)
    half_height, half_width = draws.uniform(0.2, 1.1), draws.uniform(0.2, 1.1)
    power = draws.log_uniform(2, 12)
    up = np.abs(vertical - middle_y) / half_height
    across = np.abs(horizontal - np.where(centred, 0, middle_x)) / half_width
    distance = np.maximum(up**power + across**power, 1e-9)
    np.log(distance, out=distance)
    distance /= power
    return np.exp(distance, out=distance)


def _soft_strokes(draws: Draws, shape: Shape) -> Array:
    """Draws masks of strokes: the covered part of each pixel, [images, 1, H, W] in [0, 1].

    The path is a short random cosine series, drawn as discs of one radius: a smooth line if they
    overlap, and dots if the path is long and thin.
    """
    _, height, width = shape
    path = _paths(draws)
    up = np.square(_axis(height) - path[:, 0, :, None])
    across = np.square(_axis(width) - path[:, 1, :, None])
    nearest = np.full((draws.images, height, width), np.inf, np.float32)
    squared = np.empty_like(nearest)
    for disc in range(_DISCS):
        np.add(up[:, disc, :, None], across[:, disc, None, :], out=squared)
        np.minimum(nearest, squared, out=nearest)
    distance = np.sqrt(nearest, out=nearest)[:, None]
    distance -= draws.uniform(0.03, 0.25)
    distance *= draws.log_uniform(8, 60)
    outline = np.exp(np.minimum(distance, _STEEPEST, out=distance), out=distance)
    outline += 1
    return np.reciprocal(outline, out=outline)


def _paths(draws: Draws) -> Array:
    """Draws smooth random curves: [images, 2, _DISCS] coordinates (vertical, horizontal)."""
    number = np.arange(1, _WAVES + 1, dtype=np.float32)
    weights = draws.normal((2, _WAVES)) / number ** draws.uniform(0.5, 2, (1, 1))
    cosines = np.cos(math.pi * number[:, None] * np.linspace(0, 1, _DISCS, dtype=np.float32))
    # einsum sums in a fixed order; that of a matrix product would depend on the number of threads
    path = np.einsum("nck,kp->ncp", weights, cosines)
    middle = draws.uniform(-0.3, 0.3, (2, 1))
    return middle + path * draws.uniform(0.2, 0.8, (1, 1))


def _axis(size: int) -> Array:
    return np.linspace(-1, 1, size, dtype=np.float32)
