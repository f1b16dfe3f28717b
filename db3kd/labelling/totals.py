"""What the labels of a run come to, counted."""

from collections import Counter
from dataclasses import dataclass, field

import torch

from db3kd.labelling.label_files import iterate_shards
from db3kd.labelling.labels import Labels
from db3kd.labelling.targets import other_classes
from db3kd.querying.search import UNANSWERED
from db3kd.storage.run_folder import RunFolder


@dataclass
class Totals:
    """What a run has come to so far; memory does not grow with it.

    samples, queries: counted.
    pairs, reached: pairs of a sample and another class, and those whose class was reached.
    estimated: pairs that were not searched, whose distance is an estimate.
    mean_distance: over the reached pairs, L2 in input units; None where there are none.
    statuses: samples by status.
    disagreements: samples that the teacher puts in another class than their data set does.
    """

    samples: int = 0
    queries: int = 0
    pairs: int = 0
    reached: int = 0
    estimated: int = 0
    mean_distance: float | None = None
    statuses: Counter[str] = field(default_factory=Counter)
    disagreements: int = 0

    def add(self, labels: Labels) -> None:
        distances = labels.measured_distances
        total = (self.mean_distance or 0.0) * self.reached + distances.sum().item()
        self.samples += len(labels)
        self.queries += int(labels.queries.sum())
        self.pairs += len(labels) * (labels.classes - 1)
        self.reached += len(distances)
        self.estimated += count_estimates(labels)
        self.mean_distance = total / self.reached if self.reached else None
        self.statuses.update(labels.status)
        self.disagreements += count_disagreements(labels)

    @property
    def decided(self) -> int:
        """Samples whose own decision was paid for."""
        return self.samples - self.statuses["budget"]

    @property
    def queries_per_sample(self) -> float:
        return self.queries / max(1, self.samples)


def add_up(run: RunFolder) -> Totals:
    """The totals of what is committed, read back, so that a run stopped on its way has the same."""
    totals = Totals()
    for _, labels in iterate_shards(run.path) if run.has_shards else ():
        totals.add(labels)
    return totals


def count_estimates(labels: Labels) -> int:
    """Pairs of a sample and another class that have a distance without having been searched."""
    others = other_classes(labels.decision, labels.classes)
    return int((others & ~labels.targets & labels.distances.isfinite()).sum())


def count_disagreements(labels: Labels) -> int:
    """Samples that the teacher puts in another class than their data set does."""
    if labels.label is None:
        return 0
    known = (labels.label >= 0) & (labels.decision != UNANSWERED)
    return int((known & (labels.label != labels.decision)).sum())


def distance_against_queries(labels: Labels) -> tuple[list[float], list[float]]:
    """Mean distance at each snapshot and at the end, against queries per pair.

    The last point lies at the mean number spent, and a snapshot beyond it adds nothing. A pair
    counts where its class was reached at every point, so that all means are over the same pairs.
    """
    other = labels.targets
    spent = labels.queries[other].double().mean().item()
    points = [(float(count), labels.snapshots[count]) for count in sorted(labels.snapshots)]
    points = [(count, noted) for count, noted in points if count < spent]
    points.append((spent, labels.distances))
    everywhere = torch.stack([noted[other] for _, noted in points]).double()
    everywhere = everywhere[:, everywhere.isfinite().all(0)]
    return [count for count, _ in points], everywhere.mean(1).tolist()
