"""Chooses the images to query: those that proxies are least sure about.

The choice costs no query. (Uncertainty sampling: Lewis and Gale, SIGIR 1994; with a committee:
Seung et al., COLT 1992. Copying a model with chosen queries: Papernot et al., ASIA CCS 2017.)
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from db3kd.answers.answers import NUMBERS, Answers
from db3kd.answers.batches import probabilities_by_batch
from db3kd.data.augmented_images import AugmentedImages
from db3kd.progress import adding_up, show_progress

_PROPOSALS = 4
"""Proposed augmented images per query; the least certain of all proposals are chosen."""

_MAX_CLEAN_PROPOSALS = 16
"""Maximum number of proposed samples per query."""


def choose_rows(
    answers: Answers,
    proxies: Sequence[nn.Module],
    count: int,
    seed: int,
    round_number: int,
    *,
    title: str = "ranking images",
    progress: bool = False,
) -> Tensor:
    """Chooses training images to query.

    Samples come before augmented images. Without proxies, the choice is random.

    Args:
        answers: The answers so far. Their images are not chosen again.
        proxies: Networks on one device, in eval mode.
        count: How many images to choose.
        seed: Seed of the proposals.
        round_number: The number of the round; each has its own proposals.
        title: The title of the progress display.
        progress: Whether to show how many proposals are ranked.

    Returns:
        [count] int64, ascending rows of `answers.images`.
    """
    random = np.random.default_rng((seed, round_number))
    asked = answers.rows[answers.is_clean] // NUMBERS
    unasked = np.setdiff1d(np.arange(answers.images.partners), asked.numpy())
    (samples, clean), (augmented, wanted) = _proposals(count, len(unasked))
    if not proxies:
        samples, augmented = clean, wanted
    proposed = np.sort(random.permutation(unasked)[:samples]) * NUMBERS
    new = _new_rows(answers, random, range(answers.images.partners), augmented)
    parts = ((proposed, clean), (new, wanted))
    ranked = proposals_to_rank(count, len(unasked)) if proxies else 0
    with show_progress(title, ranked, "proposals", progress and ranked > 0) as show:
        count_ranked = adding_up(show)
        chosen = [
            _least_sure(answers.images, rows, proxies, number, count_ranked)
            for rows, number in parts
        ]
    return torch.cat(chosen).sort().values


def proposals_to_rank(count: int, unasked: int) -> int:
    """Returns how many proposals each proxy ranks in `choose_rows`.

    Args:
        count: How many images are chosen.
        unasked: The number of samples whose own images have not been queried.
    """
    parts = _proposals(count, unasked)
    return sum(proposed for proposed, wanted in parts if proposed > wanted)


def _proposals(count: int, unasked: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns how many samples are proposed and wanted, and how many augmented images."""
    clean = min(count, unasked)
    samples = min(unasked, clean * _MAX_CLEAN_PROPOSALS)
    return (samples, clean), ((count - clean) * _PROPOSALS, count - clean)


def held_out_rows(images: AugmentedImages, augmented: int, seed: int) -> Tensor:
    """Returns the rows of all held-out samples, and of `augmented` augmented images of them."""
    samples = np.arange(images.partners, images.samples)
    random = np.random.default_rng((seed,))
    numbers = 1 + random.choice(NUMBERS - 1, augmented, replace=False)
    drawn = random.choice(samples, augmented) * NUMBERS + numbers
    return torch.from_numpy(np.concatenate([samples * NUMBERS, np.sort(drawn)]))


def further_held_out_rows(answers: Answers, count: int, seed: int, part: int) -> Tensor:
    """Returns augmented images of the held-out samples that were not queried.

    Args:
        answers: The answers so far.
        count: How many.
        seed: Seed of their choice.
        part: How many larger budgets the run has been continued with; each has its own choice.

    Returns:
        [count] int64, ascending rows of `answers.images`.
    """
    random = np.random.default_rng((seed, 0, part))
    held_out = range(answers.images.partners, answers.images.samples)
    return torch.from_numpy(np.sort(_new_rows(answers, random, held_out, count)))


def _new_rows(
    answers: Answers, random: np.random.Generator, samples: range, count: int
) -> np.ndarray:
    """Returns `count` distinct augmented images of some samples that were not queried."""
    found = np.empty(0, np.int64)
    while len(found) < count:
        size = count - len(found)
        drawn_samples = random.integers(samples.start, samples.stop, size=size)
        drawn = drawn_samples * NUMBERS + random.integers(1, NUMBERS, size=size)
        fresh = np.setdiff1d(drawn, np.concatenate([found, answers.rows.numpy()]))
        found = np.concatenate([found, fresh])
    return found


def _least_sure(
    images: AugmentedImages,
    rows: np.ndarray,
    proxies: Sequence[nn.Module],
    count: int,
    count_ranked: Callable[[int], None],
) -> Tensor:
    """Returns the `count` rows with the smallest gap between the two most likely classes."""
    found = torch.from_numpy(rows)
    if not proxies or count == len(rows):
        return found[:count]
    gaps = []
    for probabilities in probabilities_by_batch(proxies, images, found):
        top = probabilities.topk(2, 1).values
        gaps.append(top[:, 0] - top[:, 1])
        count_ranked(len(top))
    return found[torch.cat(gaps).argsort(stable=True)[:count]]
