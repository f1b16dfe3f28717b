"""The networks of the paper (section 4.1), and any other by `package.module:factory`."""

import inspect
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.validation import check_count, check_image_shape, import_named

SMALL_IMAGE = 64


def build_model(name: str, image_shape: tuple[int, ...], classes: int) -> nn.Module:
    """A fresh module from images [N, *image_shape] to scores [N, classes].

    name: one of `model_names()`, or `package.module:factory`, called as `factory(image_shape,
    classes)`. Raises ValueError for an unknown name or images the network cannot take. Weights
    follow torch's global seed.
    """
    shape = check_image_shape(image_shape)
    check_count(classes, "classes", least=2)
    if ":" in name:
        factory = import_named(name, "model")
        try:
            inspect.signature(factory).bind(shape, classes)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"model: expected {name!r} to be a factory(image_shape, classes) of a "
                f"torch.nn.Module, as {name.partition(':')[2]}({shape}, {classes}); got "
                f"{type(factory).__name__} that cannot be called so ({error})"
            ) from error
        module = factory(shape, classes)
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"model: {name!r} returned {type(module).__name__}, expected a torch.nn.Module"
            )
        return module
    if name not in _FACTORIES:
        raise ValueError(
            f"model: expected one of {', '.join(model_names())} or package.module:factory, got "
            f"{name!r}"
        )
    if name != "linear" and len(shape) != 3:
        raise ValueError(f"model: {name} takes images (channels, height, width), got {shape}")
    return _FACTORIES[name](shape, classes)


def check_model(name: str, image_shape: tuple[int, ...], classes: int) -> None:
    """Raises as `build_model` does, and leaves torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        build_model(name, image_shape, classes)


def model_names() -> tuple[str, ...]:
    """The names `build_model` knows."""
    return tuple(_FACTORIES)


class LeNet5(nn.Module):
    """LeNet-5: two 5x5 convolutions, each pooled by 2, and one hidden layer.

    The convolutions are unpadded, as published. Images smaller than 16 pixels, which would vanish,
    are convolved with a padding of 2 instead (8x8 digits keep a 2x2 map); the least size is 4.
    """

    def __init__(
        self, image_shape: tuple[int, ...], classes: int, *, filters: tuple[int, int], hidden: int
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        padding = 2 if min(height, width) < 16 else 0
        rows, columns = (
            ((side - 4 + 2 * padding) // 2 - 4 + 2 * padding) // 2 for side in (height, width)
        )
        _require(min(height, width) >= 4, "LeNet-5", 4, image_shape)
        self.features = nn.Sequential(
            nn.Conv2d(channels, filters[0], 5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(filters[0], filters[1], 5, padding=padding),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(filters[1] * rows * columns, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))


class AlexNet(nn.Module):
    """AlexNet for 32x32 images: five batch-normalised convolutions, two hidden layers with dropout.

    Widths are 64-192-384-256-256 and 4096-4096, divided by `divisor`; pooled after the first,
    second and fifth convolution. Other sizes of at least 8 pixels are averaged to the 4x4 map that
    32x32 images have.
    """

    def __init__(self, image_shape: tuple[int, ...], classes: int, *, divisor: int) -> None:
        super().__init__()
        channels, *sides = image_shape
        _require(min(sides) >= 8, "AlexNet", 8, image_shape)
        layers: list[nn.Module] = []
        for width, kernel, pooled in (
            (64, 5, 1),
            (192, 5, 1),
            (384, 3, 0),
            (256, 3, 0),
            (256, 3, 1),
        ):
            filters = width // divisor
            convolution = nn.Conv2d(channels, filters, kernel, padding=kernel // 2, bias=False)
            layers += [convolution, nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] * pooled
            channels = filters
        hidden = 4096 // divisor
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4))
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(16 * channels, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))


class ResNet(nn.Module):
    """ResNet of basic blocks (He et al. 2016).

    Images of more than 64 pixels get the published stem, a 7x7 convolution of stride 2 and a
    pooling; smaller ones a 3x3 convolution of stride 1, as is usual for CIFAR. `small_images`
    decides it by hand.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        classes: int,
        *,
        blocks: tuple[int, int, int, int],
        small_images: bool | None = None,
    ) -> None:
        super().__init__()
        channels, *sides = image_shape
        if small_images is None:
            small_images = max(sides) <= SMALL_IMAGE
        kernel, stride = (3, 1) if small_images else (7, 2)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 64, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.Identity() if small_images else nn.MaxPool2d(3, 2, 1),
        )
        layers, width = [], 64
        for stage, count in enumerate(blocks):
            for block in range(count):
                layers.append(BasicBlock(width, 64 << stage, 2 if stage and not block else 1))
                width = 64 << stage
        self.blocks = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.stem(images)).mean((2, 3)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride, 1, bias=False),
            nn.BatchNorm2d(filters),
            nn.ReLU(inplace=True),
            nn.Conv2d(filters, filters, 3, 1, 1, bias=False),
            nn.BatchNorm2d(filters),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.residual(images) + self.shortcut(images))


def _linear(image_shape: tuple[int, ...], classes: int) -> nn.Module:
    size = 1
    for side in image_shape:
        size *= side
    return nn.Sequential(nn.Flatten(), nn.Linear(size, classes))


def _require(fits: bool, network: str, least: int, image_shape: tuple[int, ...]) -> None:
    if not fits:
        raise ValueError(
            f"image_shape: {network} needs at least {least}x{least} pixels, got {image_shape}"
        )


_FACTORIES: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "lenet5": partial(LeNet5, filters=(20, 50), hidden=200),
    "lenet5-half": partial(LeNet5, filters=(10, 25), hidden=100),
    "lenet5-fifth": partial(LeNet5, filters=(4, 10), hidden=40),
    "alexnet": partial(AlexNet, divisor=1),
    "alexnet-half": partial(AlexNet, divisor=2),
    "alexnet-quarter": partial(AlexNet, divisor=4),
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "linear": _linear,
}
