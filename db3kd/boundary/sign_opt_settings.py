"""Settings of Sign-OPT, the search for minimal boundary distances."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Literal, get_args

from db3kd.arguments.plain import (
    check_choice,
    check_count,
    check_count_fields,
    check_fields,
    check_not_negative,
    check_number,
    check_positive,
    check_type,
    suggests_arguments,
)
from db3kd.boundary.probes import Directions
from db3kd.errors import ArgumentError
from db3kd.ops import COUNTER_LIMIT, Noise

MAX_CLASSES = COUNTER_LIMIT
"""The directions of probes depend on the class, and those of further classes would repeat."""

_FIRST_FREQUENCIES = 0.3
"""The first round draws directions from this share of the frequencies of a side."""

_FREQUENCIES_PER_ROUND = 1 / 56
"""Each round increases that share by this much."""

_MIN_SMOOTH_SIDE = 16
"""Minimum height and width of images for which "auto" starts with low frequencies."""


@suggests_arguments
@dataclass(frozen=True)
class SignOptSettings:
    """How Sign-OPT estimates normals and follows them.

    Lengths are shares of a pair's distance, so they fit any scale.

    Example:
        >>> LabelSettings(sign_opt=SignOptSettings(probes=40, noise="gaussian"))

    Attributes:
        probes: Probes of the first estimate of a normal.
        growth: Round r (from 0) uses `probes * (1 + growth * r)` probes.
        momentum: The weight that each round leaves to the estimates before it, in [0, 1).
        noise: The distribution of the probe directions; see `Directions`.
        frequencies: The frequencies of the probe directions; see `Directions`. "auto" starts with
            the lower 30 % of the frequencies of a side for images of 16 x 16 and more, and adds
            1/56 of them in each round; for other images it uses all pixels. Smooth directions need
            few probes, and later rounds have enough of them for the fine ones.
        probe_step: The distance of a probe from the boundary point.
        steps: The lengths of the steps along the normal, all of which are tried after each
            estimate. They are multiplied by a factor per pair, which doubles if the longest step
            wins and halves if none does.
        least_gain: Minimum gain for a step to be taken.
        trust: Maximum gain of the first step; it bounds the line search. A later step of a pair
            can gain up to three times its last gain, but at least `trust / 2` and at most
            `trust`.
        tolerance: The width of the last bracket of the line search. On flat boundaries 1e-3 ends
            nearer to the optimum; on networks, whose boundaries are curved, the queries it costs
            are better spent elsewhere.
        rounds: Maximum number of rounds, whatever the budget; at most 65,536.

    Raises:
        TypeError: If a length or a share is no number.
        ValueError: If a value is out of range.
    """

    probes: int = 20
    growth: float = 0.2
    momentum: float = 0.7
    noise: Noise = "rademacher"
    frequencies: int | Literal["auto"] | None = "auto"
    probe_step: float = 0.02
    steps: tuple[float, ...] = (0.1, 0.4, 0.8)
    least_gain: float = 2e-4
    trust: float = 0.4
    tolerance: float = 2e-3
    rounds: int = 1000

    def __post_init__(self) -> None:
        check_count_fields(self, "probes")
        check_count_fields(self, "rounds", least=0)
        if self.rounds > COUNTER_LIMIT:
            raise ArgumentError(
                "rounds", f"expected at most {COUNTER_LIMIT:,}, got {self.rounds:,}"
            )
        check_choice(self.noise, "noise", get_args(Noise))
        check_type(self.steps, (tuple, list), "steps", "a tuple of lengths")
        if not self.steps:
            raise ArgumentError("steps", f"expected at least one positive length, got {self.steps}")
        expected = "finite lengths above 0"
        steps = tuple(check_positive(step, "steps", expected) for step in self.steps)
        object.__setattr__(self, "steps", steps)
        check_fields(self, check_not_negative, "growth")
        check_fields(self, check_number, "momentum", expected="a weight in [0, 1)")
        if not 0 <= self.momentum < 1:
            raise ArgumentError("momentum", f"expected a weight in [0, 1), got {self.momentum}")
        check_fields(self, check_positive, "probe_step", expected="a finite length above 0")
        shares = ("least_gain", "tolerance", "trust")
        check_fields(self, check_positive, *shares, expected="a finite share above 0")
        if not 0 < self.least_gain <= self.tolerance < self.trust / 2 < 0.5:
            raise ArgumentError(
                "least_gain, tolerance, trust",
                "expected 0 < least_gain <= tolerance < trust / 2 < "
                f"0.5, got {self.least_gain}, {self.tolerance}, {self.trust}",
            )
        if _is_count(self.frequencies):
            check_fields(self, check_count, "frequencies")
        elif self.frequencies not in (None, "auto"):
            raise ArgumentError(
                "frequencies",
                f"expected 'auto', None or an integer of at least 1, got {self.frequencies!r}",
            )

    @classmethod
    def paper(cls) -> "SignOptSettings":
        """Returns the settings of the paper: 200 Gaussian probes per round, no momentum.

        The probes are drawn in pixel space. Two details differ from the paper. It has a single
        step length, which is doubled while the distance shrinks and otherwise divided by four;
        here several lengths are tried at once. Its probe step is 0.001 in input units; here it is
        0.001 of the distance.
        """
        return cls(
            probes=200,
            growth=0.0,
            momentum=0.0,
            noise="gaussian",
            frequencies=None,
            probe_step=1e-3,
            steps=(0.0125, 0.05, 0.2, 0.4, 0.8, 1.6),
            trust=0.2,
            tolerance=1e-3,
        )

    def directions(self, image_shape: tuple[int, ...], round_number: int) -> Directions:
        """Returns the distribution of a round's probe directions.

        Args:
            image_shape: The shape of an image.
            round_number: The number of the round, from 0.

        Raises:
            ValueError: If `frequencies` is a number and the images have no height and width.
        """
        spatial = len(image_shape) == 3
        if self.frequencies == "auto":
            smooth = spatial and min(image_shape[1:]) >= _MIN_SMOOTH_SIDE
            share = _FIRST_FREQUENCIES + _FREQUENCIES_PER_ROUND * round_number
            count = round(share * max(image_shape[1:])) if smooth and share < 1 else None
        else:
            count = self.frequencies
        if count is not None and not spatial:
            raise ArgumentError(
                "frequencies",
                "expected None, as images of shape "
                f"{list(image_shape)} have no height and width, got {count}",
            )
        return Directions(self.noise, count, image_shape)

    @property
    def line_search_queries(self) -> int:
        """The approximate cost of a line search: one query per step, then one bisection."""
        return len(self.steps) + math.ceil(math.log2(self.trust / self.tolerance)) + 2


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
