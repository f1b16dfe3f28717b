"""Images of a data set as PNG, in a size that a page shows."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_SMALLEST, _LARGEST = 112, 224
"""The longer side of an image on a page, in pixels, at least and at most."""


def image_png(image: Tensor) -> bytes:
    """Returns an image as PNG with a longer side of about 112 to 224 pixels.

    The image is [channels, height, width] in [0, 1]; see `as_grey_or_colour`. Small images are
    enlarged by a whole number, so that their pixels stay visible.
    """
    from PIL import Image

    shown = as_grey_or_colour(image.detach().cpu().double().numpy())
    pixels = (shown * 255).round().clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    longest = max(picture.size)
    if longest < _SMALLEST:
        factor = -(-_SMALLEST // longest)
        size = (factor * picture.width, factor * picture.height)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    picture.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def as_grey_or_colour(image: NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns an image [channels, height, width] as it can be shown, with 1 or 3 channels.

    One channel is grey and three are colours. Other numbers of channels have no common meaning, so
    such an image is shown in grey, as the mean of its channels.
    """
    return image if len(image) in (1, 3) else image.mean(0, keepdims=True)


def channels_note(channels: int) -> str:
    """Returns a sentence that says how images are shown if that is not obvious; otherwise ""."""
    if channels in (1, 3):
        return ""
    return f"Images have {channels} channels and are shown in grey, as the mean of these."


def data_url(png: bytes) -> str:
    """Returns a PNG file as a URL that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
