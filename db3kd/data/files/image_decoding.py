"""Pillow images as tensors: which modes are read, and how their values are scaled."""

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.images import number_text
from db3kd.data.files.extras import import_data_package
from db3kd.errors import ArgumentError, InputError

_GREY = ("1", "L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
_FLOAT = ("F",)

_MOST_PIXELS = 178_956_970
"""The pixels of the largest image that Pillow decodes by default."""

ImageSize = int | tuple[int, int]
"""Height and width of images, or one number for both."""


@dataclass(frozen=True)
class DecodeOptions:
    """How encoded images are converted to a common shape.

    Attributes:
        size: Height and width, or one number for both: an image is resized, without distortion, so
            that it just covers this size, and its centre is cropped. None to keep the size of the
            images.
        channels: 1 for grey or 3 for colour; None for those of the first image.

    Raises:
        ValueError: If `size` is neither one or two positive integers nor None, or is larger than
            Pillow's images, or if `channels` is neither 1, 3 nor None.
    """

    size: ImageSize | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        # Manifests record the options as JSON, which takes plain numbers only.
        if self.size is not None:
            object.__setattr__(self, "size", _plain_size(self.size))
        if self.channels not in (None, 1, 3) or isinstance(self.channels, bool):
            raise ArgumentError("channels", f"expected 1 or 3, got {self.channels!r}")
        if self.channels is not None:
            object.__setattr__(self, "channels", int(self.channels))

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width; None to keep those of the images."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


def _plain_size(size: Any) -> ImageSize:
    """Returns a size as plain integers; raises ValueError if it is none."""
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(
        isinstance(side, Integral) and not isinstance(side, bool) and int(side) > 0
        for side in sides
    ):
        raise ArgumentError(
            "size",
            f"expected pixels such as 28, or (height, width) such as (24, 32), got {size!r:.80}",
        )
    height, width = map(int, sides)
    if height * width > _MOST_PIXELS:
        raise ArgumentError(
            "size",
            f"expected at most {_MOST_PIXELS:,} pixels, got {height:,} x {width:,}",
        )
    return (height, width) if isinstance(size, Sequence) else height


def decode_image(content: bytes, where: str) -> Any:
    """Decodes an image file.

    Args:
        content: The encoded image.
        where: What error messages call the image.

    Returns:
        A Pillow image, in a mode that `ImageConverter` takes.

    Raises:
        ValueError: If Pillow cannot decode the image, or if its mode is not supported.
    """
    pillow = import_data_package("PIL.Image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of defects in files it can still read.
            image = pillow.open(io.BytesIO(content))
            image.load()
    except ImportError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for a broken file.
        why = re.sub(r" <_io\.BytesIO object at \w+>", " the content of the file", str(error))
        raise InputError(
            f"{where}: expected an image, which Pillow could not decode: {why}"
        ) from error
    check_mode(image, where)
    return image


def check_mode(image: Any, where: str) -> None:
    """Raises ValueError unless `ImageConverter` takes Pillow images of this mode."""
    if image.mode not in (*_GREY, *_COLOUR, *_GREY_16, *_FLOAT) and not _has_16_bits(image):
        raise InputError(
            f"{where}: expected an image of 8 or 16 bits or of floats in [0, 1], got the mode "
            f"{image.mode} ({image.format}); convert it"
        )


class ImageConverter:
    """Converts Pillow images to tensors of the shape of the first one.

    Values of 8 bits are divided by 255, grey values of 16 bits by 65535; floats must lie in [0, 1].
    Pillow reads colours of 16 bits with 8. Transparency is dropped, and an orientation in EXIF data
    is ignored, as by torchvision's `ImageFolder`.

    Args:
        first: The first image.
        options: Size and channels, if they are not those of the first image.

    Attributes:
        image_shape: (channels, height, width) of the tensors.
    """

    def __init__(self, first: Any, options: DecodeOptions) -> None:
        self._sides, self._converts = options.sides, options.channels is not None
        self._channels = options.channels or (1 if _is_grey(first) else 3)
        height, width = self._sides or (first.height, first.width)
        self.image_shape: tuple[int, ...] = (self._channels, height, width)

    def to_tensor(self, image: Any, where: str) -> Tensor:
        """Converts an image to [*image_shape] float32 in [0, 1].

        Raises:
            ValueError: See `to_pixels`.
        """
        return as_unit(self.to_pixels(image, where)).expand(self.image_shape)

    def to_pixels(self, image: Any, where: str) -> Tensor:
        """Converts an image to the values that are scaled by `as_unit`.

        Returns:
            [C, height, width] uint8, or float32 of images with more than 8 bits; C may be 1 for an
            image_shape with 3 channels.

        Raises:
            ValueError: If the image is coloured or of another size, unlike the first, or if floats
                lie outside [0, 1]; the message calls the image `where`.
        """
        if self._channels == 1 and not _is_grey(image) and not self._converts:
            raise InputError(
                f"{where} is coloured ({image.mode}) and the first is grey; "
                "pass channels=1 or channels=3"
            )
        if image.mode in _FLOAT or _has_16_bits(image):
            image = _to_fractions(image, where)
        else:
            image = _to_8_bits(image, "L" if self._channels == 1 else "RGB")
        if self._sides:
            image = _resize_and_crop(image, *self._sides)
        if (image.height, image.width) != self.image_shape[1:]:
            raise InputError(
                f"{where} is {image.height}x{image.width} and the first is "
                f"{self.image_shape[1]}x{self.image_shape[2]}; pass size="
            )
        values = torch.from_numpy(np.array(image))
        return values.reshape(image.height, image.width, -1).permute(2, 0, 1)


def as_unit(pixels: Tensor) -> Tensor:
    """Converts uint8 pixels to float32 in [0, 1], and clamps floats to it."""
    if pixels.dtype == torch.uint8:
        pixels = pixels.float() / 255
    return pixels.clamp(0, 1)


def _to_fractions(image: Any, where: str) -> Any:
    """Converts a grey image of 16 bits or of floats to floats in [0, 1]."""
    pillow = import_data_package("PIL.Image")
    values = np.array(image).astype(np.float32)
    if _has_16_bits(image):
        values = values / np.float32(65535)
    if not (values.min() >= 0 and values.max() <= 1):  # NaN fails too.
        raise InputError(
            f"{where}: expected floats in [0, 1], got values from "
            f"{number_text(values.min())} to {number_text(values.max())}; divide by "
            "the largest value that a pixel can have"
        )
    return pillow.fromarray(values)


def _has_16_bits(image: Any) -> bool:
    """Returns whether an image is grey with 16 bits; Pillow opens 16-bit PGM and PNG as 32-bit."""
    return image.mode in _GREY_16 or (image.mode == "I" and image.format in ("PPM", "PNG"))


def _is_grey(image: Any) -> bool:
    return image.mode in _GREY or image.mode in _FLOAT or _has_16_bits(image)


def _to_8_bits(image: Any, mode: str) -> Any:
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")  # Otherwise Pillow warns that it drops the transparency.
    return image.convert(mode)


def _resize_and_crop(image: Any, height: int, width: int) -> Any:
    """Resizes an image so that it just covers this height and width, and crops its centre."""
    scale = max(height / image.height, width / image.width)
    resized_width = max(width, round(image.width * scale))
    resized_height = max(height, round(image.height * scale))
    left, top = (resized_width - width) // 2, (resized_height - height) // 2
    resized = image.resize((resized_width, resized_height))
    return resized.crop((left, top, left + width, top + height))
