"""The search for the labels of a chunk of samples: the piece of work that a run is made of."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.boundary import (
    TOLERANCE_WITH_SURROGATE,
    Boundary,
    Pairs,
    Rays,
    StartingPoints,
    Surrogate,
    boundary_distance,
    minimal_boundary_distance,
    sample_distance,
)
from db3kd.data.image_source import NamedImages
from db3kd.labelling.budgets import divide_over_targets
from db3kd.labelling.contradictions import contradicted_classes
from db3kd.labelling.labels import Labels
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.targets import estimate_unsearched, nearest_classes, other_classes
from db3kd.querying.driver import run_stepwise, run_until_complete
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import UNANSWERED, BudgetView, Search, fitting_batch_size
from db3kd.querying.session import SearchTask
from db3kd.storage.journal import Journal
from db3kd.teachers.base import Teacher

_CHUNK_BYTES = 256 * 2**20
"""Memory that the search state of one chunk of samples may take."""

_MAX_CHUNK_SAMPLES = 256
"""Samples searched at once: with ten classes enough pairs to fill a teacher's batches."""


@dataclass(frozen=True)
class Labeller:
    """Labels any samples of an image set, by what all their labels rest on.

    decisions: [N] int64, the teacher's class of each image, UNANSWERED where it was not asked.
    limits: [N] int64, what each sample may spend, its decision included. surrogate: of the teacher,
    for "mbd". contradictions: [K, 2] int64, images and classes that equal images are in; the
    distance between them is 0, and nothing is spent on it. None for none.
    """

    teacher: Teacher
    images: NamedImages
    settings: LabelSettings
    decisions: Tensor
    limits: Tensor
    surrogate: Surrogate | None = None
    contradictions: Tensor | None = None

    @cached_property
    def starting_points(self) -> StartingPoints:
        """Where the rays of all samples lead to."""
        settings = self.settings
        return StartingPoints(
            self.images,
            self.decisions,
            settings.max_starting_points,
            settings.order,
            settings.seed,
            settings.candidate_pool,
        )

    def label(
        self,
        index: Tensor,
        on_answers: Callable[[int], None] | None = None,
        journal: Journal | None = None,
    ) -> Labels:
        """The labels of the samples at `index`, int64 [n]; else as `db3kd.querying.driver.run`."""
        return run_until_complete(self.run_stepwise(index, on_answers, journal))

    def run_stepwise(
        self,
        index: Tensor,
        on_answers: Callable[[int], None] | None = None,
        journal: Journal | None = None,
    ) -> SearchTask[Labels]:
        """As `label`, with the pauses of `db3kd.querying.driver.run_stepwise`.

        What is searched lies on the teacher's device until the labels are done.
        """
        teacher, settings = self.teacher, self.settings
        samples, decision = self.images.read(index), self.decisions[index]
        targets, contradicted = self.targets(samples, decision), self._contradicted(index)
        searched = targets.searched | contradicted
        targets = replace(targets, searched=targets.searched & ~contradicted)
        limits = divide_over_targets(
            self.limits[index], targets.searched, settings.queries_per_pair
        )
        ledger = Ledger(limits[targets.searched].to(teacher.device))
        pairs = pairs_of(teacher, samples, index, targets.searched)
        search = self.search(pairs, ledger, ledger.limits)
        boundary = yield from run_stepwise(search, teacher, ledger, on_answers, journal)
        queries = F.one_hot(decision.clamp_min(0), teacher.classes)
        queries[decision == UNANSWERED] = 0
        queries[targets.searched] = ledger.spent.cpu()
        distances = targets.table(boundary.distance, decision).masked_fill(contradicted, 0)
        labels = self.images.labels
        return Labels(
            index=index,
            decision=decision,
            distances=distances,
            queries=queries,
            status=_status(distances, decision != UNANSWERED, contradicted.any(1)),
            label=None if labels is None else labels[index],
            searched=None if targets.sample_distance is None else searched,
            snapshots={
                count: targets.table(noted, decision).masked_fill(contradicted, 0)
                for count, noted in boundary.snapshots.items()
            },
        )

    def search(self, pairs: Pairs, budget: BudgetView, limits: Tensor) -> Search[Boundary]:
        """The search for the distances of pairs. limits: [P] int64, what the run lets each spend,
        by which its candidates are counted."""
        settings, surrogate = self.settings, self.surrogate
        counts = settings.starting_points_per_pair(limits, surrogate is not None)
        rays = self.starting_points.rays(pairs, counts)
        return measure(pairs, rays, self.teacher.image_shape, settings, budget, surrogate)

    def first_query(self, index: Tensor) -> Tensor:
        """The images that the search of these samples asks first, [n, *image_shape].

        Fewer than that where a budget refuses some.
        """
        samples, decision = self.images.read(index), self.decisions[index]
        searched = self.targets(samples, decision).searched & ~self._contradicted(index)
        limits = divide_over_targets(self.limits[index], searched, self.settings.queries_per_pair)
        ledger = Ledger(limits[searched].to(self.teacher.device))
        pairs = pairs_of(self.teacher, samples, index, searched)
        search = self.search(pairs, ledger, ledger.limits)
        try:
            query = next(search)
        except StopIteration:
            return samples[:0]
        rows = ledger.affordable(query.accounts)
        images = query.images.view(len(query.images), *self.teacher.image_shape)
        return images if rows is None else images[rows]

    def _contradicted(self, index: Tensor) -> Tensor:
        """[n, C] bool, of these samples."""
        known = torch.empty(0, 2, dtype=torch.int64)
        if self.contradictions is not None:
            known = self.contradictions
        return contradicted_classes(known, index, self.teacher.classes)

    def targets(self, samples: Tensor, decision: Tensor) -> "Targets":
        """The classes to search for samples [n, *image_shape] that the teacher puts in these."""
        classes = self.teacher.classes
        others = other_classes(decision, classes)
        count = self.settings.targets_among(classes)
        if count == classes - 1:
            return Targets(others)
        every = torch.ones_like(others)
        pairs = pairs_of(self.teacher, samples, torch.arange(len(samples)), every)
        sample_distance = self.starting_points.nearest_distance(pairs).view(others.shape)
        return Targets(nearest_classes(sample_distance, others, count), sample_distance)


@dataclass(frozen=True)
class Targets:
    """Which classes of n samples are searched.

    searched: [n, C] bool. sample_distance: [n, C] float32, L2 to the nearest image of each class;
    None where all classes are searched.
    """

    searched: Tensor
    sample_distance: Tensor | None = None

    def table(self, distance: Tensor, decision: Tensor) -> Tensor:
        """[n, C] float32: the distances found, [P], and what stands in for the others."""
        table = torch.full(self.searched.shape, torch.inf)
        table[self.searched] = distance.cpu()
        if self.sample_distance is not None:
            table = estimate_unsearched(table, self.sample_distance, self.searched)
        own_column = torch.arange(table.shape[1]) == decision[:, None]
        return table.masked_fill(own_column, 0)


def surrogate_for(
    teacher: Teacher, settings: LabelSettings, network: nn.Module | None
) -> Surrogate | None:
    """The surrogate that a network is for this teacher, None for none.

    Raises ValueError where it does not fit the teacher, or the measure has no use for it.
    """
    if network is None:
        return None
    if settings.measure != "mbd":
        raise ValueError(
            f"surrogate: expected None with measure {settings.measure!r}; only 'mbd' uses one"
        )
    return Surrogate(network, teacher.image_shape, teacher.classes, teacher.device)


def pairs_of(teacher: Teacher, samples: Tensor, index: Tensor, searched: Tensor) -> Pairs:
    """Each sample with each of its targets, in the order of `searched`, [n, C] bool."""
    device = teacher.device
    sample_of, target = searched.nonzero(as_tuple=True)
    return Pairs(
        samples=samples.flatten(1).to(device),
        sample_index=index.to(device),
        sample_of=sample_of.to(device),
        criterion_class=target.to(device),
        bounds=teacher.bounds,
    )


def measure(
    pairs: Pairs,
    rays: Rays,
    image_shape: tuple[int, ...],
    settings: LabelSettings,
    budget: BudgetView,
    surrogate: Surrogate | None = None,
) -> Search[Boundary]:
    """The search for the distances of pairs from these rays, as the settings want them measured."""
    query_batch_size = fitting_batch_size(settings.query_batch_size, image_shape)
    if settings.measure == "sd":
        return sample_distance(pairs, rays, settings.snapshots)
    boundary = yield from boundary_distance(
        pairs,
        rays,
        mixup_rounds=settings.mixup_rounds if settings.measure == "bd" else 0,
        relative=settings.tolerance if surrogate is None else TOLERANCE_WITH_SURROGATE,
        query_batch_size=query_batch_size,
        budget=budget,
        snapshots=settings.snapshots,
        surrogate=surrogate,
    )
    if settings.measure == "mbd":
        yield from minimal_boundary_distance(
            pairs,
            boundary,
            image_shape,
            settings.sign_opt,
            seed=settings.seed,
            query_batch_size=query_batch_size,
            budget=budget,
            surrogate=surrogate,
        )
    return boundary


def _status(distances: Tensor, decided: Tensor, contradicted: Tensor) -> list[str]:
    """A sample's row in words; a class counts as reached where there is a distance to it."""
    reached = distances.isfinite().sum(1).tolist()
    classes = distances.shape[1]
    return [
        "budget" if not asked
        else "contradictory" if other
        else "ok" if count == classes
        else "partly reached" if count > 1
        else "unreached"
        for asked, other, count in zip(
            decided.tolist(), contradicted.tolist(), reached, strict=True
        )
    ]  # fmt: skip


def chunk_size(teacher: Teacher, settings: LabelSettings) -> int:
    """Samples a chunk: as many as memory holds the searches of, a few rows of D floats a pair."""
    values = math.prod(teacher.image_shape)
    rows = settings.max_starting_points + 4
    if settings.measure == "mbd":
        rows = max(rows, len(settings.sign_opt.steps) + 7)
    per_sample = settings.targets_among(teacher.classes) * rows * values * 4
    return max(1, min(_MAX_CHUNK_SAMPLES, _CHUNK_BYTES // per_sample))
