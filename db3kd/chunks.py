"""The search for the labels of a chunk of samples: the piece of work that a run is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from db3kd.boundary import (
    Boundary,
    Candidates,
    Pairs,
    boundary_distance,
    minimal_boundary_distance,
    sample_distance,
)
from db3kd.driver import Flight, Ledger, fly, land
from db3kd.journal import Journal
from db3kd.label_settings import LabelSettings, divide_over_targets
from db3kd.reader import NamedImages
from db3kd.search import UNANSWERED, Purse, Search
from db3kd.store import Labels
from db3kd.teachers.base import Teacher


@dataclass(frozen=True)
class Labeller:
    """Labels any samples of an image set, by what all their labels rest on.

    decisions: [N] int64, the teacher's class of each image, UNANSWERED where it was not asked.
    limits: [N] int64, what each sample may spend, its decision included.
    """

    teacher: Teacher
    images: NamedImages
    settings: LabelSettings
    decisions: Tensor
    limits: Tensor

    @cached_property
    def candidates(self) -> Candidates:
        """Where the rays of all samples lead to."""
        settings = self.settings
        return Candidates(
            self.images, self.decisions, settings.candidates, settings.order, settings.seed
        )

    def label(
        self,
        index: Tensor,
        on_answers: Callable[[int], None] | None = None,
        journal: Journal | None = None,
    ) -> Labels:
        """The labels of the samples at `index`, int64 [n]; else as `db3kd.driver.run`."""
        return land(self.fly(index, on_answers, journal))

    def fly(
        self,
        index: Tensor,
        on_answers: Callable[[int], None] | None = None,
        journal: Journal | None = None,
    ) -> Flight[Labels]:
        """As `label`, with the pauses of `db3kd.driver.fly`.

        What is searched lies on the teacher's device until the labels are done.
        """
        teacher, settings = self.teacher, self.settings
        decision = self.decisions[index]
        pairs = pairs_of(teacher, self.images.read(index), index, decision)
        limits = divide_over_targets(
            self.limits[index], decision, teacher.classes, settings.queries_per_pair
        )
        ledger = Ledger(limits.flatten().to(teacher.device))
        search = measure(pairs, self.candidates, teacher.image_shape, settings, ledger)
        boundary = yield from fly(search, teacher, ledger, on_answers, journal)

        own_column = torch.arange(teacher.classes) == decision[:, None]

        def table(distance: Tensor) -> Tensor:
            return distance.cpu().view(own_column.shape).masked_fill(own_column, 0)

        distances = table(boundary.distance)
        labels = self.images.labels
        return Labels(
            index=index,
            decision=decision,
            distances=distances,
            queries=ledger.spent.cpu().view(own_column.shape) + own_column.long(),
            status=_status(distances, decision != UNANSWERED),
            label=None if labels is None else labels[index],
            snapshots={count: table(noted) for count, noted in boundary.snapshots.items()},
        )


def pairs_of(teacher: Teacher, samples: Tensor, index: Tensor, decision: Tensor) -> Pairs:
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


def measure(
    pairs: Pairs,
    candidates: Candidates,
    image_shape: tuple[int, ...],
    settings: LabelSettings,
    purse: Purse,
) -> Search[Boundary]:
    """The search for the distances of pairs, as the settings want them measured."""
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
