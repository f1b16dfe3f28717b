"""Proposals of active acquisition: new starts and masked mixes, and the choice among them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from db3kd.data.files.uint8_pixels import MAX_PIXEL, to_float, to_uint8
from db3kd.querying.search import fitting_batch_size
from db3kd.synthesis.collection import CollectionTask
from db3kd.synthesis.masked_mixes import different_images, mixing_weights
from db3kd.synthesis.starts import Starts, make_masks
from db3kd.training.evaluation import predict_logits

_BLOCK = 2048
"""Proposals that are drawn and ranked at once, and fewer if they are large. The parts of this many
mixes are drawn at a time, whatever the size of an image."""

_LEAST_CLASS_SHARE = 0.25
"""A class with less than this fraction of an equal share of the images is rare. For ten classes
that is 2.5 %; the aim is 2 %, but some proposals turn out to be in another class."""

_MOST_FOR_RARE_CLASSES = 0.5
"""Largest fraction of a round that is reserved for rare classes."""


@dataclass(frozen=True)
class PixelBatch:
    """Images that were drawn or mixed, as they are stored.

    Attributes:
        start: [n] int64, the number of each start; -1 for a masked mix.
        pixels: [n, *image_shape] uint8.
    """

    start: Tensor
    pixels: Tensor

    def select(self, chosen: Tensor) -> "PixelBatch":
        """Returns the chosen images; `chosen` is [m] int64 or [n] bool."""
        return PixelBatch(self.start[chosen], self.pixels[chosen])

    @classmethod
    def concat(cls, parts: Sequence["PixelBatch"]) -> "PixelBatch":
        """Returns the images of several batches, in order."""
        return cls(
            torch.cat([part.start for part in parts]), torch.cat([part.pixels for part in parts])
        )


def starts_of(starts: Starts, numbers: Tensor) -> PixelBatch:
    """Returns the random images of these numbers, [n] int64."""
    return PixelBatch(numbers, starts.draw(numbers))


def draw_proposals(
    task: CollectionTask,
    known: Tensor,
    decisions: Tensor,
    new_starts: range,
    masked_mixes: int,
    round_number: int,
) -> Iterator[PixelBatch]:
    """Yields new starts, then masked mixes of the known images, one block at a time."""
    size = fitting_batch_size(_BLOCK, task.image_shape)
    for numbers in torch.arange(new_starts.start, new_starts.stop).split(size):
        yield starts_of(task.starts, numbers)
    if not masked_mixes:
        return
    random = np.random.default_rng((task.seed, round_number))
    masks = make_masks(task.image_shape, task.seed)
    weight = mixing_weights(decisions).numpy()
    # No mask is used twice: fewer masks than starts were drawn before.
    first = new_starts.start
    for numbers in torch.arange(first, first + masked_mixes).split(_BLOCK):
        drawn = random.choice(len(known), (2, len(numbers)), p=weight / weight.sum())
        pairs = different_images(torch.from_numpy(drawn), len(known))
        parts = zip(numbers.split(size), pairs.split(size, 1), strict=True)
        for block, (backgrounds, foregrounds) in parts:
            cover = masks.draw(block).float() / MAX_PIXEL
            mixed = known[backgrounds].float() * (1 - cover) + known[foregrounds].float() * cover
            yield PixelBatch(torch.full_like(block, -1), to_uint8(mixed, (0, MAX_PIXEL)))


def rare_class_counts(decisions: Tensor, classes: int, count: int) -> Tensor:
    """Returns [C] int64, the number of likely proposals to take for each rare class.

    A class without any image gets none, because students cannot recognise it.

    Args:
        decisions: [n] int64, the classes of the known images.
        classes: The number C of classes.
        count: The number of images to choose.
    """
    known = torch.bincount(decisions, minlength=classes)
    least = _LEAST_CLASS_SHARE * (len(decisions) + count) / classes
    missing = (least - known.float()).clamp_min(0).double() * (known > 0)
    reserved = int(min(_MOST_FOR_RARE_CLASSES * count, float(missing.sum())))
    if not reserved:
        return torch.zeros(classes, dtype=torch.int64)
    exact = missing * (reserved / missing.sum())
    wanted = exact.long()
    remainders = (exact - wanted).argsort(descending=True, stable=True)
    wanted[remainders[: reserved - int(wanted.sum())]] += 1
    return wanted


def choose_proposals(
    proposals: Iterator[PixelBatch],
    students: list[torch.nn.Module],
    count: int,
    wanted: Tensor,
) -> PixelBatch:
    """Returns `count` proposals: likely images of the wanted classes, then the most uncertain ones.

    Uncertainty is a small gap between the probabilities of the two likeliest classes.

    Args:
        proposals: At least `count` proposals.
        students: Their summed class probabilities rank the proposals.
        count: The number of proposals to choose.
        wanted: [C] int64, the number of proposals to take for each class, if there are as many for
            which it is the likeliest of the wanted classes.
    """
    wanted_classes = wanted.nonzero()[:, 0]
    counts = [*wanted[wanted_classes].tolist(), count]
    scores = torch.empty(0, len(counts), dtype=torch.float32)
    kept: PixelBatch | None = None

    def best() -> Tensor:
        columns = zip(scores.T, counts, strict=True)
        return torch.cat([_highest(column, number) for column, number in columns])

    for block in proposals:
        images = to_float(block.pixels, (0.0, 1.0))
        votes = sum(
            (predict_logits(student, images).softmax(1) for student in students), torch.zeros(())
        )
        top = votes.topk(2, 1).values
        likely = votes[:, wanted_classes]
        if len(wanted_classes):
            likely = likely.masked_fill(likely < likely.amax(1, keepdim=True), -torch.inf)
        scores = torch.cat([scores, torch.cat([likely, top[:, 1:] - top[:, :1]], 1)])
        kept = block if kept is None else PixelBatch.concat([kept, block])
        rows = best().unique()  # sorted, so that equal scores keep their order
        scores, kept = scores[rows], kept.select(rows)
    assert kept is not None
    chosen = list(dict.fromkeys(best().tolist()))[:count]
    return kept.select(torch.tensor(chosen))


def _highest(scores: Tensor, count: int) -> Tensor:
    """Returns the rows of the highest scores, in descending order; those of -inf are left out."""
    rows = scores.argsort(descending=True, stable=True)[:count]
    return rows[scores[rows] > -torch.inf]
