"""The time of training, against a count of its steps."""

import math
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from distill_cases import CLASSES, QUICK, SHAPE, TRAINING, images, teacher
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer
from training_steps import before_each_step, weights_of

import db3kd
from db3kd.answers import batches, image_choice
from db3kd.answers.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.models.networks import build_model
from db3kd.pipelines import DistillSettings
from db3kd.pipelines.comparison.prepared import prepare_comparison
from db3kd.pipelines.distill_notes import DistillNotes
from db3kd.pipelines.distillation import training_steps
from db3kd.pipelines.query_rounds.rounds import Proxies
from db3kd.pipelines.student_training import rules as teaching_rules
from db3kd.pipelines.student_training import step_timing, time_estimate, time_limit
from db3kd.pipelines.student_training.time_estimate import LEAST_STEPS, StepTimes
from db3kd.planning import plan_budget
from db3kd.scale import search
from db3kd.synthesis import acquisition_settings, proposals
from db3kd.synthesis.acquisition_settings import AcquisitionSettings

STUDENT, PROXY = 1.0, 100.0
"""Seconds of a step; far apart, so that a sum shows how many steps of each kind it has."""


def settings(**changes: Any) -> DistillSettings:
    training = replace(TRAINING, steps=changes.pop("steps", 12))
    return replace(QUICK, training=training, **changes)


def steps_of_a_run(
    monkeypatch: pytest.MonkeyPatch,
    strategy: Any,
    chosen: DistillSettings,
    budget: int = 1500,
    least: int = 1,
) -> Counter[str]:
    """Counts the steps of student and proxies in a run."""
    counts: Counter[str] = Counter()

    def count(optimizer: Optimizer) -> None:
        counts["student" if weights_of(optimizer) == 37 * CLASSES else "proxy"] += 1

    monkeypatch.setattr(
        teaching_rules, "LEAST_STEPS_OF_A_CHOICE", teaching_rules.CHOICE_DIVISOR * least
    )
    monkeypatch.setattr(teaching_rules, "LEAST_VALIDATION", least)
    with before_each_step(count):
        db3kd.distill(
            teacher(),
            images(),
            budget=budget,
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

    found = 12 * StepTimes(student=STUDENT, proxy=PROXY).seconds_per_full_step(plan, chosen, 12)

    # Proxies that teach answer each batch of their student: a sixth of a step.
    proxies = chosen.proxies if strategy == "auto" else 0
    taught = proxies * PROXY / 6 * (12 + 2) if proxies else 0
    assert found == pytest.approx(STUDENT * counts["student"] + PROXY * counts["proxy"] + taught)


@pytest.mark.parametrize(
    ("strategy", "budget", "taught"), [("auto", 1500, 0), ("auto", 400, 2), ("decisions", 120, 0)]
)
def test_what_a_run_does_not_train_takes_no_time(monkeypatch, strategy, budget, taught):
    chosen = settings(proxy="mlp-quarter")
    plan = plan_budget(budget, 4, 120, strategy)
    counts = steps_of_a_run(monkeypatch, strategy, chosen, budget, least=10**6)

    found = 12 * StepTimes(student=STUDENT, proxy=PROXY).seconds_per_full_step(plan, chosen, 12)

    seconds = STUDENT * counts["student"] + PROXY * counts["proxy"]
    assert found == pytest.approx(seconds + taught * PROXY / 6 * 12)


def test_with_little_time_nothing_is_chosen_and_all_of_it_is_used(monkeypatch):
    monkeypatch.setattr(time_limit, "seconds_per_step", lambda make, *_: 0.01)
    plan, chosen = plan_budget(20_000, 4, 1000, "augmented"), settings()

    def seconds(limit: float) -> float:
        steps = time_limit.steps_within(limit, plan, chosen, nn.Identity, _NO_PROXIES, known())
        return steps * StepTimes(student=0.01, proxy=0.0).seconds_per_full_step(plan, chosen, steps)

    for limit in (1.0, 5.0, 5.9, 6.5, 10.0, 100.0):
        assert 0.7 * limit < seconds(limit) <= limit


def test_a_limit_divides_the_time_among_all_trainings(monkeypatch, caplog):
    monkeypatch.setattr(time_limit, "seconds_per_step", lambda make, *_: 0.01)
    plan, chosen = plan_budget(1500, 4, 120, "decisions"), settings(steps=6000)
    times = StepTimes(student=0.01, proxy=0.01)
    whole = times.of_run(plan, chosen)
    assert whole == pytest.approx(6000 * times.seconds_per_full_step(plan, chosen, 6000))

    def steps(limit: float) -> int:
        return time_limit.steps_within(limit, plan, chosen, nn.Identity, _NO_PROXIES, known())

    assert steps(whole) == pytest.approx(6000, abs=1)
    assert steps(whole / 3) == pytest.approx(2000, abs=1)
    assert "time_limit" not in caplog.text
    assert steps(1e-9) == LEAST_STEPS
    assert "time_limit: 1e-09 seconds are not enough" in caplog.text
    limited = replace(chosen, time_limit=whole / 3)
    assert times.of_run(plan, limited) == whole / 3
    assert times.steps_of_run(plan, limited) == (pytest.approx(2000, abs=1), 6000)
    assert times.steps_of_run(plan, chosen) == (6000, 6000)


def weights_of_students_that_choose() -> int:
    network = build_model(AcquisitionSettings.model, SHAPE, CLASSES)
    return sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize(("budget", "changes"), [(401, {}), (1000, {"steps": 40})])
def test_the_steps_without_images_are_those_of_a_run(monkeypatch, budget, changes):
    chosen = settings(proxy="mlp-quarter", **changes)
    plan = plan_budget(budget, CLASSES, None)
    counts: Counter[int] = Counter()
    logits, ranked = proposals.predict_logits, 0

    def count(optimizer: Optimizer) -> None:
        counts[weights_of(optimizer)] += 1

    def counted_logits(network: nn.Module, images: Tensor) -> Tensor:
        nonlocal ranked
        ranked += len(images)
        return logits(network, images)

    monkeypatch.setattr(proposals, "predict_logits", counted_logits)
    monkeypatch.setattr(time_estimate, "_RANKING_SHARE", 128.0)  # a step for each ranked image
    monkeypatch.setattr(acquisition_settings, "_LEAST_STEPS", 25)
    with before_each_step(count):
        db3kd.distill(teacher(), None, budget=budget, student="linear", settings=chosen)

    times = StepTimes(student=0.0, proxy=0.0, acquisition=1.0)
    steps = counts[weights_of_students_that_choose()]
    assert times.of_run(plan, chosen) == pytest.approx(steps + ranked)
    assert steps and ranked


def test_the_steps_that_choose_a_scale_are_those_of_a_run(monkeypatch):
    chosen = settings(steps=250)
    plan = plan_budget(120, CLASSES, 120, "sd")
    counts: Counter[Optimizer] = Counter()

    def count(optimizer: Optimizer) -> None:
        counts[optimizer] += 1

    monkeypatch.setattr(search, "_MAX_EXTENSIONS", 0)  # what is best at an edge is not foreseen
    with before_each_step(count):
        run = {"budget": 120, "student": "linear", "strategy": "sd", "settings": chosen}
        db3kd.distill(teacher(), images(), **run)

    times = StepTimes(student=0.0, proxy=0.0, scale=1.0)
    *short, full = counts.values()
    assert sum(short) == times.of_run(plan, chosen) == 2 * 3 * 41 and full == 250
    assert times.of_run(replace(plan, strategy="db3kd-paper"), chosen) == 0


def test_a_time_limit_does_not_shorten_acquisition(monkeypatch):
    times = StepTimes(student=1.0, proxy=1.0, acquisition=1.0, scale=1.0)
    plan, chosen = plan_budget(1000, CLASSES, None), settings(steps=6000)
    beyond = times.of_run(plan, chosen) - replace(times, acquisition=0.0).of_run(plan, chosen)
    assert beyond > 0
    assert times.of_run(plan, replace(chosen, time_limit=600)) == pytest.approx(600 + beyond)


@pytest.mark.parametrize("strategies", [("auto", "zero-shot"), ("auto", "sd")])
def test_networks_that_a_plan_needs_are_timed(monkeypatch, strategies):
    monkeypatch.setattr(time_limit, "seconds_per_step", lambda *_: 0.01)
    prepared = prepare_comparison(
        teacher(),
        images(),
        budget=400,
        strategies=strategies,
        student="linear",
        seeds=1,
        settings=settings(),
        out=None,
        resume=False,
        test=None,
        ask_about_test=False,
    )
    times = time_limit.time_prepared_steps(prepared, prepared.plan.plans.values())
    made = "zero-shot" in strategies
    assert (times.acquisition, times.scale) == ((0.01, 0.0) if made else (0.0, 0.01))
    plain = replace(times, acquisition=0.0, scale=0.0)
    limited = settings(steps=6000, time_limit=20.0)
    steps = times.steps_of_comparison(prepared.plan, limited, 400)
    assert LEAST_STEPS < steps == plain.steps_of_comparison(prepared.plan, limited, 400) < 6000
    assert plain.of_comparison(prepared.plan, limited, 400) == pytest.approx(20, rel=0.02)
    assert times.of_comparison(prepared.plan, limited, 400) > 20.5


def known() -> Answers:
    """An answer for each image."""
    none = no_answers(augmentable_images(images(), torch.arange(120), 0, 0))
    return none.add(torch.arange(120) * NUMBERS, torch.zeros(120, dtype=torch.int64))


class Waiting(nn.Module):
    """A network that takes its time for each image; `clock` shows it."""

    def __init__(self, clock: list[float], images: list[int], seconds: float) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(36, CLASSES))
        self.clock, self.images, self.seconds = clock, images, seconds

    def forward(self, batch: Tensor) -> Tensor:
        self.clock[0] += self.seconds * len(batch)
        self.images.append(len(batch))
        return self.inner(batch)


@pytest.mark.parametrize(("seconds", "steps"), [(60.0, 4), (1e-4, 70)])
def test_a_slow_step_is_timed_with_a_few_images(monkeypatch, seconds, steps):
    clock, batches = [0.0], []
    monkeypatch.setattr(step_timing.time, "monotonic", lambda: clock[0])
    found = step_timing.seconds_per_step(
        lambda: Waiting(clock, batches, seconds), known(), replace(TRAINING, batch_size=100)
    )

    assert found == pytest.approx(100 * seconds)
    assert len(batches) == steps and sum(batches) <= 35 * 108


def test_costs_that_do_not_depend_on_the_images_are_not_multiplied(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(step_timing.time, "monotonic", lambda: clock[0])

    class Busy(Waiting):
        def forward(self, batch: Tensor) -> Tensor:
            self.clock[0] += fixed
            return super().forward(batch)

    def seconds_of_a_step(each: float) -> float:
        return step_timing.seconds_per_step(
            lambda: Busy(clock, [], each), known(), replace(TRAINING, batch_size=100)
        )

    fixed = 0.06
    assert seconds_of_a_step(1e-4) == pytest.approx(0.07)
    fixed = 30.0
    assert seconds_of_a_step(0.1) == pytest.approx(40)


def test_what_is_left_after_choosing_is_for_the_other_trainings(monkeypatch, caplog):
    monkeypatch.setattr(time_limit, "seconds_per_step", lambda make, *_: 0.01)
    plan, chosen = plan_budget(1500, 4, 120, "auto"), settings(steps=6000)
    proxies = Proxies(nn.Identity, "linear", 2)

    def steps(spent: float | None, least: int = 0) -> int:
        return time_limit.steps_within(
            100.0, plan, chosen, nn.Identity, proxies, known(), spent, least
        )

    seconds = partial(StepTimes(student=0.01, proxy=0.01).seconds_per_full_step, plan, chosen)
    each = seconds(2000, images_chosen=True)
    assert each < seconds(2000)
    assert steps(70.0) == pytest.approx(30 / each, abs=1)
    # Proxies teach only in long training, for which 60 seconds are not enough.
    assert 60 / seconds(6000, images_chosen=True) < 6000 <= 60 / each
    assert steps(40.0) == 5999
    assert steps(None) < steps(0.0)
    assert "time_limit" not in caplog.text
    assert steps(200.0) == LEAST_STEPS
    assert "100 seconds are not enough, of which choosing images took 0:03:20;" in caplog.text
    assert steps(95.0, least=700) == 700 > steps(95.0)
    assert steps(80.0, least=700) == steps(80.0) > 700
    limited = replace(chosen, time_limit=100.0)
    times = StepTimes(student=0.01, proxy=0.01)
    assert times.steps_of_run(plan, limited, 70.0) == (steps(70.0), 6000)
    assert times.of_run(plan, limited, 70.0) == pytest.approx(30, abs=0.1)
    assert times.of_run(plan, chosen, 0.0) < times.of_run(plan, chosen)


@pytest.mark.parametrize("second", [60.0, 1e-3])
def test_a_choice_counts_only_towards_the_limit_that_it_was_made_with(
    second, tmp_path, monkeypatch
):
    found = []

    def steps_within(*arguments: Any, least: int) -> int:
        found.append((arguments[0], arguments[-1], least))
        return planned

    monkeypatch.setattr(training_steps, "steps_within", steps_within)

    planned = 120

    def distill(limit: float, resume: bool, budget: int = 1500) -> None:
        chosen = replace(settings(steps=None, proxy="mlp-quarter"), time_limit=limit)
        options = {"student": "linear", "settings": chosen, "budget": budget}
        db3kd.distill(teacher(), images(), out=tmp_path / "run", resume=resume, **options)

    distill(60.0, resume=False)
    (_, before, _), (_, spent, least) = found
    assert before is None and spent > 0 and least == 60
    distill(second, resume=True)
    again = found[2:]
    assert again == ([] if second == 60.0 else [(second, 0.0, 0)])
    distill(second, resume=True, budget=3000)
    (_, _, _), (limit, later, least) = found[-2:]
    noted = DistillNotes(tmp_path / "run").seconds["choosing"]
    assert limit == second and later == pytest.approx(noted - spent) and least == 60
    planned = 10**6
    distill(70.0, resume=True, budget=4000)
    assert found[-1][2] == 3_000, "half of the steps without a limit"


def test_ranking_takes_time_that_no_limit_shortens(monkeypatch):
    plan, chosen = plan_budget(1500, 4, 120, "auto"), settings(proxy="mlp-quarter", steps=12)
    ranked = []

    def count(networks: Any, augmented: Any, rows: Tensor) -> Any:
        ranked.append(len(networks) * len(rows))
        return batches.probabilities_by_batch(networks, augmented, rows)

    with monkeypatch.context() as patch:
        patch.setattr(image_choice, "probabilities_by_batch", count)
        steps_of_a_run(patch, "auto", chosen)

    assert sum(ranked) > 0
    times = StepTimes(student=0.001, proxy=0.01)
    ranking = times.seconds_of_ranking(plan, chosen)
    assert ranking == pytest.approx(0.35 * 0.01 * sum(ranked) / chosen.training.batch_size)
    full = 12 * times.seconds_per_full_step(plan, chosen, 12)
    assert times.of_run(plan, chosen) == pytest.approx(full + ranking)
    long = settings(steps=6000)
    ranking = times.seconds_of_ranking(plan, long)
    for limit in (ranking + 1, ranking + 50):
        steps = times.most_steps(limit, plan, long)
        taken = ranking + steps * times.seconds_per_full_step(plan, long, steps)
        assert limit - 0.2 < taken <= limit
    each = times.seconds_per_full_step(plan, long, LEAST_STEPS)
    least = ranking + LEAST_STEPS * each
    assert times.of_run(plan, replace(long, time_limit=1e-3)) == pytest.approx(least)


class _NoProxies:
    count = 0


_NO_PROXIES: Any = _NoProxies()


def test_a_comparison_decides_for_each_plan_whether_proxies_are_trained():
    chosen = settings(proxies=2, steps=10_000)
    times = StepTimes(student=0.01, proxy=0.1, new_mixtures=False)

    taught, alone = (
        times.seconds_per_full_step(plan_budget(2000, 4, 120, strategy), each, 10_000)
        for strategy, each in (("zero-shot", chosen), ("zero-shot", replace(chosen, proxies=0)))
    )

    assert taught == pytest.approx(alone + 2 * 0.1 * (1 + 1 / 6))
    without = replace(times, batch_normalisation=True)
    plan = plan_budget(2000, 4, 120, "zero-shot")
    assert without.seconds_per_full_step(plan, chosen, 10_000) == pytest.approx(alone)


@given(st.floats(30, 900), st.sampled_from(["zero-shot", "auto"]))
def test_a_time_limit_is_used_whether_or_not_proxies_then_teach(limit, strategy):
    plan, chosen = plan_budget(2000, 4, 120, strategy), settings(proxies=2)
    times = StepTimes(student=0.01, proxy=0.1)
    seconds = partial(times.seconds_per_full_step, plan, chosen)

    steps = times.most_steps(limit, plan, chosen)

    assert steps * seconds(steps) <= limit - times.seconds_of_ranking(plan, chosen) + 1e-9
    proxies_teach = math.ceil(25 * 1900 / chosen.training.batch_size)
    if strategy == "zero-shot" and steps >= 600:
        assert (seconds(steps) > 0.1) == (steps >= proxies_teach)
