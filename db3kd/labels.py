"""Labelling a data set: the teacher's decisions, the distances to its boundaries, soft labels."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from db3kd import ops
from db3kd.boundary import (
    Boundary,
    Candidates,
    Descent,
    Pairs,
    boundary_distance,
    minimal_boundary_distance,
    sample_distance,
)
from db3kd.boundary.candidates import Order
from db3kd.boundary.contest import ask
from db3kd.data import ImageSet
from db3kd.driver import Ledger, run
from db3kd.folder import RunFolder
from db3kd.journal import Journal
from db3kd.reader import NamedImages, TensorImages
from db3kd.search import UNANSWERED, Purse, Search
from db3kd.store import Labels
from db3kd.teachers.base import Teacher, TeacherError, describe
from db3kd.validation import check_count, check_images

Measure = Literal["sd", "bd", "mbd"]

_CHUNK_BYTES = 256 * 2**20
"""Memory that the search state of one chunk of samples may take."""

_MOST_SAMPLES = 256
"""Samples searched at once: with ten classes enough pairs to fill a teacher's batches."""


class Progress(Protocol):
    """Is told what has been reached since the start; see db3kd.progress.Progress."""

    def update(
        self,
        *,
        samples: int | None = None,
        queries: int | None = None,
        mean_distance: float | None = None,
    ) -> None: ...


@dataclass(frozen=True)
class LabelSettings:
    """How samples are measured and what that may cost.

    measure: "sd", "bd" or "mbd" (sample, boundary and minimal boundary distance; DB3KD, section 3).
    candidates: images of the target class that rays of a pair start towards.
    order: "nearest" of them (L2), or "random" as published.
    mixes: rounds of "bd" towards mixtures of images; see boundary_distance.
    queries_per_pair: most queries for one (sample, target). "sd" spends none of them.
    queries_per_sample: most queries for one sample, its own decision included; what the decision
        leaves is divided evenly over its targets.
    queries: most queries of the whole run, divided evenly over the samples beforehand, so that what
        a sample may spend does not depend on the others.
    snapshots: numbers of queries per pair at which the distances are noted as well.
    tolerance: width of the last bracket of "bd", also where "mbd" starts from it, as a share of the
        distance. A descent from a point well inside the class misjudges its probes.
    descent: settings of "mbd".
    seed: of everything random.
    rows: images built at once for a batch of queries.
    """

    measure: Measure = "mbd"
    candidates: int = 20
    order: Order = "nearest"
    mixes: int = 0
    queries_per_pair: int = 1000
    queries_per_sample: int | None = None
    queries: int | None = None
    snapshots: tuple[int, ...] = ()
    tolerance: float = 1e-3
    descent: Descent = field(default_factory=Descent)
    seed: int = 0
    rows: int = 2048

    def __post_init__(self) -> None:
        if self.measure not in ("sd", "bd", "mbd"):
            raise ValueError(f"measure: expected 'sd', 'bd' or 'mbd', got {self.measure!r}")
        check_count(self.candidates, "candidates")
        check_count(self.rows, "rows")
        check_count(self.mixes, "mixes", least=0)
        check_count(self.queries_per_pair, "queries_per_pair", least=0)
        for name in ("queries_per_sample", "queries"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name, least=0)
        for count in self.snapshots:
            check_count(count, "snapshots", least=0)
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance: expected a share in (0, 1), got {self.tolerance}")

    @classmethod
    def published(cls, measure: Measure = "mbd", **changes: object) -> "LabelSettings":
        """The settings of the paper's experiments (DB3KD, section 4), as far as they carry over.

        21 random images for SD, 201 for BD and MBD, brackets of 1e-5, and up to 20,000 queries a
        pair spent by the descent on 200 Gaussian probes a round.
        """
        settings = cls(
            measure=measure,
            candidates=21 if measure == "sd" else 201,
            order="random",
            mixes=0,
            queries_per_pair=20_000,
            tolerance=1e-5,
            descent=Descent.published(),
        )
        return dataclasses.replace(settings, **changes)


def label(
    teacher: Teacher,
    images: ImageSet | Tensor,
    settings: LabelSettings | None = None,
    *,
    index: Tensor | None = None,
    progress: Progress | None = None,
) -> Labels:
    """What `label_chunks` yields, as one."""
    chunks = label_chunks(teacher, images, settings, index=index, progress=progress)
    return Labels.concat(list(chunks))


def label_chunks(
    teacher: Teacher,
    images: ImageSet | Tensor,
    settings: LabelSettings | None = None,
    *,
    index: Tensor | None = None,
    progress: Progress | None = None,
    folder: RunFolder | None = None,
) -> Iterator[Labels]:
    """Labels images, a chunk of samples at a time.

    images: an image set of the teacher's image shape, or a float32 tensor [N, *image_shape] inside
    its bounds. index: int64 [n], which of them to label, in this order; all by default. folder:
    keeps each answer until the shard of its chunk is committed, at the chunk's place in `index`,
    and gives the answers it has; chunks that have a shard are left out.

    First each image is decided (one query), also those not to be labelled, for rays start towards
    them; then a sample's distance to every other class is measured. Memory does not grow with N but
    for one class number an image. A sample that its data set puts in another class than the teacher
    does is labelled by the teacher's decision. The distance to a class without images, or that was
    not reached, is +inf; that of the own class is 0. A sample that no query was left for has the
    decision -1.

    Raises ValueError for images that do not fit the teacher, and TeacherError where the teacher
    fails, or puts all images in one class: then there is no boundary to measure.
    """
    settings = settings or LabelSettings()
    images = _checked_images(teacher, images)
    index = _checked_index(index, len(images))
    return _Labelling(teacher, images, settings, _Meter(progress), folder).chunks(index)


def with_soft_labels(
    labels: Labels,
    *,
    normalisation: ops.Normalisation = "margin",
    scale: float = 1.0,
    temperature: float = 1.0,
) -> Labels:
    """`labels` with soft labels made of its distances; see db3kd.ops.soft_labels.

    A sample without a decision gets the uniform distribution.
    """
    decided = labels.decision != UNANSWERED
    soft = torch.full_like(labels.distances, 1 / labels.classes)
    soft[decided] = ops.soft_labels(
        labels.distances[decided],
        labels.decision[decided],
        normalisation=normalisation,
        scale=scale,
        temperature=temperature,
    )
    return dataclasses.replace(labels, soft_labels=soft)


def divide_budget(settings: LabelSettings, samples: int, classes: int) -> Tensor:
    """[samples] int64: what each sample may spend in all.

    A remainder of the run's budget goes to the first samples.
    """
    limit = 1 + (classes - 1) * (0 if settings.measure == "sd" else settings.queries_per_pair)
    if settings.queries_per_sample is not None:
        limit = min(limit, settings.queries_per_sample)
    limits = torch.full((samples,), limit, dtype=torch.int64)
    if settings.queries is not None:
        share, rest = divmod(settings.queries, samples)
        limits = limits.clamp_max(share + (torch.arange(samples) < rest).long())
    return limits


def _checked_images(teacher: Teacher, images: ImageSet | Tensor) -> NamedImages:
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none")
    if isinstance(images, Tensor):
        check_images(images, teacher.image_shape, teacher.bounds)
        return TensorImages(images)
    if tuple(images.image_shape) != tuple(teacher.image_shape):
        raise ValueError(
            f"images: expected shape {tuple(teacher.image_shape)} as teacher {describe(teacher)} "
            f"takes, got {tuple(images.image_shape)} from {images.name}"
        )
    if images.labels is not None and int(images.labels.max()) >= teacher.classes:
        raise ValueError(
            f"images: expected labels in [0, {teacher.classes}) as teacher {describe(teacher)} has "
            f"{teacher.classes} classes, got {int(images.labels.max())} in {images.name}"
        )
    return images


def _checked_index(index: Tensor | None, count: int) -> Tensor:
    if index is None:
        return torch.arange(count)
    if index.dtype != torch.int64 or index.ndim != 1:
        raise TypeError(f"index: expected int64 [n], got {list(index.shape)} {index.dtype}")
    if not len(index) or not 0 <= int(index.min()) <= int(index.max()) < count:
        raise ValueError(f"index: expected at least one number in [0, {count}), got {index}")
    return index


class _Meter:
    """Adds up what a run has done and passes it on."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._queries = 0
        self._samples = 0
        self._distance = torch.zeros(2, dtype=torch.float64)

    def queries(self, answered: int) -> None:
        self._queries += answered
        if self._progress is not None:
            self._progress.update(queries=self._queries)

    def chunk(self, labels: Labels) -> None:
        self._samples += len(labels)
        reached = labels.distances[labels.distances.isfinite() & (labels.distances > 0)].double()
        self._distance += torch.stack([reached.sum(), torch.tensor(float(len(reached)))])
        if self._progress is not None:
            total, count = self._distance.tolist()
            self._progress.update(
                samples=self._samples, mean_distance=total / count if count else None
            )


@dataclass(frozen=True)
class _Labelling:
    """One call of `label_chunks`, its arguments checked."""

    teacher: Teacher
    images: NamedImages
    settings: LabelSettings
    meter: _Meter
    folder: RunFolder | None

    def chunks(self, index: Tensor) -> Iterator[Labels]:
        limits = divide_budget(self.settings, len(self.images), self.teacher.classes)
        decisions = self._decide_all(limits)
        candidates = Candidates(
            self.images,
            decisions,
            self.settings.candidates,
            self.settings.order,
            self.settings.seed,
        )
        size = chunk_size(self.teacher, self.settings)
        for position in range(0, len(index), size):
            if self.folder is not None and self.folder.has_shard(position):
                continue
            part = index[position : position + size]
            with self._journal(position) as journal:
                labels = self._chunk(part, decisions[part], limits[part], candidates, journal)
            self.meter.chunk(labels)
            yield labels

    def _journal(self, of: int | str) -> AbstractContextManager[Journal | None]:
        if self.folder is None:
            return nullcontext()
        return self.folder.journal(of, self.teacher.classes)

    def _decide_all(self, limits: Tensor) -> Tensor:
        """[N] int64: the teacher's class of each image, UNANSWERED where its limit is 0."""
        teacher, images, rows = self.teacher, self.images, self.settings.rows
        decisions = torch.full((len(images),), UNANSWERED)
        with self._journal("decisions") as journal:
            for index in (limits > 0).nonzero()[:, 0].split(rows):
                batch = images.read(index)
                check_images(batch, teacher.image_shape, teacher.bounds, f"images of {images.name}")
                ledger = Ledger(torch.ones_like(index))
                everyone = torch.arange(len(index))
                search = ask(lambda rows, batch=batch: batch[rows], everyone, rows)
                decisions[index] = run(search, teacher, ledger, self.meter.queries, journal)
        decided = decisions[decisions != UNANSWERED]
        if len(decided) > 1 and bool((decided == decided[0]).all()):
            raise TeacherError(
                f"teacher {describe(teacher)} put all {len(decided)} images of {images.name} in "
                f"class {int(decided[0])}: expected at least two classes, there is no boundary to "
                "measure"
            )
        return decisions

    def _chunk(
        self,
        index: Tensor,
        decision: Tensor,
        limits: Tensor,
        candidates: Candidates,
        journal: Journal | None,
    ) -> Labels:
        teacher, settings, images = self.teacher, self.settings, self.images
        pairs = _pairs(teacher, images.read(index), index, decision)
        pair_limits = _pair_limits(limits, decision, teacher.classes, settings.queries_per_pair)
        ledger = Ledger(pair_limits.flatten().to(teacher.device))
        search = _measure(pairs, candidates, teacher.image_shape, settings, ledger)
        boundary = run(search, teacher, ledger, self.meter.queries, journal)

        own_column = torch.arange(teacher.classes) == decision[:, None]

        def table(distance: Tensor) -> Tensor:
            return distance.cpu().view(own_column.shape).masked_fill(own_column, 0)

        distances = table(boundary.distance)
        return Labels(
            index=index,
            decision=decision,
            distances=distances,
            queries=ledger.spent.cpu().view(own_column.shape) + own_column.long(),
            status=_status(distances, decision != UNANSWERED),
            label=None if images.labels is None else images.labels[index],
            snapshots={count: table(noted) for count, noted in boundary.snapshots.items()},
        )


def _pairs(teacher: Teacher, samples: Tensor, index: Tensor, decision: Tensor) -> Pairs:
    """Each sample with every class; nothing is wanted of its own, or where it has no decision."""
    device, classes = teacher.device, teacher.classes
    target = torch.arange(classes).repeat(len(index))
    own = decision.repeat_interleave(classes)
    searched = (target != own) & (own != UNANSWERED)
    return Pairs(
        samples=samples.flatten(1).to(device),
        sample_index=index.to(device),
        sample_of=torch.arange(len(index), device=device).repeat_interleave(classes),
        wanted=torch.where(searched, target, UNANSWERED).to(device),
        bounds=teacher.bounds,
    )


def _measure(
    pairs: Pairs,
    candidates: Candidates,
    image_shape: tuple[int, ...],
    settings: LabelSettings,
    purse: Purse,
) -> Search[Boundary]:
    rays = candidates.rays(pairs)
    if settings.measure == "sd":
        return sample_distance(pairs, rays, settings.snapshots)
    boundary = yield from boundary_distance(
        pairs,
        rays,
        mixes=settings.mixes if settings.measure == "bd" else 0,
        relative=settings.tolerance,
        rows=settings.rows,
        purse=purse,
        snapshots=settings.snapshots,
    )
    if settings.measure == "mbd":
        yield from minimal_boundary_distance(
            pairs,
            boundary,
            image_shape,
            settings.descent,
            seed=settings.seed,
            rows=settings.rows,
            purse=purse,
        )
    return boundary


def _pair_limits(limits: Tensor, decision: Tensor, classes: int, most: int) -> Tensor:
    """[n, C] int64: the sample limits, less the own decision, divided over the targets.

    A remainder goes to the first targets. The own column is 0: that query is paid already.
    """
    share = (limits - 1).clamp_min(0)[:, None]
    target = torch.arange(classes)[None]
    own = decision[:, None]
    place = target - (target > own).long()
    each = share // (classes - 1) + (place < share % (classes - 1)).long()
    return each.clamp_max(most).masked_fill((target == own) | (own == UNANSWERED), 0)


def _status(distances: Tensor, decided: Tensor) -> list[str]:
    """A sample's row in words; its own class is always reached."""
    reached = distances.isfinite().sum(1).tolist()
    classes = distances.shape[1]
    return [
        "budget" if not asked
        else "ok" if count == classes
        else "partly reached" if count > 1
        else "unreached"
        for asked, count in zip(decided.tolist(), reached, strict=True)
    ]  # fmt: skip


def chunk_size(teacher: Teacher, settings: LabelSettings) -> int:
    """Samples a chunk: as many as memory holds the searches of, a few rows of D floats a pair."""
    values = math.prod(teacher.image_shape)
    rows = settings.candidates + 4
    if settings.measure == "mbd":
        rows = max(rows, len(settings.descent.steps) + 6)
    per_sample = teacher.classes * rows * values * 4
    return max(1, min(_MOST_SAMPLES, _CHUNK_BYTES // per_sample))
