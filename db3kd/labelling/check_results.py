"""The results of a run's consistency checks, as recorded in its manifest.

The manifest's entry `consistency` is a list with one mapping per check: `when` ("start", "resume",
"end", or "lost" for answers that were lost in a kill and requested again), the number of `asked`
and `changed` queries, `flagged`, and for some checks `images`, `around`, `rate` and `interval`.
"""

import math
from collections.abc import Mapping
from typing import Any


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
    checks = manifest.get("consistency", ())
    return sum(check["asked"] + check.get("around", 0) for check in checks)


def is_inconsistent(manifest: Mapping[str, Any]) -> bool:
    """Whether a check found that the teacher of a run is noisy or was replaced."""
    return any(check["flagged"] for check in manifest.get("consistency", ()))


def describe_checks(manifest: Mapping[str, Any]) -> str:
    """Describes the results of a run's checks in one sentence; empty if there were no checks."""
    checks = [check for check in manifest.get("consistency", ()) if check["when"] != "lost"]
    if not checks:
        return ""
    changes = ", ".join(
        f"{check['changed']} of {check['asked']} at the {check['when']}" for check in checks
    )
    text = f"answers that changed when asked again: {changes}"
    last = checks[-1]
    if is_inconsistent(manifest) and "rate" in last:
        low, high = last["interval"]
        text += (
            f"; the teacher is noisy or was replaced, and about {last['rate']:.1%} of the run's "
            f"decisions are wrong (95 % interval {low:.1%} to {high:.1%})"
        )
    return text
