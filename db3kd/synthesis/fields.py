"""Noise and low-frequency fields, from which textures, masks and plain starts are made."""

import math
from functools import cache

import numpy as np

from db3kd.boundary.probes import dct_basis
from db3kd.synthesis.random_draws import Array, Draws

# Frequencies count half periods over the image, so that an image of any size shows the same scene.
_STRETCH = 0.7  # log of how far a band is stretched in one direction and squeezed in the other
_HIGHEST = 20.0

# The coefficients of a field are at most 1, and the numbers of the basis below 1.5. Rounded to
# these steps, their products and all partial sums are exact in float64, so the order of summation,
# and with it the number of threads, does not change a field.
_COEFFICIENT_STEP = 2.0**-16
_BASIS_STEP = 2.0**-13


def paper_noise(draws: Draws, shape: tuple[int, ...]) -> Array:
    """Draws the noise of ZSDB3KD (Wang, ICML 2021): [images, *shape] in [0, 1].

    (U[0, 1] + 0.2) · a + N(0, 1) · b for each pixel, with a and b uniform in [0, 1] for each image.
    """
    one = (1,) * len(shape)
    images = draws.uniform(0.2, 1.2, shape) * draws.uniform(0, 1, one)
    images += draws.normal(shape) * draws.uniform(0, 1, one)
    return images.clip(0, 1, out=images)


def low_frequency(draws: Draws, shape: tuple[int, int, int]) -> Array:
    """Draws fields of 2 to 20 half periods, of any level and contrast: [images, C, H, W] in [0, 1].

    The spectrum is drawn for each image. This is one of the processes of Baradad et al., "Learning
    to see by looking at noise" (NeurIPS 2021).
    """
    return _painted(draws, shape, lowest=2, level=(0, 1), contrast=(0.05, 0.6))


def texture(draws: Draws, shape: tuple[int, int, int]) -> Array:
    """Draws textures for shapes, plain to rough and rarely black: [images, C, H, W] in [0, 1]."""
    return _painted(draws, shape, lowest=1, level=(0.1, 1), contrast=(0, 0.4))


def field(
    draws: Draws,
    shape: tuple[int, int, int],
    lowest: float,
    highest: float,
    likeness: Array | float = 0.0,
) -> Array:
    """Draws smooth random fields: [images, C, H, W] with mean 0 and deviation 1 per channel.

    DCT coefficients are independent and normal up to a cut-off frequency, weighted by
    (1 + frequency)^-e with e in [0, 1.5]. The band reaches up to twice as far in one direction and
    half as far in the other.

    Args:
        draws: Source of random numbers.
        shape: (channels, height, width).
        lowest: Smallest cut-off, in half periods over the image.
        highest: Largest cut-off; it is drawn log-uniformly.
        likeness: [images, 1, 1, 1] or a number in [0, 1], how much the channels of an image have in
            common. It is not used with one channel.
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
    """Draws clamped fields around a level, grey to colourful if there are several channels."""
    colour = draws.uniform(0, 1)
    images = field(draws, shape, lowest, _HIGHEST, likeness=1 - colour)
    images *= draws.uniform(*contrast)
    images += _colours(draws, shape[0], *level, colour)
    return images.clip(0, 1, out=images)


def _colours(draws: Draws, channels: int, low: float, high: float, colour: Array) -> Array:
    """Draws values [images, C, 1, 1] in [low, high), equal in all channels if `colour` is 0."""
    grey = draws.uniform(low, high)
    if channels == 1:
        return grey
    separate = draws.uniform(low, high, (channels, 1, 1))
    return grey + colour * (separate - grey)


def _envelope(draws: Draws, block: tuple[int, int], lowest: float, highest: float) -> Array:
    """Returns the weight of each frequency, 0 for the mean: [images, 1, *block]."""
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
    """Returns the inverse cosine transform of coefficients in steps, [n, C, height, width].

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
    """Returns the lowest `count` cosines over `size` points, each with a mean square of about 1."""
    waves = dct_basis(count, size).double().numpy() * math.sqrt(size)
    return np.rint(waves / _BASIS_STEP) * _BASIS_STEP
