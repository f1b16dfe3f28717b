"""Trains a surrogate further on the answers to the search that it guides.

These answers lie where the search needs the surrogate: near the teacher's boundary, between the
classes of the pairs. They cost nothing, because the search has paid for them.
"""

import copy
import hashlib
import math
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.boundary.single_thread import one_thread
from db3kd.querying.search import Search

_MAX_VALUES = 2**24
"""Maximum number of values in the images of the answers that are kept."""

_MAX_IMAGE_VALUES = 2**12
"""Networks of images with more values than this take too long to train during a search."""

_MIN_ANSWERS = 1000
"""A network is not trained on fewer answers."""

_STEPS, _BATCH, _LEARNING_RATE = 100, 128, 5e-4
"""A short training: the network has to keep what it knows about other images."""

Result = TypeVar("Result")


class AnswerSample:
    """Images that a search asked about and their classes; a sample of evenly spaced ones if many.

    What is kept does not depend on the sizes of the batches.

    Args:
        image_values: The number of values of an image.
    """

    def __init__(self, image_values: int) -> None:
        self._most = max(_MIN_ANSWERS, _MAX_VALUES // image_values)
        self._stride, self._seen = 1, 0
        self._numbers = torch.empty(0, dtype=torch.int64)
        self._images: list[Tensor] = []
        self._classes = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def images(self) -> Tensor:
        """The images, `[n, D] float32`."""
        return torch.cat(self._images)

    @property
    def classes(self) -> Tensor:
        """The teacher's class of each image, `[n] int64`."""
        return self._classes

    def watch(self, search: Search[Result]) -> Search[Result]:
        """Runs a search unchanged, and keeps its answers."""
        decisions = None
        while True:
            try:
                query = next(search) if decisions is None else search.send(decisions)
            except StopIteration as finished:
                result: Result = finished.value
                return result
            decisions = yield query
            self._add(query.images.flatten(1), decisions)

    def _add(self, images: Tensor, classes: Tensor) -> None:
        numbers = torch.arange(self._seen, self._seen + len(images))
        self._seen += len(images)
        chosen = (classes >= 0) & (numbers % self._stride == 0)
        self._numbers = torch.cat([self._numbers, numbers[chosen]])
        self._classes = torch.cat([self._classes, classes[chosen]])
        self._images.append(images[chosen])
        while len(self._numbers) > self._most:
            self._stride *= 2
            kept = self._numbers % self._stride == 0
            self._numbers, self._classes = self._numbers[kept], self._classes[kept]
            self._images = [self.images[kept]]


def refit(
    network: nn.Module, answers: AnswerSample, image_shape: tuple[int, ...], seed: int
) -> bool:
    """Trains a network on answers, in place, for a fixed number of steps.

    It trains on one thread, so that the number of threads does not change the weights. Dropout and
    the updates of batch norms stay off.

    Args:
        network: A network in eval mode.
        answers: The answers.
        image_shape: The shape of an image.
        seed: The seed of the batches.

    Returns:
        Whether the network was trained. It was not if there are too few answers, if the images are
        too large, if the network is not in float32 on the CPU, or if training diverges. The weights
        are then as before.
    """
    weights = list(network.parameters())
    if not _can_refit(weights, answers, image_shape):
        return False
    before = copy.deepcopy(network.state_dict())
    images = answers.images.view(-1, *image_shape)
    _train(network, images, answers.classes, seed)
    if all(bool(weight.isfinite().all()) for weight in weights):
        return True
    network.load_state_dict(before)
    return False


def training_digest() -> str:
    """Returns a digest of a short training, which tells processors apart that round differently.

    A search with refits asks about other images on another kind of processor. Answers to the first
    part of such a search must not be continued there.
    """
    return _training_digest()


@cache
def _training_digest() -> str:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        network = nn.Sequential(
            nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
        )
        for weights in network.parameters():
            weights.data = torch.randn(weights.shape, generator=generator) / 5
        images = torch.rand(_MIN_ANSWERS, 1, 12, 12, generator=generator)
        classes = torch.randint(10, (_MIN_ANSWERS,), generator=generator)
    _train(network, images, classes, seed=0)
    content = hashlib.sha256()
    for weights in network.parameters():
        content.update(weights.numpy().tobytes())
    return content.hexdigest()[:16]


def _train(network: nn.Module, images: Tensor, classes: Tensor, seed: int) -> None:
    """Trains a network in place; its weights need no gradient before and afterwards."""
    generator = torch.Generator().manual_seed(seed)
    # The caller may be in inference mode, in which no tensor has a gradient.
    with one_thread(), torch.inference_mode(False), torch.enable_grad():
        network.requires_grad_(True)
        optimizer = torch.optim.Adam(network.parameters(), _LEARNING_RATE)
        images, classes = images.clone(), classes.clone()
        for number in range(_STEPS):
            optimizer.param_groups[0]["lr"] = _LEARNING_RATE * (1 - number / _STEPS)
            rows = torch.randint(len(images), (_BATCH,), generator=generator)
            loss = F.cross_entropy(network(images[rows]), classes[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.requires_grad_(False)


def _can_refit(
    weights: Sequence[Tensor], answers: AnswerSample, image_shape: tuple[int, ...]
) -> bool:
    return (
        len(answers) >= _MIN_ANSWERS
        and math.prod(image_shape) <= _MAX_IMAGE_VALUES
        and bool(weights)
        and all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)
    )
