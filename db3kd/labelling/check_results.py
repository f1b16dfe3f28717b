"""The results of a run's consistency checks, as recorded in its manifest.

The manifest's entry `consistency` is a list with one mapping per check. `checks_of` reads them as
`CheckRecord`s.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from db3kd.errors import InputError

CONSISTENCY = "consistency"
"""The list of a manifest that holds the checks."""

CheckTime = Literal["start", "resume", "end", "lost"]
"""When a check was made; "lost" counts answers that were lost in a kill and requested again."""


@dataclass(frozen=True)
class ChangedImages:
    """Which images a check found in another class than before.

    Attributes:
        samples: Their indices, if they are samples of the run.
        points: Their positions among the first images of an interrupted search.
    """

    samples: list[int]
    points: list[int]


@dataclass(frozen=True, kw_only=True)
class CheckRecord:
    """What one check asked and found.

    Attributes:
        when: When the check was made.
        asked: The number of known answers that were requested again.
        changed: How many of them differed.
        around: The number of queries around samples whose answer changed; None unless `when` is
            "end".
        flagged: Whether the teacher is noisy or was replaced.
        images: Which images changed; None unless `when` is "start" or "resume".
        rate: The estimated share of wrong decisions of the run; None unless `when` is "end".
        interval: The 95 % confidence interval of `rate`.
    """

    when: CheckTime
    asked: int
    changed: int
    around: int | None = None
    flagged: bool
    images: ChangedImages | None = None
    rate: float | None = None
    interval: tuple[float, float] | None = None

    def to_entry(self) -> dict[str, Any]:
        """Returns the entry of the manifest, without the fields that are None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "CheckRecord":
        """Reads an entry that `to_entry` made.

        Raises:
            ValueError: If it is damaged.
        """
        try:
            images, interval, rate = (entry.get(key) for key in ("images", "interval", "rate"))
            if entry["when"] not in get_args(CheckTime) or type(entry["flagged"]) is not bool:
                raise InputError("expected a known time of the check, and a flag")
            return cls(
                when=entry["when"],
                asked=int(entry["asked"]),
                changed=int(entry["changed"]),
                around=None if entry.get("around") is None else int(entry["around"]),
                flagged=entry["flagged"],
                images=images and ChangedImages(images["samples"], images["points"]),
                rate=None if rate is None else float(rate),
                interval=interval and (float(interval[0]), float(interval[1])),
            )
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"{CONSISTENCY}: expected the record of a check, got {entry}; the manifest is "
                "damaged"
            ) from error


def checks_of(manifest: Mapping[str, Any]) -> list[CheckRecord]:
    """Returns the checks of a run, in the order in which they were made."""
    entries = manifest.get(CONSISTENCY, [])
    if not isinstance(entries, list):
        raise InputError(
            f"{CONSISTENCY}: expected a list of checks, got {entries}; the manifest is damaged"
        )
    return [CheckRecord.from_entry(entry) for entry in entries]


def clopper_pearson(changed: int, asked: int) -> tuple[float, float]:
    """The exact 95 % confidence interval of a proportion (Clopper and Pearson).

    Args:
        changed: The number of successes.
        asked: The number of trials.

    Returns:
        The lower and the upper end.
    """

    def tail(proportion: float, max_successes: int) -> float:
        return sum(
            math.comb(asked, k) * proportion**k * (1 - proportion) ** (asked - k)
            for k in range(max_successes + 1)
        )

    def solve(max_successes: int, probability: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            above = tail(middle, max_successes) > probability
            low, high = (middle, high) if above else (low, middle)
        return (low + high) / 2

    low = 0.0 if changed == 0 else solve(changed - 1, 0.975)
    high = 1.0 if changed == asked else solve(changed, 0.025)
    return low, high


def queries_of_checks(manifest: Mapping[str, Any]) -> int:
    """The number of queries that a run's checks spent, on top of those of its labels."""
    return sum(check.asked + (check.around or 0) for check in checks_of(manifest))


def is_inconsistent(manifest: Mapping[str, Any]) -> bool:
    """Whether a check found that the teacher of a run is noisy or was replaced."""
    return any(check.flagged for check in checks_of(manifest))


def describe_checks(manifest: Mapping[str, Any]) -> str:
    """Describes the results of a run's checks in one sentence; empty if there were no checks."""
    checks = [check for check in checks_of(manifest) if check.when != "lost"]
    if not checks:
        return ""
    changes = ", ".join(f"{check.changed} of {check.asked} at the {check.when}" for check in checks)
    text = f"answers that changed when asked again: {changes}"
    last = checks[-1]
    if is_inconsistent(manifest) and last.rate is not None and last.interval is not None:
        low, high = last.interval
        text += (
            f"; the teacher is noisy or was replaced, and about {last.rate:.1%} of the run's "
            f"decisions are wrong (95 % interval {low:.1%} to {high:.1%})"
        )
    return text
