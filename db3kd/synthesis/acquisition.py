"""Choosing what to ask next by students of the answers so far.

Most random images tell a student nothing new. Two small networks trained on the answers so far know
which of many proposals they cannot decide; the teacher is asked about those alone. Choosing costs
no query. (Uncertainty sampling: Lewis and Gale, SIGIR 1994; for copying models by their answers:
Papernot et al., ASIA CCS 2017, and Orekondy et al., CVPR 2019.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from db3kd.data.uint8_pixels import MAX_PIXEL, to_float, to_uint8
from db3kd.querying.search import UNANSWERED, BudgetView, Search, query_in_batches
from db3kd.synthesis.collection import Collected
from db3kd.synthesis.starts import Starts, make_masks
from db3kd.validation import check_count

_BLOCK = 2048
"""Proposals drawn and judged at once."""


_ENOUGH = 2048
"""Where so many starts are of one class, the rest is not asked."""


@dataclass(frozen=True)
class AcquisitionSettings:
    """How students choose.

    model: their networks, as `build_model` takes. rounds: in which the samples are asked, in equal
    parts; the first asks about starts as they come. pool: proposals for each sample that is
    asked, half of them new starts, half crossings: one image shown through a soft shape in
    another. students, steps, learning_rate: how many networks choose, and how each is trained for
    each round, anew. device: where, as in TrainSettings.
    """

    model: str = "lenet5-half"
    rounds: int = 5
    pool: int = 8
    students: int = 2
    steps: int = 1500
    learning_rate: float = 3e-3
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("rounds", "pool", "students", "steps"):
            check_count(getattr(self, name), name)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected above 0, got {self.learning_rate}")


@dataclass(frozen=True)
class AcquiredBatch:
    """What a round asks about: start: int64 [n], -1 for a crossing; levels: uint8 [n, *shape]."""

    start: Tensor
    pixels: Tensor


class AcquisitionLog(Protocol):
    """Where the choice of a round is kept until the run is done.

    Training gives the same bits only on the same machine with as many threads, so a run that is
    resumed elsewhere must not choose again what it has asked in part.
    """

    def load(self, round_number: int) -> AcquiredBatch | None: ...

    def save(self, round_number: int, chosen: AcquiredBatch) -> None: ...


def collect_actively(
    starts: Starts,
    image_shape: tuple[int, ...],
    classes: int,
    samples: int,
    acquisition: AcquisitionSettings,
    *,
    choices: AcquisitionLog | None,
    bounds: tuple[float, float],
    seed: int,
    query_batch_size: int,
    budget: BudgetView,
) -> Search[Collected]:
    """`samples` images, a round at a time, all of them kept.

    Until two classes are known there is nothing to learn from: starts are asked as they come.

    Account 0 pays. query_batch_size: images per batch.
    """
    known = AcquiredBatch(torch.empty(0, dtype=torch.int64), torch.empty(0, *image_shape).byte())
    decisions = known.start
    drawn = 0
    for round_number in range(acquisition.rounds):
        last = samples * (round_number + 1) // acquisition.rounds
        count = min(last - len(decisions), int(budget.remaining[0]))
        if count < 1:
            continue
        chosen = choices.load(round_number) if choices is not None else None
        untaught = not bool((decisions != decisions[:1]).any())
        news = count if untaught else count * acquisition.pool - count * acquisition.pool // 2
        if chosen is None and untaught:
            number = torch.arange(drawn, drawn + count)
            chosen = AcquiredBatch(number, starts.draw(number))
        elif chosen is None:
            students = list(
                _train(known.pixels, decisions, classes, acquisition, seed, round_number)
            )
            proposals = _proposals(
                starts, known.pixels, decisions, range(drawn, drawn + news),
                count * acquisition.pool // 2, seed, round_number,
            )  # fmt: skip
            chosen = _choose(proposals, students, count)
            if choices is not None:
                choices.save(round_number, chosen)
        drawn += news
        images = partial(_images, chosen.pixels, bounds)
        account = torch.zeros(len(chosen.start), dtype=torch.int64)
        answers = yield from query_in_batches(images, account, query_batch_size)
        answered = answers != UNANSWERED
        known = AcquiredBatch(
            torch.cat([known.start, chosen.start[answered]]),
            torch.cat([known.pixels, chosen.pixels[answered]]),
        )
        decisions = torch.cat([decisions, answers[answered]])
        if len(decisions) >= _ENOUGH and not bool((decisions != decisions[0]).any()):
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
    # imported late: they need more than asking does
    from db3kd.data.image_set import ImageSet
    from db3kd.distillation.student import train_classifier
    from db3kd.distillation.training import TrainSettings, balanced_rows
    from db3kd.models.networks import build_model

    images = ImageSet.from_arrays(pixels.numpy(), name="pseudo samples")
    make = partial(build_model, acquisition.model, tuple(pixels.shape[1:]), classes)
    for student in range(acquisition.students):
        settings = TrainSettings(
            steps=acquisition.steps,
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
    new: range,
    masked_mixes: int,
    seed: int,
    round_number: int,
) -> Iterator[AcquiredBatch]:
    """New starts, then crossings of the images known, a block at a time."""
    for numbers in torch.arange(new.start, new.stop).split(_BLOCK):
        yield AcquiredBatch(numbers, starts.draw(numbers))
    random = _random(seed, round_number)
    masks = make_masks(tuple(known.shape[1:]), seed)
    weight = torch.bincount(decisions).double().rsqrt()[decisions].numpy()
    first = new.start  # as many masks as starts were drawn before, for no mask is used twice
    for numbers in torch.arange(first, first + masked_mixes).split(_BLOCK):
        pairs = random.choice(len(known), (2, len(numbers)), p=weight / weight.sum())
        ground, figure = (known[torch.from_numpy(rows)].float() for rows in pairs)
        cover = masks.draw(numbers).float() / MAX_PIXEL
        crossed = to_uint8(ground * (1 - cover) + figure * cover, (0, MAX_PIXEL))
        yield AcquiredBatch(torch.full_like(numbers, -1), crossed)


def _choose(
    proposals: Iterator[AcquiredBatch], students: list[torch.nn.Module], count: int
) -> AcquiredBatch:
    """The `count` proposals between whose likeliest two classes the students decide least."""
    from db3kd.distillation.evaluation import predict_logits

    best, gaps = None, torch.empty(0)
    for block in proposals:
        images = to_float(block.pixels, (0.0, 1.0))
        votes = sum(predict_logits(student, images).softmax(1) for student in students)
        top = votes.topk(2, 1).values
        gaps = torch.cat([gaps, top[:, 0] - top[:, 1]])
        start, pixels = block.start, block.pixels
        if best is not None:
            start, pixels = torch.cat([best.start, start]), torch.cat([best.pixels, pixels])
        order = gaps.argsort(stable=True)[:count]
        gaps, best = gaps[order], AcquiredBatch(start[order], pixels[order])
    return best


def _random(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)
