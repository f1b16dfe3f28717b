"""Images as 8-bit PNG files in base64, a text that JSON can hold."""

import base64
import dataclasses
from collections.abc import Sequence
from io import BytesIO

import numpy as np

from db3kd.errors import ArgumentError
from db3kd.extras import import_extra
from db3kd.teachers.preprocessing import Preprocessing

_PIXELS = (0.0, 255.0)


def png_steps(steps: Preprocessing, image_shape: Sequence[int]) -> Preprocessing:
    """Returns the steps from db3kd's images to the pixels [H, W, C] uint8 of PNG files.

    The bounds of the images become the pixels 0 and 255, and values between are rounded to the
    nearest pixel.

    Args:
        steps: The steps of the user, which may change the size and the order of the channels.
        image_shape: Shape of one image.

    Raises:
        ModuleNotFoundError: If Pillow is not installed.
        ValueError: If a PNG file cannot hold such images, or what other steps result in.
    """
    import_extra("PIL.Image", "data", "a PNG file")
    if len(image_shape) != 3 or image_shape[0] not in (1, 3):
        raise ArgumentError(
            "image_shape",
            "expected (1, height, width) or (3, height, width) for PNG files, got "
            f"{tuple(image_shape)}",
        )
    allowed = {
        "scale": (None, _PIXELS),
        "mean": ((0.0,),),
        "std": ((1.0,),),
        "layout": ("NCHW", "NHWC"),
        "dtype": (None, "uint8"),
    }
    for name, values in allowed.items():
        if (value := getattr(steps, name)) not in values:
            raise ArgumentError(
                name,
                f"expected no value for PNG files, whose pixels 0 and 255 are the bounds "
                f"of the images, got {value!r}; remove {name} from [preprocessing]",
            )
    return dataclasses.replace(steps, scale=_PIXELS, layout="NHWC", dtype="uint8")


def as_png_texts(pixels: np.ndarray) -> list[str]:
    """Returns each image as a PNG file in base64.

    Example:
        >>> as_png_texts(np.zeros((1, 8, 8, 3), np.uint8))[0][:12]
        'iVBORw0KGgoA'

    Args:
        pixels: [N, H, W, C] uint8, with one channel (grey) or three (RGB).
    """
    pillow = import_extra("PIL.Image", "data", "a PNG file")
    texts = []
    for image in pixels:
        file = BytesIO()
        pillow.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
        texts.append(base64.b64encode(file.getvalue()).decode("ascii"))
    return texts
