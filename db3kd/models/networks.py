"""The networks of DB3KD (section 4.1), and any other by `package.module:factory`."""

import math
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.arguments.images import check_image_shape
from db3kd.arguments.plain import check_count
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.models.checks import check_rebuilt, check_scores
from db3kd.models.ensemble import MAX_NETWORKS, Ensemble
from db3kd.models.factories import NetworkFactory, make_network
from db3kd.models.random_state import kept_random_state
from db3kd.named_import import import_named
from db3kd.wording import did_you_mean

SMALL_IMAGE = 64
"""Up to this side, in pixels, a `ResNet` has the stem for small images."""


def build_model(
    name: str | NetworkFactory, image_shape: tuple[int, ...], classes: int
) -> nn.Module:
    """Builds a network with fresh weights, drawn from torch's global random state.

    Example:
        >>> network = db3kd.build_model("lenet5", (1, 28, 28), classes=10)
        >>> network(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
        >>> network = db3kd.build_model("my_package.nets:make", (1, 28, 28), classes=10)

    Args:
        name: One of `model_names()`, or a function or class that makes a network, itself or as
            `package.module:factory`. One that needs no argument is called without any, and every
            other one as `factory(image_shape, classes)`. "lenet5*3" is an `Ensemble` of three of
            them.
        image_shape: Shape of one image, for example `(1, 28, 28)`, or `(D,)` for rows of a table,
            which "linear" and the "mlp" networks take.
        classes: Number of classes.

    Returns:
        A network from images, [N, *image_shape], to scores, [N, classes].

    Raises:
        ValueError: If the name is unknown, or if the network cannot take such images.
        TypeError: If the factory cannot be called in this way, or if it returns something else than
            a module.
    """
    shape = check_image_shape(image_shape)
    classes = check_count(classes, "classes", least=2)
    if not isinstance(name, str):
        return make_network(name, shape, classes)
    if "*" in name:
        base, count = _base_and_count(name)
        return Ensemble([build_model(base, shape, classes) for _ in range(count)])
    if ":" in name:
        return make_network(import_named(name, "model"), shape, classes, repr(name))
    if name not in _FACTORIES:
        raise ArgumentError(
            "model",
            f"expected one of {', '.join(model_names())} or package.module:factory, got "
            f"{name!r}{did_you_mean(name, model_names())}",
        )
    if name not in _ANY_SHAPE and len(shape) != 3:
        raise ArgumentError(
            "model",
            f"{name} needs images of shape (channels, height, width), got {shape}; "
            f"{', '.join(_ANY_SHAPE)} take any shape",
        )
    return _FACTORIES[name](shape, classes)


def default_model(image_shape: tuple[int, ...], for_images: str) -> str:
    """Returns the network for inputs of a shape if the user names none.

    Args:
        image_shape: Shape of one input.
        for_images: The network for images (channels, height, width); rows of a table get "mlp".
    """
    return for_images if len(image_shape) == 3 else "mlp"


def check_model(
    name: str | NetworkFactory, image_shape: tuple[int, ...], classes: int, argument: str = "model"
) -> None:
    """Builds a network as `build_model` to check the arguments, without drawing random numbers.

    A network that is not db3kd's own is also called on random images, and rebuilt from its weights.

    Args:
        name: See `build_model`.
        image_shape: See `build_model`.
        classes: See `build_model`.
        argument: The name of the argument in errors.

    Raises:
        ValueError: See `build_model`.
        TypeError: See `build_model`.
    """
    try:
        with kept_random_state():
            network = build_model(name, image_shape, classes)
            if not isinstance(name, str) or not is_own_model(name):
                make, shape = partial(build_model, name, image_shape, classes), tuple(image_shape)
                check_scores(network.train(), shape, classes, 2)
                check_rebuilt(network, make, shape)
    except (ArgumentError, ArgumentTypeError) as error:
        if error.argument != "model":
            raise
        raise type(error)(argument, error.problem) from error


def model_names() -> tuple[str, ...]:
    """Returns the names of the networks that `build_model` knows."""
    return tuple(_FACTORIES)


def is_own_model(name: str) -> bool:
    """Returns whether `build_model` builds a name from this package's own code alone."""
    return name.partition("*")[0] in _FACTORIES


class LeNet5(nn.Module):
    """LeNet-5: two 5x5 convolutions, each followed by pooling, and one hidden layer.

    The network of the MNIST experiments in DB3KD, section 4.1. The convolutions are unpadded, as in
    LeCun et al. (1998). Images smaller than 16 pixels would vanish, so they are padded by 2 before
    each convolution: 8x8 digits keep a 2x2 map. The smallest size is 4.

    Args:
        image_shape: (channels, height, width).
        classes: Number of classes.
        filters: Number of filters of each convolution.
        hidden: Width of the hidden layer.

    Raises:
        ValueError: If the images are smaller than 4x4 pixels.
    """

    def __init__(
        self, image_shape: tuple[int, ...], classes: int, *, filters: tuple[int, int], hidden: int
    ) -> None:
        super().__init__()
        _require_side(4, "LeNet-5", image_shape)
        channels, height, width = image_shape
        padding = 2 if min(height, width) < 16 else 0
        rows, columns = (
            ((side - 4 + 2 * padding) // 2 - 4 + 2 * padding) // 2 for side in (height, width)
        )
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
        """Maps images, [N, *image_shape] float32, to scores, [N, classes]."""
        layers = self.features
        # ReLU commutes with max pooling, and after pooling it has a quarter of the values.
        maps = layers[1](layers[2](layers[0](images)))
        maps = layers[4](layers[5](layers[3](maps)))
        return self.classifier(maps.flatten(1))


class AlexNet(nn.Module):
    """AlexNet for 32x32 images: five batch-normalised convolutions, two hidden layers with dropout.

    The network of the CIFAR-10 experiments in DB3KD, section 4.1. The convolutions have
    64-192-384-256-256 filters and the hidden layers 4096 units, divided by `divisor`. Pooling
    follows the first, second and fifth convolution. 32x32 images have a 4x4 map then; the maps of
    other images are averaged to that size.

    Args:
        image_shape: (channels, height, width).
        classes: Number of classes.
        divisor: Divides all widths.

    Raises:
        ValueError: If the images are smaller than 8x8 pixels.
    """

    def __init__(self, image_shape: tuple[int, ...], classes: int, *, divisor: int) -> None:
        super().__init__()
        _require_side(8, "AlexNet", image_shape)
        channels = image_shape[0]
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
        """Maps images, [N, *image_shape] float32, to scores, [N, classes]."""
        return self.classifier(self.features(images).flatten(1))


class ResNet(nn.Module):
    """ResNet of basic blocks (He et al. 2016).

    ResNet-18 and ResNet-34 have four stages from 64 maps on. ResNet-8 has three stages of one block
    from 16 maps on, like the networks of that paper for CIFAR-10.

    Args:
        image_shape: (channels, height, width).
        classes: Number of classes.
        blocks: Number of basic blocks in each stage. Each stage after the first halves the sides of
            its maps and doubles their number.
        width: Number of maps in the first stage.
        small_images: True for a stem of one 3x3 convolution of stride 1, as is usual for CIFAR;
            False for the original stem, a 7x7 convolution of stride 2 and pooling. By default True
            for images of at most 64 pixels.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...],
        classes: int,
        *,
        blocks: tuple[int, ...],
        width: int = 64,
        small_images: bool | None = None,
    ) -> None:
        super().__init__()
        channels, *sides = image_shape
        if small_images is None:
            small_images = max(sides) <= SMALL_IMAGE
        kernel, stride = (3, 1) if small_images else (7, 2)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Identity() if small_images else nn.MaxPool2d(3, 2, 1),
        )
        layers, maps = [], width
        for stage, count in enumerate(blocks):
            for block in range(count):
                layers.append(BasicBlock(maps, width << stage, 2 if stage and not block else 1))
                maps = width << stage
        self.blocks = nn.Sequential(*layers)
        self.classifier = nn.Linear(maps, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Maps images, [N, *image_shape] float32, to scores, [N, classes]."""
        return self.classifier(self.blocks(self.stem(images)).mean((2, 3)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is projected if the shape changes.

    Args:
        channels: Number of input channels.
        filters: Number of output channels.
        stride: Stride of the first convolution.
    """

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
        """Maps features, [N, channels, H, W], to [N, filters, H / stride, W / stride]."""
        return F.relu(self.residual(images) + self.shortcut(images))


class MLP(nn.Sequential):
    """Two hidden layers of equal width with ReLU, for rows of a table.

    Images are flattened.

    Args:
        image_shape: Shape of one input.
        classes: Number of classes.
        hidden: Width of the hidden layers.
    """

    def __init__(self, image_shape: tuple[int, ...], classes: int, *, hidden: int) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(math.prod(image_shape), hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )


def _base_and_count(name: str) -> tuple[str, int]:
    """Splits the name of an ensemble."""
    base, _, count = name.partition("*")
    if not (count.isascii() and count.isdecimal() and 2 <= int(count) <= MAX_NETWORKS):
        raise ArgumentError(
            "model",
            f"expected the number of networks, 2 to {MAX_NETWORKS}, after '*', got {name!r}",
        )
    return base, int(count)


def _linear(image_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), classes))


def _require_side(side: int, network: str, image_shape: tuple[int, ...]) -> None:
    if min(image_shape[1:]) < side:
        height, width = image_shape[1:]
        raise ArgumentError(
            "model",
            f"{network} needs images of at least {side}x{side} pixels, got "
            f"{height}x{width}; choose a network for all sizes, such as mlp",
        )


_FACTORIES: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "lenet5": partial(LeNet5, filters=(20, 50), hidden=200),
    "lenet5-half": partial(LeNet5, filters=(10, 25), hidden=100),
    "lenet5-fifth": partial(LeNet5, filters=(4, 10), hidden=40),
    "alexnet": partial(AlexNet, divisor=1),
    "alexnet-half": partial(AlexNet, divisor=2),
    "alexnet-quarter": partial(AlexNet, divisor=4),
    "resnet8": partial(ResNet, blocks=(1, 1, 1), width=16),
    "resnet8-half": partial(ResNet, blocks=(1, 1, 1), width=8),
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "mlp": partial(MLP, hidden=128),
    "mlp-half": partial(MLP, hidden=64),
    "mlp-quarter": partial(MLP, hidden=32),
    "linear": _linear,
}

_ANY_SHAPE = ("mlp", "mlp-half", "mlp-quarter", "linear")
"""The networks that take inputs of any shape; the others take images."""
