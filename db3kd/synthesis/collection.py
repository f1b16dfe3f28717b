"""Finding pseudo samples of every class: starts that the teacher is asked about once, and crossings
of those it knows for classes that starts do not reach.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from db3kd.data.uint8_pixels import to_float, to_uint8
from db3kd.querying.search import UNANSWERED, BudgetView, Search, query_in_batches
from db3kd.synthesis.starts import Starts

_BLOCK = 1024
"""Starts between two looks at whether there are enough. Not the batch size: that may not matter."""

_ROUNDS = 8
"""Rounds of crossings, each of those that the rounds before have found as well."""

_NEAREST, _FARTHEST = 0.3, 0.95
"""Where on the way to a known image of the wanted class a crossing lies."""


@dataclass(frozen=True)
class Collected:
    """Pseudo samples before any move, in the order in which they were found.

    start: int64 [n], the number of each start, -1 for a crossing. decision: int64 [n]. stored:
    uint8 [k, *image_shape], images that are not drawn again, and place: int64 [n], where each
    sample's lies among them, -1 for a start that is. found: int64 [C], how many images the teacher
    put in each class, kept or not. queries: spent on all of it.
    """

    start: Tensor
    decision: Tensor
    stored: Tensor
    place: Tensor
    found: Tensor
    queries: int

    def __len__(self) -> int:
        return len(self.decision)

    def pixels(self, starts: Starts, rows: Tensor) -> Tensor:
        """uint8 [n, *image_shape]: the images of these rows [n] int64."""
        place = self.place[rows]
        drawn = place < 0
        images = self.stored.new_empty(len(rows), *self.stored.shape[1:])
        images[drawn] = starts.draw(self.start[rows[drawn]])
        images[~drawn] = self.stored[place[~drawn]]
        return images


def collect(
    starts: Starts,
    classes: int,
    samples: int,
    *,
    max_starts: int,
    max_masked_mixes: int,
    bounds: tuple[float, float],
    seed: int,
    query_batch_size: int,
    budget: BudgetView,
) -> Search[Collected]:
    """Up to `samples` images, spread over the classes as evenly as what is found allows.

    Starts are asked, in their order, until each class has its share or `max_starts` were asked.
    Where a class then has less than a tenth of its share, up to `max_masked_mixes` queries go to
    masked_mixes: mixtures of two images, the one of the class where it has any. They take no more
    places than such classes have shares, and starts those that remain.

    Account 0 pays. query_batch_size: images per batch.
    """
    share = -(-samples // classes)
    decisions = yield from _ask_starts(starts, classes, share, max_starts, bounds, query_batch_size)
    found = torch.bincount(decisions[decisions != UNANSWERED], minlength=classes)
    number, kept = _spread(decisions, found, samples)
    crossed, images = decisions.new_empty(0), starts.draw(number[:0])
    scarce = int((found < share / 10).sum())
    if len(kept) and scarce:
        crossed, images = yield from _cross(
            starts,
            number,
            kept,
            classes,
            share,
            max_masked_mixes,
            bounds,
            seed,
            query_batch_size,
            budget,
        )
        reached = torch.bincount(crossed, minlength=classes)
        chosen, crossed = _spread(crossed, reached, samples * scarce // classes)
        images = images[chosen]
        number, kept = _spread(decisions, found, samples - len(crossed))
        found = found + reached
    return Collected(
        start=torch.cat([number, torch.full_like(crossed, -1)]),
        decision=torch.cat([kept, crossed]),
        stored=images,
        place=torch.cat([torch.full_like(number, -1), torch.arange(len(crossed))]),
        found=found,
        queries=int(budget.spent[0]),
    )


def _ask_starts(
    starts: Starts,
    classes: int,
    share: int,
    most: int,
    bounds: tuple[float, float],
    query_batch_size: int,
) -> Search[Tensor]:
    """int64 [n], the decision for each start; fewer than `most` where all classes are filled."""
    found = torch.zeros(classes, dtype=torch.int64)
    answers = []
    for first in range(0, most, _BLOCK):
        index = torch.arange(first, min(first + _BLOCK, most))
        images = to_float(starts.draw(index), bounds)
        account = torch.zeros_like(index)
        decisions = yield from query_in_batches(images.__getitem__, account, query_batch_size)
        answers.append(decisions)
        answered = decisions[decisions != UNANSWERED]
        found += torch.bincount(answered, minlength=classes)
        if len(answered) < len(index) or bool((found >= share).all()):
            break
    return torch.cat(answers) if answers else torch.empty(0, dtype=torch.int64)


def _spread(decisions: Tensor, found: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Which starts to keep, int64 [n], ascending, and their decisions: the first of each class."""
    taken = _even(found, samples)
    chosen = torch.cat(
        [(decisions == c).nonzero()[:count, 0] for c, count in enumerate(taken.tolist())]
    )
    chosen = chosen.sort().values
    return chosen, decisions[chosen]


def _even(found: Tensor, samples: int) -> Tensor:
    """int64 [C], how many to take of each class: at most what was found, at most `samples` in all,
    the smallest as large as can be."""
    taken = torch.zeros_like(found)
    left, open_classes = min(samples, int(found.sum())), int((found > 0).sum())
    for c in found.argsort(stable=True).tolist():
        if found[c] == 0:
            continue
        taken[c] = min(int(found[c]), left // open_classes)
        left -= int(taken[c])
        open_classes -= 1
    return taken


def _cross(
    starts: Starts,
    number: Tensor,
    decision: Tensor,
    classes: int,
    share: int,
    most: int,
    bounds: tuple[float, float],
    seed: int,
    query_batch_size: int,
    budget: BudgetView,
) -> Search[tuple[Tensor, Tensor]]:
    """Classes, int64 [k], and images, uint8, of the classes that starts hardly reach."""
    pool, predicted = starts.draw(number), decision
    new_classes: list[Tensor] = []
    new_images: list[Tensor] = []
    for round_number in range(_ROUNDS):
        counts = torch.bincount(predicted, minlength=classes)
        scarce = (counts < share / 10).nonzero()[:, 0].tolist()
        each = min(most // _ROUNDS, int(budget.remaining[0])) // max(1, len(scarce))
        if not (scarce and each):
            break
        tried = torch.cat(
            [_mixtures(pool, predicted, c, min(each, share), seed, round_number) for c in scarce]
        )
        images = to_float(tried, bounds)
        account = torch.zeros(len(images), dtype=torch.int64)
        answers = yield from query_in_batches(images.__getitem__, account, query_batch_size)
        hit = torch.isin(answers, torch.tensor(scarce))
        predicted = torch.cat([predicted, answers[hit]])
        pool = torch.cat([pool, tried[hit]])
        new_classes.append(answers[hit])
        new_images.append(tried[hit])
    if not new_classes:
        return predicted[:0], pool[:0]
    return torch.cat(new_classes), torch.cat(new_images)


def _mixtures(
    pool: Tensor, predicted: Tensor, target: int, count: int, seed: int, round_number: int
) -> Tensor:
    """uint8 [count, *shape]: images on the way from any image to one of the class, if there is any,
    else between any two."""
    random = np.random.default_rng((seed, target, round_number))
    members = (predicted == target).nonzero()[:, 0].numpy()
    towards = members if len(members) else np.arange(len(predicted))
    ends = pool[torch.from_numpy(random.choice(towards, count))].float()
    begins = pool[torch.from_numpy(random.integers(len(predicted), size=count))].float()
    drawn = random.uniform(_NEAREST, _FARTHEST, (count, *[1] * (pool.ndim - 1)))
    share = torch.from_numpy(drawn.astype(np.float32))
    return to_uint8(begins * (1 - share) + ends * share, (0, 255))
