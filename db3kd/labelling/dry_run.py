"""A dry run: estimates the queries and the time of a labelling from a few real queries."""

import math
import statistics
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from db3kd.boundary.surrogate import Surrogate
from db3kd.data.class_names import matched
from db3kd.data.image_set import ImageSet
from db3kd.labelling.budgets import divide_budget, divide_over_targets
from db3kd.labelling.chunk_search import Labeller, pairs_of, surrogate_for
from db3kd.labelling.consistency import allowed_checks
from db3kd.labelling.run_surrogate import SurrogatePlanner, plan_surrogate
from db3kd.labelling.sample_choice import draw_samples
from db3kd.labelling.settings import LabelSettings
from db3kd.querying.driver import decide_all, run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import fitting_batch_size
from db3kd.teachers import Teacher
from db3kd.teachers.rescaled import takes_unit_images
from db3kd.validation import check_count

_CALLS = 4
"""The images of an estimate are decided in this many calls; the first warms up and is not timed."""


@dataclass(frozen=True)
class Estimate:
    """An estimate of a run.

    Attributes:
        samples: The number of samples to label.
        max_queries: Maximum number of queries that the budgets allow.
        asked: Queries that the estimate itself has spent; they do not count towards a run.
        measured_pairs: The number of pairs that were measured completely.
        queries_per_pair: The mean number of queries of these pairs; None if there are none.
        expected_queries: The expected queries of the run; None without queries.
        seconds_per_query: The teacher's time per query, in calls of `batch_size` images; None
            without queries.
        batch_size: Images in one timed call.
        surrogate_seconds_per_query: Additional time of the surrogate on this machine; None without
            a surrogate, or if no pair was measured.
        surrogate_queries: The queries of the run that train its surrogate. They count towards
            `max_queries` and `expected_queries`.
        surrogate_why: Why the run trains a surrogate, or why not; empty if it need not decide.
    """

    samples: int
    max_queries: int
    asked: int = 0
    measured_pairs: int = 0
    queries_per_pair: float | None = None
    expected_queries: int | None = None
    seconds_per_query: float | None = None
    batch_size: int = 0
    surrogate_seconds_per_query: float | None = None
    surrogate_queries: int = 0
    surrogate_why: str = ""


def estimate_run(
    teacher: Teacher,
    images: ImageSet,
    settings: LabelSettings,
    queries: int = 400,
    *,
    surrogate: nn.Module | SurrogatePlanner | None = None,
    consistency_checks: int = 0,
) -> Estimate:
    """Estimates the queries and the time of labelling `images`.

    Half of the queries decide images drawn with the settings' seed, and time the teacher. The other
    half measures pairs of these images one after the other, with the budgets of the run; a pair
    that the remaining queries do not cover is left out. If no pair is measured completely, the run
    is expected to spend its full budgets. A pair has fewer starting points here than in the run, so
    the estimate is somewhat low for "bd".

    Args:
        teacher: The teacher of the run.
        images: The images to label.
        settings: The settings of the run.
        queries: Maximum number of queries to spend.
        surrogate: The surrogate of the run, or None. One that the run is to train itself is not
            trained for the estimate.
        consistency_checks: The consistency checks of the run, which get a part of its budget.

    Raises:
        TeacherError: If the teacher fails.
        ValueError: If any image is invalid; no query is spent in that case.
    """
    check_count(queries, "queries", least=0)
    teacher, images = takes_unit_images(teacher), matched(images, teacher)
    checks = allowed_checks(consistency_checks, settings.queries)
    if settings.queries is not None:
        settings = replace(settings, queries=settings.queries - checks)
    planned = plan_surrogate(surrogate, teacher, len(images), settings)
    estimate = _estimate(teacher, images, planned.settings, queries, planned.network)
    of_surrogate = planned.queries
    if estimate.expected_queries is not None:
        estimate = replace(estimate, expected_queries=estimate.expected_queries + of_surrogate)
    return replace(
        estimate,
        max_queries=estimate.max_queries + of_surrogate + checks,
        surrogate_queries=of_surrogate,
        surrogate_why=planned.why,
    )


def _estimate(
    teacher: Teacher,
    images: ImageSet,
    settings: LabelSettings,
    queries: int,
    surrogate: nn.Module | None,
) -> Estimate:
    """Estimates what labelling costs, without the training of a surrogate."""
    fitted_surrogate = surrogate_for(teacher, settings, surrogate)
    limits = divide_budget(settings, len(images), teacher.classes)
    max_queries, affordable = int(limits.sum()), (limits > 0).nonzero()[:, 0]
    queries = min(queries, max_queries)
    if not queries:
        return Estimate(len(images), max_queries)
    images.check()  # all images, because a run refuses a set with an invalid one
    drawn = affordable[draw_samples(len(affordable), math.ceil(queries / 2), settings.seed)]
    sample, limits = images.subset(drawn), limits[drawn]
    batch_size = fitting_batch_size(settings.query_batch_size, teacher.image_shape, teacher.device)
    batch_size = min(teacher.max_batch, batch_size, math.ceil(len(sample) / _CALLS))
    decisions, seconds = _time_decisions(teacher, sample, batch_size)
    labeller = Labeller(teacher, sample, settings, decisions, limits, fitted_surrogate)
    costs, asked = _measure_pairs(labeller, queries - len(sample))
    mean = statistics.fmean(costs) if costs else None
    expected = max_queries
    if mean is not None:
        targets = settings.targets_among(teacher.classes)
        expected = min(max_queries, round(len(affordable) * (1 + mean * targets)))
    elif settings.measure == "sd":
        expected = len(affordable)
    return Estimate(
        samples=len(images),
        max_queries=max_queries,
        asked=len(sample) + asked,
        measured_pairs=len(costs),
        queries_per_pair=mean,
        expected_queries=expected,
        seconds_per_query=seconds,
        batch_size=batch_size,
        surrogate_seconds_per_query=(
            _surrogate_seconds(fitted_surrogate, asked)
            if fitted_surrogate is not None and costs
            else None
        ),
    )


def _time_decisions(teacher: Teacher, images: ImageSet, batch_size: int) -> tuple[Tensor, float]:
    """Decides images in batches; returns the decisions, `[N] int64`, and the seconds per query."""
    parts = torch.arange(len(images)).split(batch_size)
    decisions, seconds = [], []
    for part in parts:
        batch = images.read(part)
        start = time.perf_counter()
        decisions.append(
            decide_all(teacher, batch.__getitem__, torch.arange(len(batch)), batch_size)
        )
        seconds.append(time.perf_counter() - start)
    timed = slice(1, None) if len(parts) > 1 else slice(None)
    return torch.cat(decisions), sum(seconds[timed]) / sum(map(len, parts[timed]))


def _surrogate_seconds(surrogate: Surrogate, queries: int) -> float:
    """The time that the surrogate takes per query of a run.

    A single pair does not fill a block of the surrogate, but the pairs of a run do. Therefore full
    blocks are timed separately.
    """
    scoring, differentiating = surrogate.seconds_per_image()
    return (surrogate.scored * scoring + surrogate.differentiated * differentiating) / queries


def _measure_pairs(labeller: Labeller, queries: int) -> tuple[list[int], int]:
    """Measures pairs one after the other, with at most `queries` queries in total.

    Returns:
        The queries of each completely measured pair, and the total over all pairs.
    """
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
        possible = (searched[0] & present).nonzero()[:, 0]
        target = int(possible[torch.randint(len(possible), (1,), generator=generator)])
        spent, complete = _measure_pair(labeller, index, searched, target, left)
        left -= spent
        if complete:
            costs.append(spent)
        if not left:
            break
    return costs, queries - left


def _measure_pair(
    labeller: Labeller, index: Tensor, searched: Tensor, target: int, max_queries: int
) -> tuple[int, bool]:
    """Measures one pair with at most `max_queries` queries.

    Args:
        labeller: The labeller of the sample.
        index: `[1] int64`, the index of the sample.
        searched: `[1, C] bool`, its targets.
        target: The target to measure.
        max_queries: Maximum number of queries to spend.

    Returns:
        The queries that the pair spent, and whether its measurement is complete.
    """
    teacher, settings = labeller.teacher, labeller.settings
    limits = divide_over_targets(labeller.limits[index], searched, settings.queries_per_pair)
    limit = int(limits[0, target])
    budget = min(limit, max_queries)
    ledger = Ledger(torch.tensor([budget], device=teacher.device))
    alone = torch.arange(teacher.classes)[None] == target
    pairs = pairs_of(teacher, labeller.images.read(index), index, alone)
    run(labeller.search(pairs, ledger, limits[0, target, None].to(teacher.device)), teacher, ledger)
    spent = int(ledger.spent)
    return spent, spent < budget or spent == limit
