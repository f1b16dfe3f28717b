"""Noise and smooth random fields, from which starts, textures and masks are made."""

import math
from functools import cache

import numpy as np

from db3kd.boundary.probes import dct_basis
from db3kd.synthesis.random_draws import Array, Draws

# Frequencies count half periods over the image, so the image size does not change the scene.
_MAX_LOG_STRETCH = 0.7  # log of the largest factor between a cut-off and its mean
_MAX_FREQUENCY = 20.0

# Coefficients are at most 1, and basis values are below 1.5. After rounding to these steps, all
# products and partial sums are exact in float64. So neither the order of summation nor the number
# of threads changes a field.
_COEFFICIENT_STEP = 2.0**-16
_BASIS_STEP = 2.0**-13


def paper_noise(draws: Draws, shape: tuple[int, ...]) -> Array:
    """Returns the noise that ZSDB3KD starts from (Wang, ICML 2021), in [0, 1].

    A pixel is (U[0, 1] + 0.2) · a + N(0, 1) · b, clamped. The factors a and b are uniform in [0, 1]
    and equal for all pixels of an image.
    """
    one = (1,) * len(shape)
    images = draws.uniform(0.2, 1.2, shape) * draws.uniform(0, 1, one)
    images += draws.normal(shape) * draws.uniform(0, 1, one)
    return images.clip(0, 1, out=images)


def low_frequency(draws: Draws, shape: tuple[int, int, int]) -> Array:
    """Returns smooth fields of any brightness and contrast, in [0, 1].

    Their cut-offs are 2 to 20 half periods, and each image has a random spectrum. Baradad et al.,
    "Learning to see by looking at noise" (NeurIPS 2021), train on such noise.
    """
    return _coloured_field(draws, shape, lowest=2, brightness=(0, 1), contrast=(0.05, 0.6))


def texture(draws: Draws, shape: tuple[int, int, int]) -> Array:
    """Returns textures that fill shapes, in [0, 1]: smooth to rough, and rarely black."""
    return _coloured_field(draws, shape, lowest=1, brightness=(0.1, 1), contrast=(0, 0.4))


def field(
    draws: Draws,
    shape: tuple[int, int, int],
    lowest: float,
    highest: float,
    channel_correlation: Array | float = 0.0,
) -> Array:
    """Returns smooth random fields with independent normal DCT coefficients.

    The coefficients of an image are weighted by (1 + frequency)^-e, with e uniform in [0, 1.5], up
    to a cut-off, which is log-uniform between the lowest and the highest, in half periods over the
    image. It is up to twice as high in one direction and half as high in the other.

    `channel_correlation`, a number or [images, 1, 1, 1], is the correlation between the channels of
    an image, in [0, 1]. It has no effect on images of one channel.

    Returns:
        [images, C, H, W] float32. Each channel has mean 0 and standard deviation 1.
    """
    channels, height, width = shape
    reach = math.floor(highest * math.exp(_MAX_LOG_STRETCH)) + 1
    block = (min(reach, height), min(reach, width))
    coefficients = draws.normal((channels, *block))
    if channels > 1:
        coefficients *= np.sqrt(1 - channel_correlation)
        coefficients += draws.normal((1, *block)) * np.sqrt(channel_correlation)
    coefficients *= _envelope(draws, block, lowest, highest)
    energy = np.square(coefficients).sum((2, 3), keepdims=True)
    coefficients /= np.sqrt(np.maximum(energy, 1e-12)) * _COEFFICIENT_STEP
    return _inverse_dct(np.rint(coefficients, out=coefficients), height, width)


def _coloured_field(
    draws: Draws,
    shape: tuple[int, int, int],
    lowest: float,
    brightness: tuple[float, float],
    contrast: tuple[float, float],
) -> Array:
    """Returns clamped fields around a random colour, from grey to saturated."""
    saturation = draws.uniform(0, 1)
    images = field(draws, shape, lowest, _MAX_FREQUENCY, channel_correlation=1 - saturation)
    images *= draws.uniform(*contrast)
    images += _mean_colours(draws, shape[0], *brightness, saturation)
    return images.clip(0, 1, out=images)


def _mean_colours(draws: Draws, channels: int, low: float, high: float, saturation: Array) -> Array:
    """Returns [images, C, 1, 1] in [low, high): grey at saturation 0, independent channels at 1."""
    grey = draws.uniform(low, high)
    if channels == 1:
        return grey
    independent = draws.uniform(low, high, (channels, 1, 1))
    return grey + saturation * (independent - grey)


def _envelope(draws: Draws, block: tuple[int, int], lowest: float, highest: float) -> Array:
    """Returns [images, 1, *block], the weight of each frequency. The mean has weight 0."""
    cut_off = draws.log_uniform(lowest, highest)
    stretch = draws.log_uniform(math.exp(-_MAX_LOG_STRETCH), math.exp(_MAX_LOG_STRETCH))
    decay = draws.uniform(0, 1.5)
    vertical, horizontal = (np.arange(size, dtype=np.float32) for size in block)
    radius = np.square(vertical[:, None] * stretch) + np.square(horizontal / stretch)
    np.sqrt(radius, out=radius)
    kept = radius <= cut_off
    kept[..., 0, 0] = False
    radius += 1
    weight = np.log(radius, out=radius)
    weight *= -decay
    np.exp(weight, out=weight)
    weight *= kept
    return weight


def _inverse_dct(steps: Array, height: int, width: int) -> Array:
    """Returns [n, C, height, width], the inverse cosine transform.

    `steps`, [n, C, h, w], are coefficients divided by `_COEFFICIENT_STEP`, all integers. A field
    whose squared coefficients sum to 1 has standard deviation 1.
    """
    images, channels, rows, columns = steps.shape
    exact = np.swapaxes(steps, 2, 3).astype(np.float64, order="C")
    partial = exact.reshape(-1, rows) @ _cosines(rows, height)
    partial = partial.reshape(images, channels, columns, height).swapaxes(2, 3)
    full = partial.reshape(-1, columns) @ (_cosines(columns, width) * _COEFFICIENT_STEP)
    return full.reshape(images, channels, height, width).astype(np.float32)


@cache
def _cosines(count: int, size: int) -> np.ndarray:
    """Returns [count, size], the lowest cosines; before rounding, each has mean square 1."""
    cosines = dct_basis(count, size).double().numpy() * math.sqrt(size)
    return np.rint(cosines / _BASIS_STEP) * _BASIS_STEP
