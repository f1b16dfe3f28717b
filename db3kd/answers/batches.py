"""Batches of answered images, and of new mixed images that proxies answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.answers.answers import CLEAN_SHARE, NUMBERS, Answers
from db3kd.data.augmented_images import AugmentedImages
from db3kd.models.state import to_weight_dtype
from db3kd.querying.search import UNANSWERED
from db3kd.training.evaluation import batch_of_forward
from db3kd.training.process import TrainingProcess
from db3kd.training.row_batches import balanced_rows

ANSWERED_SHARE = 0.5
"""Share of answered images in the batches of a student that proxies teach; the rest are new."""

_FRESH_SEED = 1
"""Added to the seed of the augmentation, so that new images differ from the answered ones."""


@dataclass(frozen=True)
class AnsweredBatches:
    """A `BatchSource` of answered images and their decisions, and soft labels if there are any.

    A batch depends only on its step and the arguments. At least `CLEAN_SHARE` of its images are
    samples, if there are answers for both samples and augmented images.

    Attributes:
        answers: The answers to train on.
        batch_size: Images per batch.
        seed: Seed of the draws.
        balance: How much more often images of rare classes are drawn, from 0 (not) to 1 (all
            classes equally often).
        soft_labels: Returns the soft label of each image, [len(answers), C]; called only if batches
            are drawn. None for none.
    """

    answers: Answers
    batch_size: int
    seed: int
    balance: float = 0.0
    soft_labels: Callable[[], Tensor] | None = None

    def open(self, process: TrainingProcess) -> Callable[[int], tuple[Tensor, ...]]:
        """Returns a function from a step to a batch.

        A batch holds images [n, *image_shape], decisions [n] and, if there are any, soft labels
        [n, C].
        """
        draw = _Draws(self.answers, self.seed, self.balance)
        soft_labels = None if self.soft_labels is None else self.soft_labels()
        device = process.device

        def batch_of(step: int) -> tuple[Tensor, ...]:
            chosen = process.own_part(draw(step, self.batch_size))
            images = self.answers.images.read(self.answers.rows[chosen])
            batch = [images, self.answers.decisions[chosen]]
            if soft_labels is not None:
                batch.append(soft_labels[chosen])
            return tuple(values.to(device) for values in batch)

        return batch_of


class NewImages(Protocol):
    """Images that are not queried, made when they are read; see `ProxyTaughtBatches`."""

    def rows(self, step: int, count: int) -> Tensor:
        """Returns the images of a training step, [count] int64."""
        ...

    def read(self, rows: Tensor) -> Tensor:
        """Returns images, [n, *image_shape] float32 in [0, 1]."""
        ...


class NewMixtures:
    """Augmented images of the training samples of answers, other than the answered ones.

    Args:
        images: All samples and augmented images.
        seed: Seed of the draws.
    """

    def __init__(self, images: AugmentedImages, seed: int) -> None:
        self._images = images.with_seed(images.seed + _FRESH_SEED)
        self._seed = seed

    def rows(self, step: int, count: int) -> Tensor:
        """See `NewImages`."""
        random = np.random.default_rng((self._seed, step, _FRESH_SEED))
        samples = random.integers(self._images.partners, size=count)
        numbers = random.integers(1, NUMBERS, size=count)
        return torch.from_numpy(samples * NUMBERS + numbers)

    def read(self, rows: Tensor) -> Tensor:
        """See `NewImages`."""
        return self._images.read(rows)


@dataclass(frozen=True)
class ProxyTaughtBatches:
    """A `BatchSource` of answered and new images with the proxies' averaged probabilities.

    New images cost no query: they are mixed from the samples when they are read, and the proxies
    answer them. Their decision is -1.

    Attributes:
        answers: The answers to train on.
        proxies: Networks that were trained on the answers, in eval mode.
        batch_size: Images per batch.
        seed: Seed of the draws.
        answered_share: Share of answered images in a batch, in [0, 1].
        balance: As for `AnsweredBatches`.
        known: Returns the proxies' averaged probabilities for the answers, [len(answers), C], as
            `answered_probabilities` does; called only if batches are drawn. By default they are
            computed for each batch.
        new_images: The new images; by default `NewMixtures`.
    """

    answers: Answers
    proxies: Sequence[nn.Module]
    batch_size: int
    seed: int
    answered_share: float = ANSWERED_SHARE
    balance: float = 0.0
    known: Callable[[], Tensor] | None = None
    new_images: NewImages | None = None

    def open(self, process: TrainingProcess) -> Callable[[int], tuple[Tensor, ...]]:
        """Returns a function from a step to images, decisions [n] and probabilities [n, C]."""
        draw = _Draws(self.answers, self.seed, self.balance)
        device = process.device
        asked = self.answers.images
        fresh = self.new_images or NewMixtures(asked, self.seed)
        known = None if self.known is None else self.known()
        proxies = [proxy.to(device) for proxy in self.proxies]
        answered = round(self.batch_size * self.answered_share)

        def batch(step: int) -> tuple[Tensor, ...]:
            chosen = process.own_part(draw(step, answered))
            rows = fresh.rows(step, self.batch_size - answered)
            images = torch.cat(
                [asked.read(self.answers.rows[chosen]), fresh.read(process.own_part(rows))]
            ).to(device)
            decisions = torch.full((len(images),), UNANSWERED, dtype=torch.int64)
            decisions[: len(chosen)] = self.answers.decisions[chosen]
            if known is None:
                return images, decisions.to(device), mean_probabilities(proxies, images)
            probabilities = known[chosen].to(device)
            if len(chosen) < len(images):
                new = mean_probabilities(proxies, images[len(chosen) :])
                probabilities = torch.cat([probabilities, new])
            return images, decisions.to(device), probabilities

        return batch


class TaughtLoss(nn.Module):
    """Cross-entropy with decisions and with probabilities.

    The loss of an answered image is alpha · CE(decision) + (1 - alpha) · CE(probabilities). The
    loss of an image with decision -1 is CE(probabilities).

    Args:
        alpha: Weight of a decision against the probabilities for the same image, in [0, 1].
    """

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, logits: Tensor, decisions: Tensor, probabilities: Tensor) -> Tensor:
        """Computes the mean loss of a batch.

        Args:
            logits: [n, C].
            decisions: [n] int64; -1 for images that were not queried.
            probabilities: [n, C]; rows sum to 1.
        """
        hard = F.cross_entropy(logits, decisions, ignore_index=-1, reduction="none")
        soft = F.cross_entropy(logits, probabilities, reduction="none")
        weight = torch.where(decisions >= 0, self.alpha, 0.0)
        return (weight * hard + (1 - weight) * soft).mean()


def mean_probabilities(networks: Sequence[nn.Module], images: Tensor) -> Tensor:
    """Returns the mean softmax of several networks, [n, C] float32, without gradients."""
    with torch.no_grad():
        scores = (network(to_weight_dtype(images, network)).float() for network in networks)
        parts = [F.softmax(each, 1) for each in scores]
    return torch.stack(parts).mean(0)


def answered_probabilities(networks: Sequence[nn.Module], answers: Answers) -> Tensor:
    """Returns the mean softmax of networks on one device for answers, [len(answers), C] float32."""
    return torch.cat(list(probabilities_by_batch(networks, answers.images, answers.rows)))


def probabilities_by_batch(
    networks: Sequence[nn.Module], images: AugmentedImages, rows: Tensor
) -> Iterator[Tensor]:
    """Yields the mean softmax of networks on one device for some images, [n, C] float32 each.

    Args:
        networks: The networks, in eval mode.
        images: The images, of which one batch at a time is read.
        rows: [N] int64, at least one.
    """
    device = next(networks[0].parameters()).device
    size = batch_of_forward(networks[0], images.read(rows[:1]).to(device))
    for part in rows.split(size):
        yield mean_probabilities(networks, images.read(part).to(device)).cpu()


class _Draws:
    """Draws answered images, at least `CLEAN_SHARE` of which are samples themselves."""

    def __init__(self, answers: Answers, seed: int, balance: float) -> None:
        rows = torch.arange(len(answers))
        if balance:
            rows = balanced_rows(answers.decisions, balance, seed)
        is_clean = answers.is_clean[rows]
        self._rows = rows.numpy()
        self._clean = rows[is_clean].numpy()
        self._share = CLEAN_SHARE if 0 < len(self._clean) < len(rows) else 0.0
        self._seed = seed

    def __call__(self, step: int, count: int) -> Tensor:
        random = np.random.default_rng((self._seed, step))
        clean = round(count * self._share)
        chosen = self._rows[random.integers(len(self._rows), size=count - clean)]
        if clean:
            samples = self._clean[random.integers(len(self._clean), size=clean)]
            chosen = np.concatenate([chosen, samples])
        return torch.from_numpy(chosen)
