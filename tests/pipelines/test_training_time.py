"""The time of trainings, against a count of their steps."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from distill_cases import CLASSES, QUICK, TRAINING, images, teacher

import db3kd
from db3kd.distillation.training_loop import _Training
from db3kd.pipelines import DistillSettings, teaching, training_time
from db3kd.pipelines.training_time import LEAST_STEPS, StepTimes, trained_steps
from db3kd.planning import plan_budget

STUDENT, PROXY = 1.0, 100.0
"""Seconds of a step; far apart, so that a sum shows how many steps of each kind it has."""


def settings(**changes: Any) -> DistillSettings:
    training = replace(TRAINING, steps=changes.pop("steps", 12))
    return replace(QUICK, training=training, **changes)


def steps_of_a_run(
    monkeypatch: pytest.MonkeyPatch, strategy: Any, chosen: DistillSettings
) -> Counter[str]:
    """Counts the steps of student and proxies in a run."""
    counts: Counter[str] = Counter()
    original = _Training._step

    def counted(training: _Training, *arguments: Any) -> None:
        weights = sum(each.numel() for each in training.network.parameters())
        counts["student" if weights == 37 * CLASSES else "proxy"] += 1
        original(training, *arguments)

    monkeypatch.setattr(_Training, "_step", counted)
    monkeypatch.setattr(teaching, "_LEAST_CHOICE_STEPS", 1)
    monkeypatch.setattr(teaching, "_LEAST_CHOICE_ANSWERS", 1)
    db3kd.distill(
        teacher(),
        images(),
        budget=1500,
        student="linear",
        strategy=strategy,
        settings=chosen,
    )
    return counts


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        ("auto", {}),
        ("auto", {"proxies": 1, "learning_rates": (1e-2,)}),
        ("auto", {"proxies": 0}),
        ("augmented", {}),
        ("decisions", {"learning_rates": (1e-2, 1e-3, 1e-4)}),
    ],
)
def test_the_steps_are_those_of_a_run(monkeypatch, strategy, changes):
    chosen = settings(proxy="mlp-quarter", **changes)
    plan = plan_budget(1500, 4, 120, strategy)
    counts = steps_of_a_run(monkeypatch, strategy, chosen)

    found = 12 * trained_steps(plan, chosen, STUDENT, PROXY)

    # Proxies that teach are asked in each step of their student: a third of a step.
    proxies = chosen.proxies if strategy == "auto" else 0
    taught = proxies * PROXY / 3 * (12 + 2) if proxies else 0
    assert found == pytest.approx(STUDENT * counts["student"] + PROXY * counts["proxy"] + taught)


def test_a_limit_divides_the_time_among_all_trainings(monkeypatch):
    monkeypatch.setattr(training_time, "seconds_per_step", lambda make, *_: 0.01)
    plan, chosen = plan_budget(1500, 4, 120, "decisions"), settings(steps=6000)
    whole = StepTimes(0.01, 0.01).of_run(plan, chosen)
    assert whole == pytest.approx(6000 * trained_steps(plan, chosen, 0.01, 0.01))

    def steps(limit: float) -> int:
        return training_time.steps_within(limit, plan, chosen, None, _NO_PROXIES, None)

    assert steps(whole) == pytest.approx(6000, abs=1)
    assert steps(whole / 3) == pytest.approx(2000, abs=1)
    assert steps(1e-9) == LEAST_STEPS
    assert StepTimes(0.01, 0.01).of_run(plan, replace(chosen, time_limit=2.0)) == 2.0


class _NoProxies:
    count = 0


_NO_PROXIES: Any = _NoProxies()
