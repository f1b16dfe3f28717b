"""What a run will ask, and how long that takes, told before it begins by a few real queries."""

import math
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from db3kd.boundary.surrogate import Surrogate
from db3kd.data.class_names import matched
from db3kd.data.image_set import ImageSet
from db3kd.labelling.budgets import divide_budget, divide_over_targets
from db3kd.labelling.chunk_search import Labeller, pairs_of, surrogate_for
from db3kd.labelling.sample_choice import draw_samples
from db3kd.labelling.settings import LabelSettings
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import fitting_batch_size, query_in_batches
from db3kd.teachers import Teacher
from db3kd.teachers.rescaled import takes_unit_images
from db3kd.validation import check_count

_CALLS = 4
"""Calls that the images of an estimate are decided in; the first, which warms up, is not timed."""


@dataclass(frozen=True)
class Estimate:
    """What a run may come to.

    samples: to label. most: queries that the budgets allow; a run never asks more. asked: queries
    that the estimate itself cost; they count towards no run. pairs: measured to their end.
    queries_a_pair: their mean; None where there are none. expected: queries of the run; None where
    nothing was asked. seconds_a_query: of the teacher, in calls of `batch` images; None likewise.
    surrogate_seconds_a_query: what the surrogate takes of this machine beside that; None without
    one, or where no pair was measured.
    """

    samples: int
    most: int
    asked: int = 0
    pairs: int = 0
    queries_a_pair: float | None = None
    expected: int | None = None
    seconds_a_query: float | None = None
    batch: int = 0
    surrogate_seconds_a_query: float | None = None


def estimate_run(
    teacher: Teacher,
    images: ImageSet,
    settings: LabelSettings,
    queries: int = 400,
    *,
    surrogate: nn.Module | None = None,
) -> Estimate:
    """Estimates the labelling of `images`; asks the teacher at most `queries` times.

    Half of them decide images drawn by the seed, and time the teacher. The others measure pairs of
    a sample and one of its targets among these images, one after the other, under the limits of the
    run; one that they do not suffice for is left out. Where no pair was measured to its end, the
    run is expected to spend all it may. A pair has fewer images to start towards here than in the
    run, which makes "bd" ask somewhat less.

    Raises:
        TeacherError: the teacher failed.
        ValueError: an image is broken, whichever it is; nothing was asked then.
    """
    check_count(queries, "queries", least=0)
    teacher, images = takes_unit_images(teacher), matched(images, teacher)
    guess = surrogate_for(teacher, settings, surrogate)
    limits = divide_budget(settings, len(images), teacher.classes)
    most, may_ask = int(limits.sum()), (limits > 0).nonzero()[:, 0]
    queries = min(queries, most)
    if not queries:
        return Estimate(len(images), most)
    images.check()  # also those that are not drawn: the run would not begin with a bad one
    drawn = may_ask[draw_samples(len(may_ask), math.ceil(queries / 2), settings.seed)]
    sample, limits = images.subset(drawn), limits[drawn]
    query_batch_size = fitting_batch_size(settings.query_batch_size, teacher.image_shape)
    decisions, batch, seconds = _decide(teacher, sample, query_batch_size)
    left = queries - len(sample)
    labeller = Labeller(teacher, sample, settings, decisions, limits, guess)
    costs, asked = _measure_pairs(labeller, left)
    mean = statistics.fmean(costs) if costs else None
    expected = most
    if mean is not None:
        targets = settings.targets_among(teacher.classes)
        expected = min(most, round(len(may_ask) * (1 + mean * targets)))
    elif settings.measure == "sd":
        expected = len(may_ask)
    return Estimate(
        samples=len(images),
        most=most,
        asked=len(sample) + asked,
        pairs=len(costs),
        queries_a_pair=mean,
        expected=expected,
        seconds_a_query=seconds,
        batch=batch,
        surrogate_seconds_a_query=None if guess is None or not costs else _cost(guess, asked),
    )


def _decide(teacher: Teacher, images: ImageSet, query_batch_size: int) -> tuple[Tensor, int, float]:
    """The class of each image, images a call, and seconds a query."""
    size = min(teacher.max_batch, query_batch_size, math.ceil(len(images) / _CALLS))
    parts = torch.arange(len(images)).split(size)
    decisions, seconds = [], []
    for part in parts:
        batch = images.read(part)
        search = query_in_batches(
            lambda which, batch=batch: batch[which], torch.arange(len(part)), query_batch_size
        )
        start = time.perf_counter()
        decisions.append(run(search, teacher, Ledger(torch.ones_like(part))))
        seconds.append(time.perf_counter() - start)
    timed = slice(1, None) if len(parts) > 1 else slice(None)
    return torch.cat(decisions), size, sum(seconds[timed]) / sum(map(len, parts[timed]))


def _cost(surrogate: Surrogate, queries: int) -> float:
    """Seconds a query of what the surrogate was asked for so many queries, in whole blocks.

    A pair that is measured alone fills no block, those of a run do; so blocks are timed by
    themselves.
    """
    scoring, differentiating = surrogate.seconds_per_image()
    return (surrogate.scored * scoring + surrogate.differentiated * differentiating) / queries


def _measure_pairs(labeller: Labeller, queries: int) -> tuple[list[int], int]:
    """What each pair cost that was measured to its end, and what all cost: at most `queries`."""
    teacher, images, settings = labeller.teacher, labeller.images, labeller.settings
    decisions = labeller.decisions
    present = torch.zeros(teacher.classes, dtype=torch.bool)
    present[decisions] = True
    if settings.measure == "sd" or int(present.sum()) < 2:
        return [], 0
    generator = torch.Generator().manual_seed(settings.seed)
    costs, left = [], queries
    for index in torch.randperm(len(images), generator=generator).split(1):
        searched = labeller.targets(images.read(index), decisions[index]).searched
        within_reach = (searched[0] & present).nonzero()[:, 0]
        target = int(within_reach[torch.randint(len(within_reach), (1,), generator=generator)])
        spent, at_end = _measure_pair(labeller, index, searched, target, left)
        left -= spent
        if at_end:
            costs.append(spent)
        if not left:
            break
    return costs, queries - left


def _measure_pair(
    labeller: Labeller, index: Tensor, searched: Tensor, target: int, most: int
) -> tuple[int, bool]:
    """What the pair cost, at most `most`, and whether that was all that it would have in a run.

    index: int64 [1], of the sample. searched: [1, C] bool, its targets.
    """
    teacher, settings = labeller.teacher, labeller.settings
    limits = divide_over_targets(labeller.limits[index], searched, settings.queries_per_pair)
    limit = int(limits[0, target])
    may_spend = min(limit, most)
    ledger = Ledger(torch.tensor([may_spend], device=teacher.device))
    alone = torch.arange(teacher.classes)[None] == target
    pairs = pairs_of(teacher, labeller.images.read(index), index, alone)
    run(labeller.search(pairs, ledger, limits[0, target, None].to(teacher.device)), teacher, ledger)
    spent = int(ledger.spent)
    return spent, spent < may_spend or spent == limit
