"""The schedule of the learning rate, and the balance of training rows."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from db3kd.training.row_batches import balanced_rows
from db3kd.training.settings import SGD_DEFAULTS, TrainSettings
from db3kd.training.train import train

RATE = 0.01


def rates_of(monkeypatch: pytest.MonkeyPatch, **changes: object) -> list[float]:
    """The rate at each step of a training on 40 rows."""
    rates = []

    class NotingAdam(torch.optim.Adam):
        def step(self, *arguments, **options):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*arguments, **options)

    monkeypatch.setattr(torch.optim, "Adam", NotingAdam)
    trained(**changes)
    return rates


def trained(**changes: object) -> Tensor:
    """The weights after it."""
    images = torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    settings = TrainSettings(
        **{"learning_rate": RATE, "batch_size": 10, "device": "cpu", "steps": 20} | changes
    )
    model = train(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 2)),
        images,
        torch.arange(40) % 2,
        None,
        F.cross_entropy,
        settings,
    )
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_the_rate_is_constant_unless_another_schedule_is_asked_for(monkeypatch):
    assert TrainSettings().completed().schedule == "constant"
    assert rates_of(monkeypatch) == [RATE] * 20


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("sgd", 0.05, "cosine", 5e-4)),
        ({"weight_decay": 0.0, "schedule": "constant"}, ("sgd", 0.05, "constant", 0.0)),
        ({"learning_rate": 0.01}, ("adam", 0.01, "constant", 0.0)),
        ({"optimizer": "sgd"}, ("sgd", 0.05, "cosine", 5e-4)),
        ({"optimizer": "adamw", "weight_decay": 0.1}, ("adamw", 1e-3, "constant", 0.1)),
    ],
)
def test_defaults_of_a_function_apply_if_neither_optimizer_nor_rate_is_set(given, expected):
    made = TrainSettings(**given).completed(SGD_DEFAULTS)

    found = made.optimizer, made.learning_rate, made.schedule, made.weight_decay
    assert found == expected
    assert made.completed() == made


@pytest.mark.parametrize("length", [{"steps": 20}, {"steps": None, "epochs": 3}, {"steps": 1}])
def test_a_cosine_takes_the_rate_down_to_0_over_the_steps(monkeypatch, length):
    rates = rates_of(monkeypatch, schedule="cosine", **length)

    steps = TrainSettings(batch_size=10, **length).total_steps(40)
    expected = [RATE / 2 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    assert rates == pytest.approx(expected)


def test_a_schedule_changes_the_weights_and_gives_them_again():
    assert torch.equal(trained(schedule="cosine"), trained(schedule="cosine"))
    assert not torch.equal(trained(schedule="cosine"), trained())


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="schedule: expected one of constant, cosine, got 'step'"):
        TrainSettings(schedule="step")


@given(
    counts=st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(lambda c: sum(c) > 0),
    balance=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_rare_classes_are_trained_on_more_often(counts, balance, seed):
    decisions = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))

    rows = balanced_rows(decisions, balance, seed)

    times = torch.bincount(rows, minlength=len(decisions)).double()
    most = max(counts)
    for own, count in enumerate(counts):
        wanted = min(30.0, (most / max(1, count)) ** balance)
        mine = times[decisions == own]
        assert ((mine - wanted).abs() < 1 + 1e-9).all(), "each as often as wanted, up or down"
        assert count < most or (mine == 1).all()
    assert (rows.diff() >= 0).all()


def test_full_balance_trains_on_all_classes_alike():
    decisions = torch.tensor([0] * 1000 + [1] * 400 + [2] * 100)

    counts = torch.bincount(decisions[balanced_rows(decisions, 1.0)]).tolist()

    assert counts == pytest.approx([1000, 1000, 1000], rel=0.05)
    assert balanced_rows(decisions, 0.0).tolist() == list(range(1500))
