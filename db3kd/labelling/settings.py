"""How samples are labelled, and what each may spend on it."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from db3kd.arguments.plain import (
    check_choice,
    check_count_fields,
    check_counts,
    check_fields,
    check_number,
    check_seed,
    check_type,
    suggests_arguments,
)
from db3kd.boundary import SignOptSettings
from db3kd.boundary.distance import MEASURES, Measure
from db3kd.boundary.sign_opt_settings import MAX_CLASSES
from db3kd.boundary.starting_points import ORDERS, Order
from db3kd.errors import ArgumentError

_MAX_STARTING_POINTS = {"sd": 1, "bd": 20, "mbd": 10}

_QUERIES_PER_STARTING_POINT = 3.5
"""By default a pair has as many starting points as its queries pay for, up to the number beyond
which more do not help. Without a surrogate, the result is within 3 % of the best number from 1 to
40 at every budget that "mbd" was measured with (benchmarks.peers.starting_points). With a
surrogate, more starting points help a little, at the price of a forward pass each."""


@suggests_arguments
@dataclass(frozen=True)
class LabelSettings:
    """How distances are measured, and the query budgets.

    Example:
        >>> settings = db3kd.LabelSettings(measure="bd", queries=100_000)

    Attributes:
        measure: "sd", "bd" or "mbd": sample, boundary and minimal boundary distance (DB3KD,
            section 3).
        starting_points: Images of the target class that the rays of a pair start towards. None
            derives the number from the pair's queries (see `starting_points_per_pair`).
        order: "nearest" starts towards the nearest images (L2), "random" towards random ones, as
            in the paper.
        candidate_pool: Maximum number of images that rays may start towards and that determine
            which classes are near; None for all. It bounds the time per sample for large sets. See
            `CandidatePool` for how a larger set is reduced.
        targets: The number of classes that are measured for each sample: the classes with the
            nearest images. None for all. Distances to the others are estimated (see
            `db3kd.labels.targets`).
        mixup_rounds: Rounds of "bd" towards mixtures of images (see `boundary_distance`).
        queries_per_pair: Maximum number of queries per (sample, target) pair. "sd" spends none.
        queries_per_sample: Maximum number of queries per sample, including its decision. The rest
            is divided evenly over the sample's targets.
        queries: Maximum number of queries of the run. They are divided evenly over the samples in
            advance, so that the budget of a sample does not depend on the others.
        snapshots: Numbers of queries per pair at which the distances are also recorded.
        tolerance: Width of the last bracket of "bd", relative to the distance; also if "mbd"
            starts from it.
        sign_opt: Settings of "mbd".
        seed: The seed of all random choices.
        query_batch_size: Images in one batch of queries; fewer if these would take over 256 MiB. On
            a GPU its memory determines the size instead (see `fitting_batch_size`). Labels and
            costs do not depend on it.

    Raises:
        ValueError: If a value is out of its range.
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
        check_choice(self.measure, "measure", MEASURES)
        check_choice(self.order, "order", ORDERS)
        check_type(self.sign_opt, SignOptSettings, "sign_opt", "SignOptSettings")
        check_fields(self, check_seed, "seed")
        check_count_fields(self, "query_batch_size")
        check_count_fields(self, "mixup_rounds", "queries_per_pair", least=0)
        optional = {
            "starting_points": 1,
            "queries_per_sample": 0,
            "queries": 0,
            "candidate_pool": 1,
            "targets": 1,
        }
        for name, least in optional.items():
            if getattr(self, name) is not None:
                check_count_fields(self, name, least=least)
        if self.measure == "sd" and self.targets is not None:
            raise ArgumentError(
                "targets",
                f"expected None with measure 'sd', which measures every class without a "
                f"query, got {self.targets}",
            )
        check_fields(self, check_counts, "snapshots", least=0)
        check_fields(self, check_number, "tolerance", expected="a number in (0, 1)")
        if not 0 < self.tolerance < 1:
            raise ArgumentError("tolerance", f"expected a number in (0, 1), got {self.tolerance}")

    @classmethod
    def paper(cls, measure: Measure = "mbd", **changes: Any) -> "LabelSettings":
        """The settings of the paper's experiments (DB3KD, section 4), as far as they apply here.

        They use 21 random images for "sd" and 201 for "bd" and "mbd", brackets of 1e-5, and up to
        20,000 queries per pair, which "mbd" spends on rounds of 200 Gaussian probes.

        Example:
            >>> settings = db3kd.LabelSettings.paper("mbd", queries_per_pair=5_000)

        Args:
            measure: "sd", "bd" or "mbd".
            **changes: Attributes with other values.
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
        """The most starting points of any pair."""
        if self.starting_points is not None:
            return self.starting_points
        if self.order == "random":
            return _MAX_STARTING_POINTS["bd"]
        return _MAX_STARTING_POINTS[self.measure]

    @property
    def needs_rays(self) -> bool:
        """Whether pairs need rays: SD to the nearest image is found in the pool without them."""
        return self.measure != "sd" or self.order != "nearest"

    def starting_points_per_pair(self, limits: Tensor, surrogate: bool) -> Tensor:
        """The number of starting points of each pair.

        Args:
            limits: [P] int64, the maximum number of queries for each pair.
            surrogate: Whether a surrogate compares the starting points, which then cost no query.

        Returns:
            [P] int64.
        """
        maximum = torch.full_like(limits, self.max_starting_points)
        if self.starting_points is not None or self.measure == "sd" or surrogate:
            return maximum
        return (limits / _QUERIES_PER_STARTING_POINT).long().clamp_min(1).minimum(maximum)

    def targets_among(self, classes: int) -> int:
        """The number of targets of a sample.

        Args:
            classes: The number of classes.

        Raises:
            ValueError: If `targets` exceeds the number of other classes, or if there are too many
                classes for "mbd".
        """
        if self.measure == "mbd" and classes > MAX_CLASSES:
            raise ArgumentError(
                "measure",
                f"'mbd' expects at most {MAX_CLASSES:,} classes, got {classes:,}; use 'bd' or 'sd'",
            )
        others = classes - 1
        if self.targets is not None and self.targets > others:
            raise ArgumentError(
                "targets",
                f"expected at most {others}, the number of a sample's other classes, got "
                f"{self.targets}",
            )
        return others if self.targets is None else self.targets
