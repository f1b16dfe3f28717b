"""How samples are labelled, and what each may spend on it."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from db3kd.boundary import SignOptSettings
from db3kd.boundary.starting_points import Order
from db3kd.validation import check_count

Measure = Literal["sd", "bd", "mbd"]

_MOST_CANDIDATES = {"sd": 1, "bd": 20, "mbd": 10}
_QUERIES_A_CANDIDATE = 3.5
"""Candidates of a pair that a user gives no number for: as many as its queries pay for, and no more
than help. Without a surrogate these come within 3 % of the best number from 1 to 40, at any budget
that mbd was measured with (benchmarks.peers.starting_points). With one, more images lead a little
nearer, for a forward pass each."""


@dataclass(frozen=True)
class LabelSettings:
    """How samples are measured and what that may cost.

    measure: "sd", "bd" or "mbd" (sample, boundary and minimal boundary distance; DB3KD, section 3).
    starting_points: images of the target class that rays of a pair start towards; None for the
        number that suits its queries (see `starting_points_per_pair`). A surrogate compares them
        without a query, and the teacher is asked about one.
    order: "nearest" of them (L2), or "random" as published.
    candidate_pool: most images in all that rays may lead to, and that say which classes are near;
        None for all. A set up to that size is used whole, of a larger one see StartingPoints: so
        what a sample takes does not grow with the set.
    targets: how many classes are searched for each sample, those with the nearest images; None for
        all. The distances to the others are estimated; see `estimate_unsearched`.
    mixup_rounds: rounds of "bd" towards mixtures of images; see boundary_distance.
    queries_per_pair: most queries for one (sample, target). "sd" spends none of them.
    queries_per_sample: most queries for one sample, its own decision included; what the decision
        leaves is divided evenly over its targets, the classes that are searched.
    queries: most queries of the whole run, divided evenly over the samples beforehand, so that what
        a sample may spend does not depend on the others.
    snapshots: numbers of queries per pair at which the distances are noted as well.
    tolerance: width of the last bracket of "bd", also where "mbd" starts from it, as a share of the
        distance. A descent from a point well inside the class misjudges its probes.
    sign_opt: settings of "mbd".
    seed: of everything random.
    query_batch_size: images in one batch of queries; fewer if these would take over 256 MiB.
    """

    measure: Measure = "mbd"
    starting_points: int | None = None
    order: Order = "nearest"
    candidate_pool: int | None = 20_000
    targets: int | None = None
    mixup_rounds: int = 0
    queries_per_pair: int = 1000
    queries_per_sample: int | None = None
    queries: int | None = None
    snapshots: tuple[int, ...] = ()
    tolerance: float = 1e-3
    sign_opt: SignOptSettings = field(default_factory=SignOptSettings)
    seed: int = 0
    query_batch_size: int = 2048

    def __post_init__(self) -> None:
        if self.measure not in ("sd", "bd", "mbd"):
            raise ValueError(f"measure: expected 'sd', 'bd' or 'mbd', got {self.measure!r}")
        check_count(self.query_batch_size, "query_batch_size")
        check_count(self.mixup_rounds, "mixup_rounds", least=0)
        check_count(self.queries_per_pair, "queries_per_pair", least=0)
        optional = {
            "starting_points": 1,
            "queries_per_sample": 0,
            "queries": 0,
            "candidate_pool": 1,
            "targets": 1,
        }
        for name, least in optional.items():
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name, least=least)
        if self.measure == "sd" and self.targets is not None:
            raise ValueError(
                f"targets: expected None with measure 'sd', which measures every class without a "
                f"query, got {self.targets}"
            )
        for count in self.snapshots:
            check_count(count, "snapshots", least=0)
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance: expected a share in (0, 1), got {self.tolerance}")

    @classmethod
    def paper(cls, measure: Measure = "mbd", **changes: object) -> "LabelSettings":
        """The settings of the paper's experiments (DB3KD, section 4), as far as they carry over.

        21 random images for SD, 201 for BD and MBD, brackets of 1e-5, and up to 20,000 queries a
        pair spent by the descent on 200 Gaussian probes a round.
        """
        settings = cls(
            measure=measure,
            starting_points=21 if measure == "sd" else 201,
            order="random",
            mixup_rounds=0,
            queries_per_pair=20_000,
            tolerance=1e-5,
            sign_opt=SignOptSettings.paper(),
        )
        return dataclasses.replace(settings, **changes)

    @property
    def max_starting_points(self) -> int:
        """The most candidates that any pair has."""
        if self.starting_points is not None:
            return self.starting_points
        if self.order == "random":
            return _MOST_CANDIDATES["bd"]
        return _MOST_CANDIDATES[self.measure]

    def starting_points_per_pair(self, limits: Tensor, surrogate: bool) -> Tensor:
        """[P] int64: how many candidates each pair has.

        limits: [P] int64, the queries that each may spend. surrogate: whether one compares the
        candidates, which then cost no query.
        """
        most = torch.full_like(limits, self.max_starting_points)
        if self.starting_points is not None or self.measure == "sd" or surrogate:
            return most
        return (limits / _QUERIES_A_CANDIDATE).long().clamp_min(1).minimum(most)

    def targets_among(self, classes: int) -> int:
        """How many of a sample's other classes are searched.

        Raises:
            ValueError: `targets` are more than there are.
        """
        others = classes - 1
        if self.targets is not None and self.targets > others:
            raise ValueError(
                f"targets: expected at most {others}, as a sample has {others} classes beside its "
                f"own, got {self.targets}"
            )
        return others if self.targets is None else self.targets
