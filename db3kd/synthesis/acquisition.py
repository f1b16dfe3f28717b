"""Active acquisition of pseudo samples: students choose the images that the teacher decides next.

Most random images teach a student nothing new. A few small networks, trained on the answers so far,
rank many proposals by how uncertain they are, and the teacher is asked about the most uncertain
ones. Some of the queries of a round go to the likeliest proposals of rare classes instead. The
choice costs no query. (Uncertainty sampling: Lewis and Gale, SIGIR 1994. Copying models by their
answers: Papernot et al., ASIA CCS 2017, and Orekondy et al., CVPR 2019.)
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from db3kd.data.image_set import ImageSet
from db3kd.data.uint8_pixels import MAX_PIXEL, to_float, to_uint8
from db3kd.distillation.evaluation import predict_logits
from db3kd.distillation.row_batches import balanced_rows
from db3kd.distillation.student import train_classifier
from db3kd.distillation.train_settings import TrainSettings
from db3kd.models.networks import build_model
from db3kd.querying.search import UNANSWERED, BudgetView, Search, query_in_batches
from db3kd.synthesis.collection import Collected
from db3kd.synthesis.starts import Starts, make_masks
from db3kd.validation import check_count

_BLOCK = 2048
"""Proposals that are drawn and ranked at once."""


_LEAST_STEPS = 300
"""Training steps of a student in a round with few answers, unless `steps` is smaller."""

_LEAST_MIXING_SHARE = 0.5
"""What the weight of a class is raised to, relative to an equal share of all known classes."""

_LEAST_CLASS_SHARE = 0.25
"""Classes below this share of an equal number of images are sought. The aim is 2 % for each of ten
classes, and some of the proposals that are likely to be in a class are not."""

_MOST_FOR_RARE_CLASSES = 0.5
"""Share of a round that may go to rare classes; the rest are the most uncertain proposals."""

_MAX_OF_ONE_CLASS = 2048
"""If this many starts are all of one class, the collection ends."""


@dataclass(frozen=True)
class AcquisitionSettings:
    """How students choose the images that the teacher decides.

    Attributes:
        model: The architecture of the students, a name for `build_model`.
        rounds: Number of rounds, with equal numbers of samples. The first round takes starts in
            order.
        pool: Proposals per sample. Half of them are new starts, and half are masked mixes: one
            image shown in another through a soft shape.
        students: Number of students that choose.
        steps: Most training steps of each student in a round.
        epochs: Passes over the answers so far that a student makes in a round, within 300 and
            `steps` steps. So the time of a run grows with its number of samples.
        learning_rate: Initial learning rate of the students.
        device: As in `TrainSettings`.

    Raises:
        ValueError: A number is not above 0.
    """

    model: str = "lenet5-half"
    rounds: int = 5
    pool: int = 8
    students: int = 2
    steps: int = 1500
    epochs: int = 10
    learning_rate: float = 3e-3
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("rounds", "pool", "students", "steps", "epochs"):
            check_count(getattr(self, name), name)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected a number above 0, got {self.learning_rate}")

    def steps_for(self, answers: int) -> int:
        """Returns the training steps of a student that learns this number of answers."""
        wanted = math.ceil(self.epochs * answers / TrainSettings.batch_size)
        return min(self.steps, max(_LEAST_STEPS, wanted))


@dataclass(frozen=True)
class AcquiredBatch:
    """The images that the teacher decides in a round.

    Attributes:
        start: [n] int64, the number of each start; -1 for a masked mix.
        pixels: [n, *image_shape] uint8.
    """

    start: Tensor
    pixels: Tensor


class AcquisitionLog(Protocol):
    """Keeps the images that each round chose, until the run is finished.

    Training is bit-identical only on equal hardware with an equal number of threads. So a run that
    is resumed elsewhere must not choose the images of a started round again.
    """

    def load(self, round_number: int) -> AcquiredBatch | None:
        """Returns the images of a round, or None if they are unknown."""
        ...

    def save(self, round_number: int, chosen: AcquiredBatch) -> None:
        """Writes the images of a round, before the teacher decides the first of them."""
        ...


def collect_actively(
    starts: Starts,
    image_shape: tuple[int, ...],
    classes: int,
    samples: int,
    acquisition: AcquisitionSettings,
    *,
    log: AcquisitionLog | None,
    bounds: tuple[float, float],
    seed: int,
    query_batch_size: int,
    budget: BudgetView,
) -> Search[Collected]:
    """Collects pseudo samples in rounds, and keeps all images that the teacher decides.

    While only one class is known, students have nothing to learn, so the teacher decides starts in
    order.

    Args:
        starts: The distribution of starts.
        image_shape: Shape of an image.
        classes: The number of classes.
        samples: Number of images to collect.
        acquisition: How students choose.
        log: Keeps the choices of a run that can be resumed.
        bounds: Bounds of the teacher.
        seed: Seed of all random numbers.
        query_batch_size: Images per batch.
        budget: Account 0 pays.

    Returns:
        The images and their classes.
    """
    known = AcquiredBatch(torch.empty(0, dtype=torch.int64), torch.empty(0, *image_shape).byte())
    decisions = known.start
    drawn = 0
    for round_number in range(acquisition.rounds):
        last = samples * (round_number + 1) // acquisition.rounds
        count = min(last - len(decisions), int(budget.remaining[0]))
        if count < 1:
            continue
        chosen = log.load(round_number) if log is not None else None
        one_class = not bool((decisions != decisions[:1]).any())
        new_starts = (
            count if one_class else count * acquisition.pool - count * acquisition.pool // 2
        )
        if chosen is None and one_class:
            number = torch.arange(drawn, drawn + count)
            chosen = AcquiredBatch(number, starts.draw(number))
        elif chosen is None:
            students = list(
                _train(known.pixels, decisions, classes, acquisition, seed, round_number)
            )
            proposals = _proposals(
                starts, known.pixels, decisions, range(drawn, drawn + new_starts),
                count * acquisition.pool // 2, seed, round_number,
            )  # fmt: skip
            wanted = _wanted(decisions, classes, count)
            chosen = _choose(proposals, students, count, wanted)
            if log is not None:
                log.save(round_number, chosen)
        drawn += new_starts
        images = partial(_images, chosen.pixels, bounds)
        account = torch.zeros(len(chosen.start), dtype=torch.int64)
        answers = yield from query_in_batches(images, account, query_batch_size)
        answered = answers != UNANSWERED
        known = AcquiredBatch(
            torch.cat([known.start, chosen.start[answered]]),
            torch.cat([known.pixels, chosen.pixels[answered]]),
        )
        decisions = torch.cat([decisions, answers[answered]])
        if len(decisions) >= _MAX_OF_ONE_CLASS and not bool((decisions != decisions[0]).any()):
            break
    return Collected(
        start=known.start,
        decision=decisions,
        stored=known.pixels,
        place=torch.arange(len(decisions)),
        found=torch.bincount(decisions, minlength=classes),
        queries=int(budget.spent[0]),
    )


def _images(pixels: Tensor, bounds: tuple[float, float], part: slice) -> Tensor:
    return to_float(pixels[part], bounds)


def _train(
    pixels: Tensor,
    decisions: Tensor,
    classes: int,
    acquisition: AcquisitionSettings,
    seed: int,
    round_number: int,
) -> Iterator[torch.nn.Module]:
    """Yields students of the answers so far."""
    images = ImageSet.from_arrays(pixels.numpy(), name="pseudo samples")
    make = partial(build_model, acquisition.model, tuple(pixels.shape[1:]), classes)
    for student in range(acquisition.students):
        settings = TrainSettings(
            steps=acquisition.steps_for(len(decisions)),
            learning_rate=acquisition.learning_rate,
            schedule="cosine",
            seed=int(_random(seed, round_number, student).integers(2**31)),
            device=acquisition.device,
        )
        yield train_classifier(
            make, images, decisions, settings, rows=balanced_rows(decisions, 0.5)
        )


def _proposals(
    starts: Starts,
    known: Tensor,
    decisions: Tensor,
    new_starts: range,
    masked_mixes: int,
    seed: int,
    round_number: int,
) -> Iterator[AcquiredBatch]:
    """Yields new starts, then masked mixes of the known images, one block at a time."""
    for numbers in torch.arange(new_starts.start, new_starts.stop).split(_BLOCK):
        yield AcquiredBatch(numbers, starts.draw(numbers))
    random = _random(seed, round_number)
    masks = make_masks(tuple(known.shape[1:]), seed)
    weight = _mixing_weights(decisions).numpy()
    # No mask is used twice: fewer masks than starts were drawn before.
    first = new_starts.start
    for numbers in torch.arange(first, first + masked_mixes).split(_BLOCK):
        pairs = random.choice(len(known), (2, len(numbers)), p=weight / weight.sum())
        background, foreground = (known[torch.from_numpy(rows)].float() for rows in pairs)
        cover = masks.draw(numbers).float() / MAX_PIXEL
        mixed = to_uint8(background * (1 - cover) + foreground * cover, (0, MAX_PIXEL))
        yield AcquiredBatch(torch.full_like(numbers, -1), mixed)


def _mixing_weights(decisions: Tensor) -> Tensor:
    """Returns [n] float64, how often each known image is part of a mix.

    The images of a class share a weight that grows with the square root of their number. It is
    raised to at least half of an equal share, or a class that starts rarely reach would stay rare.
    """
    counts = torch.bincount(decisions).double()
    share = counts.sqrt() / counts.sqrt().sum()
    least = _LEAST_MIXING_SHARE / (counts > 0).sum()
    return (counts.rsqrt() * (least / share).clamp_min(1))[decisions]


def _wanted(decisions: Tensor, classes: int, count: int) -> Tensor:
    """Returns [C] int64, how many proposals are chosen as likely images of each class.

    A class without any image gets none, because students cannot recognise it.

    Args:
        decisions: [n] int64, the classes of the known images.
        classes: The number C of classes.
        count: The number of images to choose.
    """
    known = torch.bincount(decisions, minlength=classes)
    least = _LEAST_CLASS_SHARE * (len(decisions) + count) / classes
    missing = (least - known).clamp_min(0) * (known > 0)
    most = _MOST_FOR_RARE_CLASSES * count
    return (missing * min(1.0, most / max(float(missing.sum()), 1.0))).long()


class _Best:
    """The proposals with the highest scores, each with its place among all proposals."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._scores = torch.empty(0)
        self.places = torch.empty(0, dtype=torch.int64)
        self.proposals: AcquiredBatch | None = None

    def add(self, scores: Tensor, first: int, block: AcquiredBatch) -> None:
        """Adds a block of proposals.

        Args:
            scores: [n] float32.
            first: The place of the first proposal.
            block: n proposals.
        """
        rows = _highest(scores, self._count)
        added = AcquiredBatch(block.start[rows], block.pixels[rows])
        before = self.proposals
        if before is not None:
            added = _together([before, added])
        scores = torch.cat([self._scores, scores[rows]])
        places = torch.cat([self.places, first + rows])
        rows = _highest(scores, self._count)
        self._scores, self.places = scores[rows], places[rows]
        self.proposals = AcquiredBatch(added.start[rows], added.pixels[rows])


def _highest(scores: Tensor, count: int) -> Tensor:
    """Returns the rows of the highest scores, the highest first, and of equal ones the first."""
    return scores.argsort(descending=True, stable=True)[:count]


def _together(parts: Sequence[AcquiredBatch]) -> AcquiredBatch:
    start = torch.cat([part.start for part in parts])
    return AcquiredBatch(start, torch.cat([part.pixels for part in parts]))


def _choose(
    proposals: Iterator[AcquiredBatch],
    students: list[torch.nn.Module],
    count: int,
    wanted: Tensor,
) -> AcquiredBatch:
    """Returns `count` proposals: likely images of some classes, then the most uncertain ones.

    An uncertain image has a small gap between the probabilities of its two likeliest classes.

    Args:
        proposals: At least `count` proposals.
        students: They state how likely each class is.
        count: Number of proposals to choose.
        wanted: [C] int64, how many of the likeliest images of each class are taken.
    """
    wanted_classes = wanted.nonzero()[:, 0]
    best = [_Best(int(wanted[each])) for each in wanted_classes] + [_Best(count)]
    first = 0
    for block in proposals:
        images = to_float(block.pixels, (0.0, 1.0))
        votes = sum(
            (predict_logits(student, images).softmax(1) for student in students), torch.zeros(())
        )
        top = votes.topk(2, 1).values
        for scores, kept in zip(
            [*votes[:, wanted_classes].T, top[:, 1] - top[:, 0]], best, strict=True
        ):
            kept.add(scores, first, block)
        first += len(images)
    together = _together([kept.proposals for kept in best if kept.proposals is not None])
    # A proposal may be among the best of several kinds; its first row counts.
    places = torch.cat([kept.places for kept in best]).numpy()
    rows = torch.from_numpy(np.sort(np.unique(places, return_index=True)[1])[:count])
    return AcquiredBatch(together.start[rows], together.pixels[rows])


def _random(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)
