"""Counts and means over the labels of a run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from db3kd.labelling.image_decisions import DECISIONS
from db3kd.labelling.runs.absent_classes import absent_classes, describe_absent_classes
from db3kd.labels.label_files import iterate_shards
from db3kd.labels.labels import LABELS, SURROGATES, Labels
from db3kd.labels.targets import other_classes
from db3kd.querying.consistency import queries_of_checks
from db3kd.querying.search import UNANSWERED
from db3kd.storage.run_journals import answers_in_stage, journaled_answers
from db3kd.wording import InputNoun, counted


@dataclass
class Totals:
    """The totals of a run so far. Its memory does not grow with the run.

    Attributes:
        samples: The number of samples.
        classes: The number of classes; 0 without samples.
        queries: The number of queries.
        pairs: Pairs of a sample and another class.
        reached: Pairs whose distance was measured and is finite.
        estimated: Pairs that were not searched and have an estimate.
        mean_distance: The mean over the reached pairs, L2 in input units; None if there are none.
        statuses: The number of samples with each status.
        disagreements: Samples whose class according to the teacher differs from the data set's.
        surrogate_queries: The queries that trained the run's own surrogate, on top of `queries`.
        check_queries: The queries that repeated known answers, on top of `queries`.
        unlabelled_queries: The queries that decided images outside of the index of the run, which
            are starting points only, on top of `queries`.
        absent_classes: The classes that the teacher chose for no image, so that no search can
            reach them.
    """

    samples: int = 0
    classes: int = 0
    queries: int = 0
    pairs: int = 0
    reached: int = 0
    estimated: int = 0
    mean_distance: float | None = None
    statuses: Counter[str] = field(default_factory=Counter)
    disagreements: int = 0
    surrogate_queries: int = 0
    check_queries: int = 0
    unlabelled_queries: int = 0
    absent_classes: list[int] = field(default_factory=list)

    def add(self, labels: Labels) -> None:
        """Adds the labels of more samples."""
        distances = labels.measured_distances
        total = (self.mean_distance or 0.0) * self.reached + distances.sum().item()
        self.samples += len(labels)
        self.classes = labels.classes
        self.queries += int(labels.queries.sum())
        self.pairs += len(labels) * (labels.classes - 1)
        self.reached += len(distances)
        others = other_classes(labels.decision, labels.classes)
        estimated = others & ~labels.targets & labels.distances.isfinite()
        self.estimated += int(estimated.sum())
        self.mean_distance = total / self.reached if self.reached else None
        self.statuses.update(labels.status)
        if labels.label is not None:
            known = (labels.label >= 0) & (labels.decision != UNANSWERED)
            self.disagreements += int((known & (labels.label != labels.decision)).sum())

    @property
    def decided(self) -> int:
        """The number of samples that were decided, which took one query each."""
        return self.samples - self.statuses["budget"]

    @property
    def search_queries(self) -> int:
        """The queries that measured distances, as `Labels.search_queries`."""
        return self.queries - self.decided

    @property
    def other_queries(self) -> int:
        """The queries that no sample accounts for: what a run sent on top of `queries`."""
        return self.surrogate_queries + self.check_queries + self.unlabelled_queries

    @property
    def queries_per_sample(self) -> float:
        """The mean number of queries per sample, without `other_queries`."""
        return self.queries / max(1, self.samples)

    @property
    def statuses_text(self) -> str:
        """How many samples have each status, as one line."""
        return ", ".join(f"{count:,} {status}" for status, count in self.statuses.most_common())

    def describe(self, class_names: Sequence[str] | None, noun: InputNoun) -> dict[str, str]:
        """Describes what was measured, and what was not and why, without the queries.

        Args:
            class_names: The names of the classes; their numbers by default.
            noun: What the text calls an image.

        Returns:
            Clauses, keyed by short titles such as "mean distance".
        """
        undecided, contradictory = self.statuses["budget"], self.statuses["contradictory"]
        rows = {}
        if undecided:
            rows["not labelled"] = (
                f"{counted(undecided, 'sample')} (status budget), whose decision the budget did "
                "not cover"
            )
        rows["mean distance"] = "no class was reached"
        if self.mean_distance is not None:
            rows["mean distance"] = f"{self.mean_distance:.3f} (L2)"
        rows["pairs reached"] = f"{self.reached:,} of {self.pairs:,} (sample and other class)"
        if self.absent_classes and self.decided:
            rows["not reachable"] = describe_absent_classes(
                self.absent_classes,
                self.classes,
                self.decided,
                undecided=undecided,
                class_names=class_names,
                noun=noun,
            )
        if self.estimated:
            rows["not searched"] = (
                f"{counted(self.estimated, 'pair')}, whose distances are estimated"
            )
        if contradictory:
            rows["contradictory"] = (
                f"{counted(contradictory, 'sample')}: the teacher put equal {noun}s in different "
                "classes, so it is noisy or was replaced"
            )
        if self.disagreements:
            rows["disagreement"] = (
                f"the teacher puts {self.disagreements:,} of {counted(self.samples, 'sample')} in "
                "another class than the data set does; labels follow the teacher"
            )
        return rows


def add_up(path: Path, manifest: Mapping[str, Any]) -> Totals:
    """The totals of a run's shards, read from disk so that interruptions do not affect them.

    Before the last shard is written, `unlabelled_queries` also counts images that have no shard.

    Args:
        path: The run folder.
        manifest: Its manifest.
    """
    totals = totals_of_shards(path)
    return replace(
        totals,
        unlabelled_queries=max(0, len(answers_in_stage(path, LABELS, DECISIONS)) - totals.decided),
        surrogate_queries=queries_of_surrogate(manifest),
        check_queries=queries_of_checks(manifest),
        absent_classes=absent_classes(path, totals.classes),
    )


def queries_of_surrogate(manifest: Mapping[str, Any]) -> int:
    """The queries that trained a run's own surrogate, on top of those of its labels."""
    return sum(note["queries"] for note in manifest.get(SURROGATES, ()))


def totals_of_shards(path: Path) -> Totals:
    """The totals of the shards in a folder, without the queries of a surrogate and of checks."""
    totals = Totals()
    for _, labels in iterate_shards(path, missing_ok=True):
        totals.add(labels)
    return totals


def answered_in_label_folder(path: Path, totals: Totals) -> int:
    """Returns the number of answered queries in a run folder of labels, without those of checks.

    Args:
        path: The folder, with or without a run.
        totals: From `totals_of_shards`.
    """
    # The journal of the decisions, which is kept, holds the queries of the images themselves.
    return journaled_answers(path) + totals.search_queries


def distance_against_queries(labels: Labels) -> tuple[list[float], list[float]]:
    """The mean distance at each snapshot and at the end, against queries per pair.

    All means are over the pairs whose class was reached at every point. The last point is at the
    mean number of queries spent, and snapshots beyond it are left out.

    Returns:
        The numbers of queries, and the mean distances.
    """
    targets = labels.targets
    spent = labels.queries[targets].double().mean().item()
    points = [(float(count), labels.snapshots[count]) for count in sorted(labels.snapshots)]
    points = [(count, distances) for count, distances in points if count < spent]
    points.append((spent, labels.distances))
    at_points = torch.stack([distances[targets] for _, distances in points]).double()
    at_points = at_points[:, at_points.isfinite().all(0)]
    return [count for count, _ in points], at_points.mean(1).tolist()
