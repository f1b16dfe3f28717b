"""A generator of images, and the losses by which a student trains it. It costs no query."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT = 100
WIDTH = 32
"""Half of the usual 64 channels of such generators, for two CPU cores."""


@dataclass(frozen=True)
class GeneratorSettings:
    """How a generator is trained.

    Attributes:
        steps: Steps of Adam.
        rate: The learning rate of the generator.
        noise_rate: The learning rate of its noise; 0 keeps the noise.
        balance: The weight of `imbalance`.
        smoothing: Label smoothing of the classes, in [0, 1).
    """

    steps: int
    rate: float
    noise_rate: float
    balance: float
    smoothing: float


class Generator(nn.Module):
    """Makes images from noise by two transposed convolutions (DCGAN, Radford et al. 2016).

    Args:
        shape: Channels, height and width; both sides are multiples of 4.
        width: Channels between the convolutions.

    Raises:
        ValueError: If a side is not a multiple of 4.
    """

    def __init__(self, shape: tuple[int, int, int], width: int = WIDTH) -> None:
        super().__init__()
        channels, height, across = shape
        if height % 4 or across % 4:
            raise ValueError(f"shape: expected sides that are multiples of 4, got {shape}")
        self._start = (2 * width, height // 4, across // 4)
        self.linear = nn.Linear(LATENT, 2 * width * (height // 4) * (across // 4))
        self.layers = nn.Sequential(
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )

    def forward(self, noise: Tensor) -> Tensor:
        """Makes images.

        Args:
            noise: [n, LATENT] float32.

        Returns:
            [n, *shape] float32 in [0, 1].
        """
        return self.layers(self.linear(noise).view(-1, *self._start)).sigmoid()


def imbalance(logits: Tensor) -> Tensor:
    """The negative entropy of the mean probabilities of a batch; least if classes are balanced."""
    return -torch.special.entr(F.softmax(logits, 1).mean(0)).sum()


def generate(
    student: nn.Module,
    shape: tuple[int, int, int],
    classes: int,
    count: int,
    settings: GeneratorSettings,
    generator: torch.Generator,
) -> Tensor:
    """Trains a fresh generator so that the student is sure of its images, and of all classes.

    The student's weights do not change. The images are those of the step with the least loss.

    Args:
        student: From images to logits, in eval mode.
        shape: The shape of an image.
        classes: The number of classes.
        count: The number of images.
        settings: How the generator is trained.
        generator: Draws noise and classes, and seeds the weights.

    Returns:
        [count, *shape] float32 in [0, 1].
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        made = Generator(shape)
    noise = torch.randn(count, LATENT, generator=generator).requires_grad_(True)
    wanted = torch.randint(classes, (count,), generator=generator)
    optimizer = torch.optim.Adam(
        [
            {"params": made.parameters(), "lr": settings.rate},
            {"params": [noise], "lr": settings.noise_rate},
        ]
    )
    best, least = torch.empty(0), torch.inf
    for _ in range(settings.steps):
        images = made(noise)
        logits = student(images)
        fit = F.cross_entropy(logits, wanted, label_smoothing=settings.smoothing)
        loss = fit + settings.balance * imbalance(logits)
        if loss.item() < least:
            best, least = images.detach(), loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return best


def high_entropy_images(student: nn.Module, images: Tensor, *, steps: int, step: float) -> Tensor:
    """Moves images to where the student is least sure: ascent of the entropy by signs.

    Args:
        student: From images to logits, in eval mode.
        images: [n, *shape] float32 in [0, 1].
        steps: Steps of the ascent.
        step: How far a pixel moves in a step, input units.

    Returns:
        [n, *shape] float32 in [0, 1].
    """
    moved = images.clone()
    for _ in range(steps):
        moved.requires_grad_(True)
        entropy = torch.special.entr(F.softmax(student(moved), 1)).sum()
        (gradient,) = torch.autograd.grad(entropy, moved)
        moved = (moved.detach() + step * gradient.sign()).clamp(0, 1)
    return moved
