"""Settings of pseudo samples: how many, how they are made, and what that may cost."""

from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any

from db3kd.arguments.plain import (
    check_choice,
    check_count_fields,
    check_counts,
    check_fields,
    check_not_negative,
    check_number,
    check_seed,
    check_type,
    suggests_arguments,
)
from db3kd.errors import ArgumentError
from db3kd.synthesis.acquisition_settings import AcquisitionSettings
from db3kd.synthesis.moves import Moves
from db3kd.synthesis.starts import STARTS
from db3kd.wording import counted

STILL_SHARD, MOVED_SHARD = 4096, 256
"""Samples per shard, without and with moves. A search keeps its moved samples in memory."""


@suggests_arguments
@dataclass(frozen=True)
class SynthesisSettings:
    """How pseudo samples are made and what that may cost.

    Example:
        >>> settings = db3kd.SynthesisSettings(samples=50_000, effort=10)

    Attributes:
        samples: Number of pseudo samples, spread over the classes as evenly as possible.
        starts: Distribution of random images, one of `STARTS`.
        effort: Maximum number of random images sent to the teacher, as a multiple of `samples`. If
            it is 1, every image is kept. If it is higher, fewer images of common classes are kept.
        acquisition: How students, trained on the answers so far, choose the next images. If None,
            random images are sent in order. With acquisition, every image that the teacher answers
            is kept, `effort` must be 1, and `mixtures` has no effect.
        mixtures: Maximum number of mixtures of two images sent to the teacher, as a multiple of
            `samples`. Mixtures search for classes that random images rarely reach.
        moves: Moves away from the boundary. The default is none, because moves are not worth their
            queries (docs/zero-shot.md).
        starting_points: Images of other classes that the first rays of a moved sample lead to.
        queries: Maximum queries of the whole run. Random images come first; the rest is divided
            evenly over the moved samples.
        held_out: Number of samples, the first ones, on which students can be measured. They are
            random images in order. They are never moved, no other sample is made from them, and
            the students that choose images do not learn them.
        snapshots: Numbers of moves after which images and distances are also stored.
        seed: Seed of all random numbers.
        query_batch_size: Images in one batch of queries; fewer if they would take over 256 MiB.

    Raises:
        ValueError: If a value is invalid; the error names the argument.
    """

    samples: int = 20_000
    starts: str = "mixed"
    effort: float = 1.0
    acquisition: AcquisitionSettings | None = None
    mixtures: float = 0.1
    moves: Moves = field(default_factory=Moves)
    starting_points: int = 10
    queries: int | None = None
    held_out: int = 0
    snapshots: tuple[int, ...] = ()
    seed: int = 0
    query_batch_size: int = 2048

    def __post_init__(self) -> None:
        optional = (AcquisitionSettings, NoneType)
        check_type(self.acquisition, optional, "acquisition", "AcquisitionSettings or None")
        check_type(self.moves, Moves, "moves", "Moves")
        check_fields(self, check_seed, "seed")
        check_count_fields(self, "samples", "starting_points", "query_batch_size")
        check_choice(self.starts, "starts", STARTS)
        check_fields(self, check_number, "effort", expected="a number of at least 1")
        if self.effort < 1:
            raise ArgumentError("effort", f"expected a number of at least 1, got {self.effort}")
        if self.acquisition is not None and self.effort != 1:
            raise ArgumentError("effort", f"expected 1 with acquisition, got {self.effort}")
        check_fields(self, check_not_negative, "mixtures")
        if self.queries is not None:
            check_count_fields(self, "queries", least=0)
        check_count_fields(self, "held_out", least=0)
        if self.held_out >= self.samples:
            raise ArgumentError(
                "held_out",
                f"expected fewer than the {counted(self.samples, 'sample')}, got {self.held_out:,}",
            )
        check_fields(self, check_counts, "snapshots", least=0)

    @classmethod
    def paper(cls, **changes: Any) -> "SynthesisSettings":
        """Returns the settings of the paper's MNIST experiment (ZSDB3KD, section 5).

        They make 8,000 samples of each of 10 classes from noise, with 40 moves of up to 5,000
        queries each.

        Example:
            >>> settings = db3kd.SynthesisSettings.paper(samples=1_000)

        Args:
            **changes: Fields that differ.
        """
        settings = cls(samples=80_000, starts="paper", effort=1000.0, moves=Moves.paper())
        return replace(settings, **changes)

    @classmethod
    def guided(cls, model: str = "lenet5-half", **changes: Any) -> "SynthesisSettings":
        """Returns the settings that give the best students per query: students choose the images.

        Example:
            >>> settings = db3kd.SynthesisSettings.guided("lenet5-half", samples=50_000)

        Args:
            model: Architecture of these students.
            **changes: Fields that differ.
        """
        return replace(cls(samples=100_000, acquisition=AcquisitionSettings(model)), **changes)

    @property
    def max_starts(self) -> int:
        """Maximum number of random images sent to the teacher if the budget allows."""
        return round(self.samples * self.effort)

    @property
    def max_mixtures(self) -> int:
        """Maximum number of mixtures sent to the teacher if the budget allows."""
        return round(self.samples * self.mixtures)

    @property
    def max_queries(self) -> int | None:
        """Maximum number of queries of the whole run; None if the moves have no limit."""
        collected = self.samples if self.acquisition else self.max_starts + self.max_mixtures
        moved = self.moves.queries_per_sample if self.moves.count else 0
        if moved is None:
            return self.queries
        most = collected + moved * self.samples
        return most if self.queries is None else min(most, self.queries)

    @property
    def samples_per_shard(self) -> int:
        """Number of samples that are moved and committed together."""
        return MOVED_SHARD if self.moves.count else STILL_SHARD
