"""Noise and low-frequency fields: what textures, masks and plain starts are made of."""

import math
from functools import cache

import numpy as np

from db3kd.boundary.probes import dct_basis
from db3kd.synthesis.random_draws import Array, Draws

# Frequencies count half periods over the image, so that an image of any size shows the same scene.
_STRETCH = 0.7  # log of how far a band is stretched in one direction and squeezed in the other
_HIGHEST = 20.0

# A field's coefficients are at most 1, and the numbers of the basis below 1.5. Rounded to these
# steps, their products and all partial sums of them are exact in float64: no order of summation,
# hence no number of threads, changes a field.
_COEFFICIENT_STEP = 2.0**-16
_BASIS_STEP = 2.0**-13


def paper_noise(draws: Draws, shape: tuple[int, ...]) -> Array:
    """The noise that ZSDB3KD starts from (Wang, ICML 2021): [images, *shape] in [0, 1].

    (U[0, 1] + 0.2) · a + N(0, 1) · b for each pixel, with a and b uniform in [0, 1] for each image.
    """
    one = (1,) * len(shape)
    images = draws.uniform(0.2, 1.2, shape) * draws.uniform(0, 1, one)
    images += draws.normal(shape) * draws.uniform(0, 1, one)
    return images.clip(0, 1, out=images)


def low_frequency(draws: Draws, shape: tuple[int, int, int]) -> Array:
    """Fields of 2 to 20 half periods, of any level and contrast: [images, C, H, W] in [0, 1].

    Noise with a spectrum that is drawn for each image, one of the processes that Baradad et al.,
    "Learning to see by looking at noise" (NeurIPS 2021), train on.
    """
    return _painted(draws, shape, lowest=2, level=(0, 1), contrast=(0.05, 0.6))


def texture(draws: Draws, shape: tuple[int, int, int]) -> Array:
    """What figures are filled with: plain to rough, seldom black. [images, C, H, W] in [0, 1]."""
    return _painted(draws, shape, lowest=1, level=(0.1, 1), contrast=(0, 0.4))


def field(
    draws: Draws,
    shape: tuple[int, int, int],
    lowest: float,
    highest: float,
    likeness: Array | float = 0.0,
) -> Array:
    """Smooth random fields: [images, C, H, W] of mean 0 and deviation 1 over each channel.

    Independent normal DCT coefficients, up to a cut-off in half periods over the image (between
    lowest and highest, log-uniform) and weighted by (1 + frequency)^-e with e in [0, 1.5]. A band
    reaches up to twice as far in one direction, and half as far in the other.

    likeness: [images, 1, 1, 1] or a number, in [0, 1]: how much the channels of an image share,
    from nothing to everything; not read where there is one channel.
    """
    channels, height, width = shape
    reach = math.floor(highest * math.exp(_STRETCH)) + 1
    block = (min(reach, height), min(reach, width))
    coefficients = draws.normal((channels, *block))
    if channels > 1:
        coefficients *= np.sqrt(1 - likeness)
        coefficients += draws.normal((1, *block)) * np.sqrt(likeness)
    coefficients *= _envelope(draws, block, lowest, highest)
    energy = np.square(coefficients).sum((2, 3), keepdims=True)
    coefficients /= np.sqrt(np.maximum(energy, 1e-12)) * _COEFFICIENT_STEP
    return _synthesised(np.rint(coefficients, out=coefficients), height, width)


def _painted(
    draws: Draws,
    shape: tuple[int, int, int],
    lowest: float,
    level: tuple[float, float],
    contrast: tuple[float, float],
) -> Array:
    """Fields around a level, clamped: grey to colourful where there are several channels."""
    colour = draws.uniform(0, 1)
    images = field(draws, shape, lowest, _HIGHEST, likeness=1 - colour)
    images *= draws.uniform(*contrast)
    images += _colours(draws, shape[0], *level, colour)
    return images.clip(0, 1, out=images)


def _colours(draws: Draws, channels: int, low: float, high: float, colour: Array) -> Array:
    """Levels [images, C, 1, 1] in [low, high): equal in all channels at colour 0, own at 1."""
    grey = draws.uniform(low, high)
    if channels == 1:
        return grey
    own = draws.uniform(low, high, (channels, 1, 1))
    return grey + colour * (own - grey)


def _envelope(draws: Draws, block: tuple[int, int], lowest: float, highest: float) -> Array:
    """The weight of each frequency, none for the mean: [images, 1, *block]."""
    cut = draws.log_uniform(lowest, highest)
    stretch = draws.log_uniform(math.exp(-_STRETCH), math.exp(_STRETCH))
    fall = draws.uniform(0, 1.5)
    vertical, horizontal = (np.arange(size, dtype=np.float32) for size in block)
    radius = np.square(vertical[:, None] * stretch) + np.square(horizontal / stretch)
    np.sqrt(radius, out=radius)
    kept = radius <= cut
    kept[..., 0, 0] = False
    radius += 1
    weight = np.log(radius, out=radius)
    weight *= -fall
    np.exp(weight, out=weight)
    weight *= kept
    return weight


def _synthesised(steps: Array, height: int, width: int) -> Array:
    """The inverse cosine transform of coefficients in steps [n, C, h, w]: [n, C, height, width].

    A field whose squared coefficients sum to 1 has deviation 1.
    """
    images, channels, rows, columns = steps.shape
    exact = np.swapaxes(steps, 2, 3).astype(np.float64, order="C")
    partial = exact.reshape(-1, rows) @ _waves(rows, height)
    partial = partial.reshape(images, channels, columns, height).swapaxes(2, 3)
    full = partial.reshape(-1, columns) @ (_waves(columns, width) * _COEFFICIENT_STEP)
    return full.reshape(images, channels, height, width).astype(np.float32)


@cache
def _waves(count: int, size: int) -> np.ndarray:
    """The lowest `count` cosines over `size` points, each of mean square 1 but for the rounding."""
    waves = dct_basis(count, size).double().numpy() * math.sqrt(size)
    return np.rint(waves / _BASIS_STEP) * _BASIS_STEP
