"""Textured shapes, strokes and blends of shapes on a background.

Images of shapes that hide one another are known as the dead leaves model (Lee, Mumford and Huang,
IJCV 2001). Baradad et al., "Learning to see by looking at noise" (NeurIPS 2021), train on them.
These images have fewer shapes, with soft and wavy outlines. Coordinates run from -1 to 1 over the
height and over the width.
"""

import math

import numpy as np

from db3kd.synthesis.fields import field, texture
from db3kd.synthesis.random_draws import Array, Draws

Shape = tuple[int, int, int]

_BLACK_SHARE, _INVERTED_SHARE = 0.7, 0.15
"""Shares of images on a black background, and of those inverted. The others have a texture."""

_PATH_COSINES = 5
"""Number of cosines that a stroke's path is made of."""

_DISCS = 24
"""Number of discs along a stroke's path."""

_MAX_EXPONENT = 40.0
"""Exponents are clamped to this value, so that products of two exponentials fit float32."""


def shapes(draws: Draws, shape: Shape) -> Array:
    """Returns images, in [0, 1], of one soft, textured shape on a background."""
    cover = soft_shapes(draws, shape)
    return _with_background(draws, cover * texture(draws, shape), cover)


def blends(draws: Draws, shape: Shape) -> Array:
    """Returns images, in [0, 1], of two shapes; a third shape masks which of them a pixel shows."""
    cover = soft_shapes(draws, shape)
    images = cover * texture(draws, shape)
    other_cover = soft_shapes(draws, shape)
    other = other_cover * texture(draws, shape)
    mask = soft_shapes(draws, shape)
    for first, second in ((cover, other_cover), (images, other)):
        second -= first
        second *= mask
        first += second
    return _with_background(draws, images, cover)


def strokes(draws: Draws, shape: Shape) -> Array:
    """Returns images, in [0, 1], of one or two soft, textured curves on a background."""
    cover = _soft_strokes(draws, shape)
    two = np.flatnonzero(draws.bernoulli(0.5, ()))
    cover[two] = np.maximum(cover[two], _soft_strokes(draws.for_images(len(two)), shape))
    return _with_background(draws, cover * texture(draws, shape), cover)


def _with_background(draws: Draws, images: Array, cover: Array) -> Array:
    """Inverts some of the images, gives others a textured background, and returns all of them.

    The images, on black, are changed in place. `cover`, [images, 1, H, W], says how much of each
    pixel the shapes cover.
    """
    choice = draws.uniform(0, 1, ())
    inverted = np.flatnonzero(choice < _INVERTED_SHARE)
    images[inverted] = 1 - images[inverted]
    textured = np.flatnonzero(choice >= _INVERTED_SHARE + _BLACK_SHARE)
    background = texture(draws.for_images(len(textured)), images.shape[1:])
    images[textured] += (1 - cover[textured]) * background
    return images


def soft_shapes(draws: Draws, shape: Shape) -> Array:
    """Returns masks of random shapes.

    A shape is a superellipse whose outline is displaced by a smooth field. Outlines are sharp to
    blurred. Half of the shapes are symmetric about a vertical axis.

    Returns:
        [images, 1, H, W] float32 in [0, 1], how much of each pixel the shape covers.
    """
    _, height, width = shape
    mirrored = draws.bernoulli(0.5)
    waves = field(draws, (1, height, width), 1, 6)
    waves = np.where(mirrored, (waves + waves[..., ::-1]) / 2, waves)
    distance = _superellipse_distance(draws, height, width, mirrored)
    sharpness = draws.log_uniform(2, 30)
    fringe = np.exp(np.minimum(2 * sharpness * (distance - 1.05), _MAX_EXPONENT))
    waves *= draws.uniform(0, 0.75)
    distance -= 1
    distance *= draws.uniform(0.6, 2.4)
    distance -= waves
    distance *= sharpness
    outline = np.exp(np.minimum(distance, _MAX_EXPONENT, out=distance), out=distance)
    outline += 1
    outline *= 1 + fringe
    return np.reciprocal(outline, out=outline)


def _superellipse_distance(draws: Draws, height: int, width: int, centred: np.ndarray) -> Array:
    """Returns [images, 1, H, W], below 1 inside a random superellipse and above 1 outside.

    `centred`, [images, 1, 1, 1] bool, says which superellipses are centred horizontally.
    """
    vertical, horizontal = axis(height)[:, None], axis(width)
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
    """Returns [images, 1, H, W] in [0, 1], how much of each pixel a stroke covers.

    The path of a stroke is a short random cosine series. Discs of one radius lie along it: they
    form a smooth line if they overlap, and dots if the path is long and the radius small.
    """
    _, height, width = shape
    path = _paths(draws)
    up = np.square(axis(height) - path[:, 0, :, None])
    across = np.square(axis(width) - path[:, 1, :, None])
    nearest = np.full((draws.images, height, width), np.inf, np.float32)
    squared = np.empty_like(nearest)
    for disc in range(_DISCS):
        np.add(up[:, disc, :, None], across[:, disc, None, :], out=squared)
        np.minimum(nearest, squared, out=nearest)
    distance = np.sqrt(nearest, out=nearest)[:, None]
    distance -= draws.uniform(0.03, 0.25)
    distance *= draws.log_uniform(8, 60)
    outline = np.exp(np.minimum(distance, _MAX_EXPONENT, out=distance), out=distance)
    outline += 1
    return np.reciprocal(outline, out=outline)


def _paths(draws: Draws) -> Array:
    """Returns smooth random curves: [images, 2, _DISCS] coordinates (vertical, horizontal)."""
    number = np.arange(1, _PATH_COSINES + 1, dtype=np.float32)
    weights = draws.normal((2, _PATH_COSINES)) / number ** draws.uniform(0.5, 2, (1, 1))
    cosines = np.cos(math.pi * number[:, None] * np.linspace(0, 1, _DISCS, dtype=np.float32))
    # einsum sums in a fixed order; the order of a matrix product depends on the number of threads.
    path = np.einsum("nck,kp->ncp", weights, cosines)
    middle = draws.uniform(-0.3, 0.3, (2, 1))
    return middle + path * draws.uniform(0.2, 0.8, (1, 1))


def axis(size: int) -> Array:
    """Returns [size] float32, the coordinates of the pixels along one side, from -1 to 1."""
    return np.linspace(-1, 1, size, dtype=np.float32)
