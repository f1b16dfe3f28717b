"""The preprocessing between db3kd's images and the input of a model in a file or on a server."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from db3kd.arguments.images import check_bounds, interval_text, number_text
from db3kd.arguments.plain import check_choice, check_count, suggests_arguments
from db3kd.errors import ArgumentError

Layout = Literal["NCHW", "NHWC", "flat"]
ChannelOrder = Literal["RGB", "BGR"]
DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64")


@suggests_arguments
@dataclass(frozen=True)
class Preprocessing:
    """The steps that convert images [N, C, H, W] inside `bounds` to a model's input.

    The steps are applied in this order: channel order, resize, scale, mean, std, layout, dtype.
    Each image is processed by itself.

    Example:
        >>> steps = Preprocessing(scale=(0, 255), layout="NHWC")
        >>> steps(torch.rand(2, 3, 8, 8)).shape
        (2, 8, 8, 3)

    Attributes:
        bounds: Lowest and highest pixel value of the images. Distances are measured in these units.
        resize: (height, width) of the model's input, bilinear and antialiased. None: no resizing.
        scale: The values that `bounds` are mapped to, such as (0, 255). None: no scaling.
        mean: Subtracted; one number, or one per channel in the model's order.
        std: Divisor; one number, or one per channel in the model's order.
        layout: "NCHW", "NHWC", or "flat" [N, C * H * W].
        dtype: The model's dtype. None: the dtype that the model declares, or float32. Values are
            rounded to integer dtypes, which need a `scale` if the bounds are close, and the model
            cannot distinguish images that round alike.
        channel_order: "RGB", or "BGR" for a model that takes the channels in reverse order.

    Raises:
        ValueError: If any of the values is invalid.
    """

    bounds: tuple[float, float] = (0.0, 1.0)
    resize: tuple[int, int] | None = None
    scale: tuple[float, float] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "NCHW"
    dtype: str | None = None
    channel_order: ChannelOrder = "RGB"

    def __post_init__(self) -> None:
        assign = object.__setattr__  # the dataclass is frozen
        assign(self, "bounds", check_bounds(self.bounds))
        if self.scale is not None:
            assign(self, "scale", check_bounds(self.scale, "scale"))
        if self.resize is not None:
            assign(self, "resize", _two_sizes(self.resize))
        assign(self, "mean", _numbers(self.mean, "mean"))
        assign(self, "std", _numbers(self.std, "std"))
        if not all(value > 0 for value in self.std):
            raise ArgumentError("std", f"expected positive numbers, got {self.std!r}")
        check_choice(self.layout, "layout", get_args(Layout))
        check_choice(self.channel_order, "channel_order", get_args(ChannelOrder))
        if self.dtype is not None:
            check_choice(self.dtype, "dtype", DTYPES)
            self._check_rounding(self.dtype)

    def _check_rounding(self, dtype: str) -> None:
        """Refuses to round values to a few integers, unless `scale` says that this is meant."""
        lower, upper = self.bounds
        if self.scale is None and "int" in dtype and (upper - lower) / min(self.std) <= 2:
            raise ArgumentError(
                "dtype",
                f"expected a scale for a model that takes {dtype}, because rounding values in "
                f"{interval_text(self.bounds)} loses the image; set scale, for example to (0, 255)"
                ", or to the bounds if the model takes these few integers",
            )

    def __call__(self, images: Tensor) -> np.ndarray:
        """Returns the model's input, an array [N, *input_shape(image_shape)].

        Args:
            images: [N, *image_shape] inside `bounds`, on any device.
        """
        images = self.steps(images.detach().to("cpu", torch.float32))
        return self._typed(images.contiguous().numpy())

    def steps(self, images: Tensor, mean_and_std: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Applies all steps except the dtype, on the device of the images.

        Autograd can differentiate them, so they can precede a torch module.

        Args:
            images: [N, *image_shape] floats inside `bounds`.
            mean_and_std: The tensors of `mean_and_std`, on the device of the images. By default
                they are copied to it, which waits for a GPU.
        """
        if self.channel_order == "BGR":
            images = images.flip(1)
        if self.resize is not None:
            images = interpolate(
                images, self.resize, mode="bilinear", antialias=True, align_corners=False
            )
        if self.scale is not None:
            lower, upper = self.bounds
            low, high = self.scale
            images = low + (images - lower) * ((high - low) / (upper - lower))
        if any(self.mean) or any(value != 1 for value in self.std):
            per_channel = (-1, *(1 for _ in images.shape[2:]))
            mean, std = (
                values.to(images.device).view(per_channel)
                for values in mean_and_std or self.mean_and_std()
            )
            images = (images - mean) / std
        if self.layout == "NHWC":
            images = images.movedim(1, -1)
        elif self.layout == "flat":
            images = images.flatten(1)
        return images

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Returns `mean` and `std` as tensors on the CPU."""
        return torch.tensor(self.mean, dtype=torch.float32), torch.tensor(
            self.std, dtype=torch.float32
        )

    def input_shape(self, image_shape: Sequence[int]) -> tuple[int, ...]:
        """Returns the shape of one image as the model receives it.

        Raises:
            ValueError: If the steps cannot be applied to images of this shape.
        """
        shape = tuple(image_shape)
        if self.channel_order == "BGR" and (len(shape) != 3 or shape[0] != 3):
            raise ArgumentError(
                "channel_order", f"BGR needs images (3, height, width), got {shape}"
            )
        if self.resize is not None or self.layout == "NHWC":
            if len(shape) != 3:
                raise ArgumentError(
                    "preprocessing",
                    f"resize and NHWC need images (channels, height, width), got {shape}",
                )
            shape = (shape[0], *(self.resize or shape[1:]))
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, shape[0]):
                numbers = "1 number" if shape[0] == 1 else f"1 or {shape[0]} numbers"
                raise ArgumentError(
                    name, f"expected {numbers} for images {shape}, got {len(getattr(self, name))}"
                )
        if self.layout == "NHWC":
            return (*shape[1:], shape[0])
        return (int(np.prod(shape)),) if self.layout == "flat" else shape

    def image_shape(self, input_shape: Sequence[int]) -> tuple[int, ...] | None:
        """Returns the shape of one image before all steps, or None if it is ambiguous.

        Args:
            input_shape: The shape of one image that the model declares, -1 for any size.
        """
        shape = tuple(input_shape)
        if self.resize is not None or self.layout == "flat" or not shape or min(shape) < 1:
            return None
        return (shape[-1], *shape[:-1]) if self.layout == "NHWC" else shape

    def describe_input(self, image_shape: Sequence[int]) -> str:
        """Returns shape, layout and range of one image as the model receives it.

        Example:
            >>> Preprocessing(scale=(0, 255), layout="NHWC").describe_input((3, 32, 32))
            'shape (32, 32, 3), layout NHWC, values in [0, 255]'
        """
        values = f"values in {interval_text(self.scale or self.bounds)}"
        if any(self.mean) or any(value != 1 for value in self.std):
            values += " before mean and std"
        return f"shape {self.input_shape(image_shape)}, layout {self.layout}, {values}"

    def details(self) -> Iterator[tuple[str, str]]:
        """Yields the name and a description of each step that has an effect."""
        if self.resize is not None:
            yield "resize", f"{self.resize[0]} x {self.resize[1]}, bilinear"
        if self.scale is not None:
            yield "scale", " to ".join(map(number_text, self.scale))
        if any(self.mean):
            yield "mean", _listed(self.mean)
        if any(value != 1 for value in self.std):
            yield "std", _listed(self.std)
        if self.channel_order != "RGB":
            yield "channel order", self.channel_order
        yield "layout", self.layout
        yield "dtype", self.dtype or "float32"

    def _typed(self, array: np.ndarray) -> np.ndarray:
        dtype = np.dtype(self.dtype or "float32")
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            array = np.clip(np.rint(array), info.min, info.max)
        return array.astype(dtype, copy=False)


class PreprocessedModule(nn.Module):
    """A module with the preprocessing in front of it.

    Args:
        module: The module.
        preprocessing: The steps from images to the module's input.
    """

    def __init__(self, module: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.module = module
        self.preprocessing = preprocessing
        # They are no buffers, because the fingerprint of a module depends on its buffers.
        self._mean, self._std = preprocessing.mean_and_std()

    def forward(self, images: Tensor) -> Tensor:
        """Returns the module's scores of images [N, *image_shape]."""
        prepared = self.preprocessing.steps(images, (self._mean, self._std))
        return self.module(prepared.to(images.dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves `mean` and `std` with the module, so that no forward pass has to."""
        self._mean, self._std = fn(self._mean), fn(self._std)
        return super()._apply(fn, recurse)


def _numbers(value: Any, name: str) -> tuple[float, ...]:
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    try:
        numbers = tuple(float(number) for number in values)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not np.isfinite(numbers).all():
        raise ArgumentError(name, f"expected a number, or one per channel, got {value!r}")
    return numbers


def _two_sizes(value: Any) -> tuple[int, int]:
    if not isinstance(value, Sequence) or len(value) != 2:
        raise ArgumentError("resize", f"expected (height, width), got {value!r}")
    height, width = (check_count(size, "resize") for size in value)
    return height, width


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(map(number_text, values))
