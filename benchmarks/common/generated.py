"""Generated images and teachers, for machines without a data set and without a network.

Each class is a smooth random field. An image of the class is that field, shifted by some pixels, at
a random contrast, with smooth noise on top.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.models.networks import build_model
from db3kd.teachers import ModuleTeacher

_CELLS = 6
"""Side of the grid of random numbers that a field is interpolated from."""


def generated_images(
    shape: tuple[int, int, int], classes: int, count: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Generates images and their classes.

    The fields depend on `shape` and `classes` only, so that another seed gives more images of the
    same classes.

    Args:
        shape: Channels, height and width.
        classes: The number of classes.
        count: The number of images.
        seed: Draws the images.
        device: The device of the result.

    Returns:
        Images [count, *shape] float32 in [0, 1], and classes [count] int64.
    """
    fields = _smooth(classes, shape, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed + 1)
    labels = torch.arange(count) % classes
    reach = max(1, shape[-1] // 8)
    moves = torch.randint(-reach, reach + 1, (count, 2), generator=generator)
    contrast = 1 + torch.rand(count, generator=generator)
    images = torch.empty(count, *shape, device=device)
    for part in torch.arange(count).split(1024):
        noise = _smooth(len(part), shape, generator)
        moved = [
            fields[label].roll(move, (-2, -1))
            for label, move in zip(labels[part].tolist(), moves[part].tolist(), strict=True)
        ]
        mixed = contrast[part, None, None, None] * torch.stack(moved) + noise
        images[part.to(device)] = mixed.sigmoid().to(device)
    return images, labels.to(device)


def trained_network(
    model: str, images: Tensor, labels: Tensor, classes: int, steps: int, batch: int = 128
) -> nn.Module:
    """Trains a network of `db3kd.models` with Adam on the images' device; it is in eval mode."""
    torch.manual_seed(0)
    network = build_model(model, tuple(images.shape[1:]), classes).to(images.device)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=generator).to(images.device)
        optimiser.zero_grad()
        F.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimiser.step()
    return network.eval()


def random_teacher(model: str, images: Tensor, classes: int) -> ModuleTeacher:
    """A network of `db3kd.models` with random weights, on the CPU.

    Its scores are centred over the images, so that no class gets all of them.
    """
    shape: tuple[int, ...] = tuple(images.shape[1:])
    torch.manual_seed(0)
    network = build_model(model, shape, classes)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.inference_mode():
        last.bias.sub_(network(images).mean(0))
    return ModuleTeacher(network, shape, classes)


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images that the network classifies correctly."""
    right = sum(
        int((network(part).argmax(1) == truth).sum())
        for part, truth in zip(images.split(256), labels.split(256), strict=True)
    )
    return right / len(images)


def smooth_noise(
    count: int, shape: tuple[int, int, int], cells: int, generator: torch.Generator
) -> Tensor:
    """Normal noise on a grid of `cells` a side, interpolated to [count, *shape]."""
    channels, height, width = shape
    grid = torch.randn(count, channels, cells, cells, generator=generator)
    return F.interpolate(grid, (height, width), mode="bicubic", align_corners=True)


def _smooth(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Smooth random fields of standard deviation about 1, [count, *shape]."""
    return 1.5 * smooth_noise(count, shape, _CELLS, generator)
