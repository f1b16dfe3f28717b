"""Collects pseudo samples of every class: random images and, for rare classes, mixtures of them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from db3kd.data.files.uint8_pixels import MAX_PIXEL, to_float, to_uint8
from db3kd.querying.search import (
    UNANSWERED,
    BudgetView,
    Search,
    fitting_batch_size,
    query_in_batches,
)
from db3kd.synthesis.starts import Starts

_BLOCK = 1024
"""Starts between two checks for enough samples. It is not the batch size, which must not matter."""

_MIXED_AT_ONCE = 1024
"""Images that are mixed at once, and fewer if they are large. It does not change the mixtures."""

_ROUNDS = 8
"""Rounds of mixtures; each also mixes the images that earlier rounds found."""

_NEAREST, _FARTHEST = 0.3, 0.95
"""Range of the position of a mixture between an image and one of the target class."""


@dataclass(frozen=True)
class Collected:
    """Pseudo samples before any move, in the order in which they were found.

    Attributes:
        start: [n] int64, the number of each start; -1 for a mixture.
        decision: [n] int64, the class of each sample.
        stored: [k, *image_shape] uint8, images that cannot be drawn again.
        place: [n] int64, the row of each sample in `stored`; -1 for a start, which is drawn again.
        found: [C] int64, how many images the teacher put in each class, kept or not.
        queries: Queries spent.
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
        """Returns [n, *image_shape] uint8, the images of rows [n] int64."""
        place = self.place[rows]
        drawn = place < 0
        images = self.stored.new_empty(len(rows), *self.stored.shape[1:])
        images[drawn] = starts.draw(self.start[rows[drawn]])
        images[~drawn] = self.stored[place[~drawn]]
        return images


@dataclass(frozen=True, kw_only=True)
class CollectionTask:
    """What to collect, and how the teacher is queried.

    Attributes:
        starts: Distribution of random images.
        image_shape: Shape of an image.
        classes: Number of classes of the teacher.
        samples: Maximum number of images to keep.
        held_out: Number of held-out images among them, which are the first of the result.
        bounds: Bounds of the teacher.
        seed: Seed of all random numbers.
        query_batch_size: Images per batch.
        budget: Account 0 pays.
    """

    starts: Starts
    image_shape: tuple[int, ...]
    classes: int
    samples: int
    held_out: int
    bounds: tuple[float, float]
    seed: int
    query_batch_size: int
    budget: BudgetView

    def query(self, pixels: Tensor) -> Search[Tensor]:
        """Returns the decisions for images, [n, *image_shape] uint8.

        Only one batch at a time is converted to float32.
        """
        account = torch.zeros(len(pixels), dtype=torch.int64)
        decisions = yield from query_in_batches(
            lambda part: to_float(pixels[part], self.bounds), account, self.query_batch_size
        )
        return decisions


def collect(task: CollectionTask, *, max_starts: int, max_mixtures: int) -> Search[Collected]:
    """Collects up to `task.samples` images, spread over the classes as evenly as possible.

    The teacher decides starts in order until each class has its share or `max_starts` are decided.
    If a class then has less than a tenth of its share, up to `max_mixtures` queries go to
    mixtures of two images. One of the two belongs to that class if any image does. Mixtures fill at
    most the shares of such classes, and starts fill the rest.

    Held-out images are the first starts, whatever their classes. They are part of no mixture.

    Args:
        task: What to collect.
        max_starts: Maximum number of starts sent to the teacher.
        max_mixtures: Maximum number of mixtures sent to the teacher.

    Returns:
        The images and their classes.
    """
    classes, held_out = task.classes, task.held_out
    rest = task.samples - held_out
    share = -(-rest // classes)
    decisions = yield from _ask_starts(task, share, max_starts)
    reserved = decisions[:held_out]
    reserved = reserved[reserved != UNANSWERED]
    decisions[:held_out] = UNANSWERED  # so that no class takes them
    found = torch.bincount(decisions[decisions != UNANSWERED], minlength=classes)
    number, kept = _spread(decisions, found, rest)
    mixed, images = decisions.new_empty(0), task.starts.draw(number[:0])
    scarce = int((found < share / 10).sum())
    if len(kept) and scarce:
        mixed, images = yield from _mix(task, number, kept, share, max_mixtures)
        reached = torch.bincount(mixed, minlength=classes)
        chosen, mixed = _spread(mixed, reached, rest * scarce // classes)
        images = images[chosen]
        number, kept = _spread(decisions, found, rest - len(mixed))
        found = found + reached
    number = torch.cat([torch.arange(len(reserved)), number])
    return Collected(
        start=torch.cat([number, torch.full_like(mixed, -1)]),
        decision=torch.cat([reserved, kept, mixed]),
        stored=images,
        place=torch.cat([torch.full_like(number, -1), torch.arange(len(mixed))]),
        found=found + torch.bincount(reserved, minlength=classes),
        queries=int(task.budget.spent[0]),
    )


def _ask_starts(task: CollectionTask, share: int, limit: int) -> Search[Tensor]:
    """Returns the decision of each start, [n] int64; fewer than `limit` if all classes are full.

    The held-out images, which are the first starts, fill no class.
    """
    found = torch.zeros(task.classes, dtype=torch.int64)
    answers = []
    for first in range(0, limit, _BLOCK):
        index = torch.arange(first, min(first + _BLOCK, limit))
        decisions = yield from task.query(task.starts.draw(index))
        answers.append(decisions)
        counted = (decisions != UNANSWERED) & (index >= task.held_out)
        found += torch.bincount(decisions[counted], minlength=task.classes)
        if bool((decisions == UNANSWERED).any()) or bool((found >= share).all()):
            break
    return torch.cat(answers) if answers else torch.empty(0, dtype=torch.int64)


def _spread(decisions: Tensor, found: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Returns the starts to keep, [n] int64 ascending, and their decisions: the first per class."""
    taken = _even(found, samples)
    chosen = torch.cat(
        [(decisions == c).nonzero()[:count, 0] for c, count in enumerate(taken.tolist())]
    )
    chosen = chosen.sort().values
    return chosen, decisions[chosen]


def _even(found: Tensor, samples: int) -> Tensor:
    """Returns [C] int64, how many to take per class: at most `samples`, as even as possible."""
    taken = torch.zeros_like(found)
    left, open_classes = min(samples, int(found.sum())), int((found > 0).sum())
    for c in found.argsort(stable=True).tolist():
        if found[c] == 0:
            continue
        taken[c] = min(int(found[c]), left // open_classes)
        left -= int(taken[c])
        open_classes -= 1
    return taken


def _mix(
    task: CollectionTask, number: Tensor, decision: Tensor, share: int, limit: int
) -> Search[tuple[Tensor, Tensor]]:
    """Returns classes [k] int64 and images [k, *shape] uint8 of rarely reached classes.

    They are mixed from starts of these numbers [n] and classes [n], until each class has its share.
    """
    pool, predicted = task.starts.draw(number), decision
    new_classes: list[Tensor] = []
    new_images: list[Tensor] = []
    for round_number in range(_ROUNDS):
        counts = torch.bincount(predicted, minlength=task.classes)
        scarce = (counts < share / 10).nonzero()[:, 0].tolist()
        each = min(limit // _ROUNDS, int(task.budget.remaining[0])) // max(1, len(scarce))
        if not (scarce and each):
            break
        tried = torch.cat(
            [
                _mixtures(pool, predicted, c, min(each, share), task.seed, round_number)
                for c in scarce
            ]
        )
        answers = yield from task.query(tried)
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
    """Returns [count, *shape] uint8, mixtures of any image with one of the class, or any other."""
    random = np.random.default_rng((seed, target, round_number))
    members = (predicted == target).nonzero()[:, 0].numpy()
    towards = members if len(members) else np.arange(len(predicted))
    ends = torch.from_numpy(random.choice(towards, count))
    begins = torch.from_numpy(random.integers(len(predicted), size=count))
    drawn = random.uniform(_NEAREST, _FARTHEST, (count, *[1] * (pool.ndim - 1)))
    shares = torch.from_numpy(drawn.astype(np.float32))
    mixtures = pool.new_empty(count, *pool.shape[1:])
    size = fitting_batch_size(_MIXED_AT_ONCE, tuple(pool.shape[1:]))
    for rows in torch.arange(count).split(size):
        share = shares[rows]
        mixed = pool[begins[rows]].float() * (1 - share) + pool[ends[rows]].float() * share
        mixtures[rows] = to_uint8(mixed, (0, MAX_PIXEL))
    return mixtures
