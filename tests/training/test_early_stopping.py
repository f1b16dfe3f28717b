"""Callbacks measure a training and stop it, and a resumed training decides alike."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.training.callbacks import TrainingCallback, TrainingState
from db3kd.training.checkpoint import Checkpoint
from db3kd.training.early_stopping import EarlyStopping, HeldOutAgreement
from db3kd.training.evaluation import agreement
from db3kd.training.settings import TrainSettings
from db3kd.training.train import train


def network() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def halves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images, and whether their upper half is the brighter one."""
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return images, (images[:, 0, :2].sum((1, 2)) > images[:, 0, 2:].sum((1, 2))).long()


HELD_OUT = halves(60, 1)


class Recording(TrainingCallback):
    """Keeps what each call shows of the training, and the network's weights."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.states: list[dict] = []
        self.networks: list[dict[str, Tensor]] = []

    def note(self, call: str, state: TrainingState) -> None:
        self.calls.append(call)
        self.states.append({**vars(state), "measures": dict(state.measures)})
        self.networks.append({n: t.clone() for n, t in state.network.state_dict().items()})

    def on_start(self, state):
        self.note("start", state)

    def on_report(self, state):
        self.note("report", state)

    def on_end(self, state):
        self.note("end", state)


class Scripted(TrainingCallback):
    """Measures a given value at each report."""

    def __init__(self, *values: float) -> None:
        self.values = values

    def on_report(self, state):
        state.measures["script"] = self.values[state.step - 1]


def trained(*callbacks: TrainingCallback, checkpoint=None, loss=F.cross_entropy, **changes):
    settings = {"steps": 40, "batch_size": 16, "learning_rate": 0.01, "device": "cpu", **changes}
    return train(
        network,
        *halves(80, 0),
        None,
        loss,
        TrainSettings(**settings),
        checkpoint=checkpoint,
        callbacks=callbacks,
    )


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first | second)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_callbacks_are_told_of_start_reports_and_end(ema):
    recording = Recording()
    model = trained(recording, steps=250, schedule="cosine", ema=ema)

    assert recording.calls == ["start"] + ["report"] * 84 + ["end"]
    steps = [state["step"] for state in recording.states]
    assert steps[:3] == [0, 3, 6] and steps[-3:] == [249, 250, 250]
    rates = [state["learning_rate"] for state in recording.states[1:-1]]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 1e-5 < rates[0] < 0.01
    assert all(state["steps"] == 250 and state["is_main"] for state in recording.states)
    seconds = [state["seconds"] for state in recording.states]
    assert seconds == sorted(seconds) and seconds[-1] > 0
    # The network of the last report is the one returned, with averaged weights too.
    assert same(recording.networks[-2], model.state_dict())


def test_held_out_agreement_is_that_of_the_network_at_the_report():
    decisions = HELD_OUT[1].clone()
    decisions[::4] = -1
    held_out, recording = HeldOutAgreement(HELD_OUT[0], decisions), Recording()
    model = trained(held_out, recording)

    shares = [s["measures"]["held-out agreement"] for s in recording.states[1:-1]]
    assert held_out.history == list(zip(range(1, 41), shares, strict=True))
    assert shares[-1] == agreement(model, HELD_OUT[0], decisions)
    assert shares[-1] > 0.7 and len(set(shares)) > 3


def test_measuring_does_not_change_the_training():
    assert same(trained().state_dict(), trained(HeldOutAgreement(*HELD_OUT)).state_dict())


def test_early_stopping_returns_the_weights_of_the_best_report():
    script = Scripted(0.1, 0.5, 0.4, 0.7, 0.7, 0.6, 0.2, *[0.9] * 40)
    stopping, recording = EarlyStopping("script", patience=3), Recording()
    model = trained(script, recording, stopping)

    assert (stopping.best, stopping.best_step) == (0.7, 4)
    assert [state["step"] for state in recording.states] == [0, 1, 2, 3, 4, 5, 6, 7, 7]
    assert same(model.state_dict(), recording.networks[4])
    assert not same(model.state_dict(), recording.networks[7])


def test_a_measure_that_is_nan_is_lower_than_any_number():
    stopping = EarlyStopping("script", patience=3)
    trained(Scripted(math.nan, math.nan, 0.3, math.nan, 0.2, *[0.1] * 35), stopping)
    assert (stopping.best, stopping.best_step) == (0.3, 3)

    recording = Recording()
    trained(Scripted(*[math.nan] * 40), recording, EarlyStopping("script", patience=3))
    assert recording.states[-1]["step"] == 4


def test_early_stopping_may_be_used_for_one_training_after_the_other():
    stopping = EarlyStopping("script", patience=3)
    trained(Scripted(*[0.9] * 40), stopping)
    trained(Scripted(*[0.1, 0.2, 0.3], *[0.0] * 37), stopping)
    assert (stopping.best, stopping.best_step) == (0.3, 3)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("steps", [3, 12, 35])
@pytest.mark.parametrize("ema", [None, 0.8])
def test_a_resumed_training_stops_where_an_undisturbed_one_does(tmp_path, steps, ema):
    left = steps

    def loss(logits: Tensor, classes: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stopped
        return F.cross_entropy(logits, classes)

    def callbacks() -> tuple[HeldOutAgreement, EarlyStopping]:
        return HeldOutAgreement(*HELD_OUT), EarlyStopping(patience=12)

    path = tmp_path / "training.checkpoint"
    with pytest.raises(Stopped):
        trained(*callbacks(), checkpoint=Checkpoint(path, "a", 0), loss=loss, ema=ema, steps=100)
    resumed = callbacks()
    model = trained(*resumed, checkpoint=Checkpoint(path, "a", 0), ema=ema, steps=100)
    undisturbed = callbacks()
    expected = trained(*undisturbed, ema=ema, steps=100)

    assert same(model.state_dict(), expected.state_dict())
    assert resumed[0].history == undisturbed[0].history
    assert resumed[1].best_step == undisturbed[1].best_step
    assert len(resumed[0].history) < 100, "the training stopped early"


def test_a_measure_that_nobody_takes_is_named():
    with pytest.raises(ValueError, match=r"measure: expected one of \['script'\].*got 'other'"):
        trained(Scripted(*[0.0] * 40), EarlyStopping("other"))
    with pytest.raises(ValueError, match="put HeldOutAgreement before it"):
        trained(EarlyStopping(), HeldOutAgreement(*HELD_OUT))
    with pytest.raises(ValueError, match="patience: expected an integer of at least 1, got 0"):
        EarlyStopping(patience=0)


def test_held_out_images_need_decisions():
    images = HELD_OUT[0]
    with pytest.raises(
        ValueError, match=r"decisions: expected 60 classes of at least -1, got \[3\]"
    ):
        HeldOutAgreement(images, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="decisions: expected at least one answer"):
        HeldOutAgreement(images, torch.full((60,), -1))


def test_the_best_weights_have_their_buffers(monkeypatch):
    class Counting(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Flatten(), nn.Linear(16, 2))
            self.register_buffer("steps", torch.zeros(()), persistent=False)

        def forward(self, images: Tensor) -> Tensor:
            self.steps += self.training
            return super().forward(images)

    monkeypatch.setitem(globals(), "network", Counting)
    model = trained(Scripted(0.1, 0.9, 0.2, 0.2), EarlyStopping("script", 9), steps=4)
    assert model.steps == 2
