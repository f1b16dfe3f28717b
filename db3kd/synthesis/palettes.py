"""Coloured textures whose colours come from a palette, and collages of shapes that they fill.

The colours of a natural surface vary along a line or a curve, such as dark green to light green,
rather than freely. So a texture is a smooth field of positions along a palette of few colours,
which are alike in some images and far apart in others. Gradients, edges and noise of several
scales are added. Images of one channel get palettes of greys.
"""

import math

import numpy as np

from db3kd.synthesis.fields import field
from db3kd.synthesis.random_draws import Array, Draws
from db3kd.synthesis.shapes import Shape, axis, soft_shapes

_COLOURS = 4
"""Number of colours of a palette."""

_INVERTED_SHARE = 0.35
"""Share of the coloured palettes that are inverted."""

_HIGHEST = 20.0
"""Highest mean cut-off of a texture, in half periods over the image."""

_LAYERS = 3
"""Most shapes of a collage."""

_LAYER_SHARE = 0.3
"""Share of the collages that have each layer but the first, which all have."""


def palettes(draws: Draws, shape: Shape) -> Array:
    """Returns images, in [0, 1], that a texture of one palette fills."""
    channels, height, width = shape
    position = field(draws, (1, height, width), 1, _HIGHEST)
    position *= draws.uniform(0, 0.6)
    position += _gradient(draws, height, width)
    position += draws.uniform(0, 1)
    # A triangle wave keeps positions in [0, 1] without clamping them to the end of the palette.
    position -= 2 * np.floor(position / 2)
    position = 1 - np.abs(1 - position)
    images = _through_palette(position, _palette(draws, channels))
    grain = field(draws, shape, 4, _HIGHEST, channel_correlation=draws.uniform(0, 1))
    grain *= draws.uniform(-0.02, 0.2).clip(min=0)
    images += grain
    return images.clip(0, 1, out=images)


def collages(draws: Draws, shape: Shape) -> Array:
    """Returns images of one to three soft shapes, each with its own palette, on a background."""
    images = palettes(draws, shape)
    for layer in range(_LAYERS):
        share = _LAYER_SHARE if layer else 1.0
        chosen = np.flatnonzero(draws.bernoulli(share, ()))
        some = draws.for_images(len(chosen))
        cover = soft_shapes(some, shape)
        images[chosen] += cover * (palettes(some, shape) - images[chosen])
    return images.clip(0, 1, out=images)


def _gradient(draws: Draws, height: int, width: int) -> Array:
    """Returns [images, 1, H, W], ramps in random directions, from gentle ones to edges."""
    angle = draws.uniform(0, 2 * math.pi)
    along = np.cos(angle) * axis(width) + np.sin(angle) * axis(height)[:, None]
    along += draws.uniform(-0.5, 0.5)
    along *= draws.log_uniform(0.3, 30)
    ramp = np.tanh(along, out=along)
    ramp *= draws.uniform(0, 0.5)
    return ramp


def _palette(draws: Draws, channels: int) -> Array:
    """Returns [images, _COLOURS, C, 1, 1] in [0, 1].

    Hues, saturations and values of a palette are alike in some images and far apart in others. A
    hue is a colour whose highest channel is 1 and whose lowest is 0. A share of the palettes is
    inverted: its colours tend to white as others tend to black.
    """
    value = _around_one(draws, draws.uniform(0, 1, (_COLOURS, 1, 1, 1)))
    if channels == 1:
        return value
    saturation = _around_one(draws, draws.uniform(0, 1.4, (_COLOURS, 1, 1, 1))).clip(max=1)
    hue = _around_one(draws, draws.uniform(0, 1, (_COLOURS, channels, 1, 1)))
    hue -= hue.min(2, keepdims=True)
    hue /= np.maximum(hue.max(2, keepdims=True), 1e-6)
    colours = value * (1 - saturation * (1 - hue))
    inverted = draws.bernoulli(_INVERTED_SHARE, (1, 1, 1, 1))
    return np.where(inverted, 1 - colours, colours)


def _around_one(draws: Draws, parts: Array) -> Array:
    """Moves the parts of a palette, [images, _COLOURS, …], towards its first by a random share."""
    first = parts[:, :1].copy()
    parts -= first
    parts *= draws.uniform(-0.3, 1.1, (1, 1, 1, 1)).clip(0, 1)
    parts += first
    return parts


def _through_palette(position: Array, colours: Array) -> Array:
    """Returns [images, C, H, W], colours interpolated at positions [images, 1, H, W] in [0, 1]."""
    place = position * (_COLOURS - 1)
    images = np.zeros((len(position), colours.shape[2], *position.shape[2:]), np.float32)
    for number in range(_COLOURS):
        weight = np.maximum(1 - np.abs(place - number), 0)
        images += weight * colours[:, number]
    return images
