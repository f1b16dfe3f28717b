"""The search for the labels of one chunk: samples that are measured together and share a shard."""

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
from db3kd.errors import ArgumentError
from db3kd.labelling.budgets import divide_over_targets
from db3kd.labelling.contradictions import contradicted_classes
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import Labels, Status
from db3kd.labels.targets import Targets, nearest_classes, other_classes
from db3kd.querying.device_memory import memory_limit
from db3kd.querying.driver import run_stepwise, run_until_complete
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import UNANSWERED, BudgetView, Search, fitting_batch_size
from db3kd.querying.sent_queries import SentQueries
from db3kd.querying.session import AnswerJournal, SearchTask
from db3kd.teachers.base import Teacher

_CHUNK_BYTES, _CHUNK_SHARE = 256 * 2**20, 1 / 24
"""Memory for the search state of one chunk, and the share of a GPU's memory."""

MAX_CHUNK_SAMPLES = 256
"""Maximum number of samples in a chunk: with ten classes, enough pairs to fill a teacher's batches.
"""


@dataclass(frozen=True)
class Labeller:
    """Labels any chunk of an image set whose images are already decided.

    A chunk's labels depend only on these attributes and on its samples, so chunks can be labelled
    in any order, concurrently, and in any process.

    Attributes:
        teacher: The teacher that answers the queries.
        images: The N images of the set; rays start towards them.
        settings: How distances are measured.
        decisions: [N] int64, the teacher's class for each image, -1 if the budget refused it.
        limits: [N] int64, the maximum number of queries for each sample, including its decision.
        surrogate: A surrogate of the teacher, for measure "mbd"; or None.
        contradictions: [K, 2] int64, an image and another class that an equal image is in, as
            from `EqualImages.contradictions`. Their distance is 0 and costs no query. None if
            there are no contradictions.
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
        """The images that rays start towards, for all samples."""
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
        journal: AnswerJournal | None = None,
    ) -> Labels:
        """Labels the samples at `index`.

        Args:
            index: [n] int64, indices of the samples.
            on_answers: A function that is called with the number of queries that were answered,
                batch by batch.
            journal: A journal that keeps the answers of this chunk, as for
                `db3kd.querying.driver.run`.
        """
        return run_until_complete(self.label_stepwise(index, on_answers, journal))

    def label_stepwise(
        self,
        index: Tensor,
        on_answers: Callable[[int], None] | None = None,
        journal: AnswerJournal | None = None,
        sent: SentQueries | None = None,
    ) -> SearchTask[Labels]:
        """Labels samples like `label`, but pauses like `db3kd.querying.driver.run_stepwise`.

        The search state stays on the teacher's device until the labels are complete. `sent` is that
        of `run_stepwise`.
        """
        teacher = self.teacher
        samples, decision = self.images.read(index), self.decisions[index]
        targets = self.targets(samples, decision)
        contradicted = contradicted_classes(self.contradictions, index, teacher.classes)
        searched = targets.searched | contradicted
        targets = replace(targets, searched=targets.searched & ~contradicted)
        limits = divide_over_targets(
            self.limits[index], targets.searched, self.settings.queries_per_pair
        )
        pairs = pairs_of(teacher, samples, index, targets.searched)
        ledger = Ledger(limits[targets.searched].to(teacher.device))
        if self.settings.needs_rays:
            search = self.search(pairs, ledger)
            boundary = yield from run_stepwise(search, teacher, ledger, on_answers, journal, sent)
            distance, snapshots = boundary.distance, boundary.snapshots
        else:
            distance = self.starting_points.nearest_distance(pairs)
            snapshots = dict.fromkeys(self.settings.snapshots, distance)
        queries = F.one_hot(decision.clamp_min(0), teacher.classes)
        queries[decision == UNANSWERED] = 0
        queries[targets.searched] = ledger.spent.cpu()
        distances = targets.table(distance, decision).masked_fill(contradicted, 0)
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
                count: targets.table(at_count, decision).masked_fill(contradicted, 0)
                for count, at_count in snapshots.items()
            },
        )

    def search(self, pairs: Pairs, ledger: Ledger) -> Search[Boundary]:
        """The search for the distances of pairs.

        Args:
            pairs: Samples and targets to measure.
            ledger: The budgets of the pairs, which determine their numbers of starting points.
        """
        settings, surrogate = self.settings, self.surrogate
        counts = settings.starting_points_per_pair(ledger.limits, surrogate is not None)
        rays = self.starting_points.rays(pairs, counts)
        return measure(pairs, rays, self.teacher.image_shape, settings, ledger, surrogate)

    def targets(self, samples: Tensor, decision: Tensor) -> Targets:
        """The classes to measure for samples [n, *image_shape] with decisions [n] int64."""
        classes = self.teacher.classes
        others = other_classes(decision, classes)
        count = self.settings.targets_among(classes)
        if count == classes - 1:
            return Targets(others)
        every = torch.ones_like(others)
        pairs = pairs_of(self.teacher, samples, torch.arange(len(samples)), every)
        sample_distance = self.starting_points.nearest_distance(pairs).view(others.shape)
        return Targets(nearest_classes(sample_distance, others, count), sample_distance)


def chunk_size(teacher: Teacher, settings: LabelSettings) -> int:
    """The number of samples in a chunk, limited by the memory of their searches.

    A pair with rays takes a few rows of D float32 values, for D values in an image. A GPU gets more
    samples than a CPU, because the pairs of two large images would leave it idle.
    """
    values = math.prod(teacher.image_shape)
    rows = settings.max_starting_points + 4
    if settings.measure == "mbd":
        rows = max(rows, len(settings.sign_opt.steps) + 7)
    if settings.needs_rays:
        rows *= settings.targets_among(teacher.classes)
    per_sample = rows * values * 4
    limit = memory_limit(teacher.device, _CHUNK_BYTES, _CHUNK_SHARE)
    return max(1, min(MAX_CHUNK_SAMPLES, limit // per_sample))


def surrogate_for(
    teacher: Teacher, settings: LabelSettings, network: nn.Module | None
) -> Surrogate | None:
    """Wraps a network as the surrogate of this teacher; None stays None.

    Raises:
        ValueError: If the network does not fit the teacher, or the measure uses no surrogate.
    """
    if network is None:
        return None
    check_surrogate_measure(settings)
    return Surrogate(network, teacher.image_shape, teacher.classes, teacher.device)


def check_surrogate_measure(settings: LabelSettings) -> None:
    """Raises ValueError if the measure uses no surrogate."""
    if settings.measure != "mbd":
        raise ArgumentError(
            "surrogate",
            "expected one only with measure 'mbd', which searches with it, got measure "
            f"{settings.measure!r}; pass measure='mbd', or no surrogate",
        )


def pairs_of(teacher: Teacher, samples: Tensor, index: Tensor, searched: Tensor) -> Pairs:
    """Pairs each sample with each of its targets.

    Args:
        teacher: The teacher, whose device and bounds the pairs get.
        samples: [n, *image_shape] float32.
        index: [n] int64, the samples' indices in their data set.
        searched: [n, C] bool, the targets. The pairs have the order of its True entries.
    """
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
    """The search for the distances of pairs by the settings' measure.

    Args:
        pairs: Samples and targets.
        rays: The rays of these pairs, towards their starting points.
        image_shape: Shape of one image.
        settings: How distances are measured.
        budget: The queries that each pair has spent and may still spend.
        surrogate: A surrogate of the teacher, for measure "mbd".

    Returns:
        The boundary point and distance of each pair.
    """
    query_batch_size = fitting_batch_size(
        settings.query_batch_size, image_shape, pairs.samples.device
    )
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


def _status(distances: Tensor, decided: Tensor, contradicted: Tensor) -> list[Status]:
    """The status of each sample; a class counts as reached if its distance is finite."""
    reached = distances.isfinite().sum(1).tolist()
    classes = distances.shape[1]
    return [
        "budget" if not has_decision
        else "contradictory" if in_two_classes
        else "ok" if count == classes
        else "partly reached" if count > 1
        else "unreached"
        for has_decision, in_two_classes, count in zip(
            decided.tolist(), contradicted.tolist(), reached, strict=True
        )
    ]  # fmt: skip
