"""Trainings that are killed and started again give the network of an undisturbed one."""

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from forked import forked_processes
from torch import Tensor, nn

from db3kd.training.callbacks import TrainingCallback
from db3kd.training.checkpoint import Checkpoint
from db3kd.training.settings import TrainSettings
from db3kd.training.train import train

SETTINGS = TrainSettings(
    steps=240,
    batch_size=16,
    learning_rate=0.01,
    schedule="cosine",
    optimizer="adamw",
    weight_decay=0.01,
    ema=0.95,
    gradient_clip=1.0,
    seed=2,
    device="cpu",
)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 3)
    )


class Losses(TrainingCallback):
    """Keeps the mean losses of all reports, also of those before a resumption."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_report(self, state):
        self.losses.append(state.loss)

    def state_dict(self):
        return {"losses": list(self.losses)}

    def load_state_dict(self, state):
        self.losses = list(state["losses"])


def trained(
    checkpoint: Checkpoint | None,
    loss: Callable[..., Tensor] = F.cross_entropy,
    settings: TrainSettings = SETTINGS,
    callbacks: tuple[TrainingCallback, ...] = (),
) -> nn.Module:
    images = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    classes = (images.sum((1, 2, 3)) * 2).long() % 3
    return train(
        network,
        images,
        classes,
        None,
        loss,
        settings,
        checkpoint=checkpoint,
        callbacks=callbacks,
    )


def values(model: nn.Module) -> list[Tensor]:
    return list(model.state_dict().values())


def killed_training(path: Path, moment: str, count: int) -> None:
    """Trains in this process, which kills itself in a step or while it writes the checkpoint."""
    left = count

    def countdown() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def loss(logits: Tensor, classes: Tensor) -> Tensor:
        if moment == "loss":
            countdown()
        return F.cross_entropy(logits, classes)

    if moment in ("fsync", "replace"):
        original = getattr(os, moment)

        def killing(*arguments):
            countdown()
            return original(*arguments)

        setattr(os, moment, killing)
    callback = Losses()
    model = trained(Checkpoint(path, "a test", every_seconds=0.002), loss, callbacks=(callback,))
    torch.save((values(model), callback.losses), path.with_suffix(".result"))


def test_a_training_killed_in_a_step_or_a_write_gives_the_network_of_an_undisturbed_one(tmp_path):
    processes = forked_processes()

    def attempt(path: Path, moment: str, count: int) -> int | None:
        process = processes.Process(target=killed_training, args=(path, moment, count))
        process.start()
        process.join(120)
        return process.exitcode

    # A process like the others: this one may have the thread settings of an earlier test.
    undisturbed, path = tmp_path / "undisturbed.checkpoint", tmp_path / "training.checkpoint"
    assert attempt(undisturbed, "none", 0) == 0
    # They come long before the last step, also on a fast machine, which writes fewer checkpoints.
    kills = (("loss", 21), ("fsync", 5), ("replace", 4), ("loss", 9))
    for moment, count in kills:
        assert attempt(path, moment, count) == -signal.SIGKILL
    assert attempt(path, "none", 0) == 0
    found, losses = torch.load(path.with_suffix(".result"), weights_only=True)
    expected, once = torch.load(undisturbed.with_suffix(".result"), weights_only=True)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert losses == once
    Checkpoint(path, "a test").remove()
    Checkpoint(undisturbed, "a test").remove()
    assert {file.suffix for file in tmp_path.iterdir()} == {".result"}


class Stopped(Exception):
    pass


def stopped_after(steps: int) -> Callable[..., Tensor]:
    left = steps

    def loss(logits: Tensor, classes: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stopped
        return F.cross_entropy(logits, classes)

    return loss


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd"}, {"precision": "bf16"}])
@pytest.mark.parametrize("steps", [1, 17, 39])
def test_a_training_continues_after_an_exception(tmp_path, steps, changes):
    settings = TrainSettings(**{**vars(SETTINGS), "steps": 40, **changes})
    path = tmp_path / "new folder" / "training.checkpoint"
    with pytest.raises(Stopped):
        trained(Checkpoint(path, {"data": "a"}, 0), stopped_after(steps), settings)
    counted = stopped_after(40 - steps)
    resumed = trained(Checkpoint(path, {"data": "a"}), counted, settings)
    expected = trained(None, settings=settings)
    assert all(torch.equal(*pair) for pair in zip(values(resumed), values(expected), strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["no", "fp16"])
def test_a_training_on_a_gpu_continues_after_an_exception(tmp_path, precision):
    settings = TrainSettings(**{**vars(SETTINGS), "device": "cuda:0", "precision": precision})
    path = tmp_path / "training.checkpoint"
    with pytest.raises(Stopped):
        trained(Checkpoint(path, "a", 0), stopped_after(100), settings)
    resumed = trained(Checkpoint(path, "a"), stopped_after(SETTINGS.steps - 100), settings)
    expected = trained(None, settings=settings)
    for found, wanted in zip(values(resumed), values(expected), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_finished_training_is_read_and_not_repeated(tmp_path):
    path = tmp_path / "training.checkpoint"
    first = trained(Checkpoint(path, "a test"))
    again = trained(Checkpoint(path, "a test"), stopped_after(0))
    assert all(torch.equal(*pair) for pair in zip(values(first), values(again), strict=True))
    assert not again.training


def test_a_requested_stop_is_kept(tmp_path):
    class Stopping(TrainingCallback):
        def on_report(self, state):
            if state.step >= 30:
                state.request_stop()

    path = tmp_path / "training.checkpoint"
    first = trained(Checkpoint(path, "a test"), callbacks=(Stopping(),))
    again = trained(Checkpoint(path, "a test"), stopped_after(0))
    assert first[1].num_batches_tracked == 30
    assert all(torch.equal(*pair) for pair in zip(values(first), values(again), strict=True))


class Drawing(TrainingCallback):
    def on_report(self, state):
        random.random()
        np.random.rand()


class Noisy(nn.Sequential):
    """Adds noise of NumPy and Python, and subtracts the mean of what it has seen."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(16, 3))
        self.register_buffer("mean", torch.zeros(1, 4, 4), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            images = images + random.random() * np.random.randn()
            self.mean.lerp_(images.mean(0), 0.1)
        return super().forward(images - self.mean)


def test_buffers_and_the_random_states_of_numpy_and_python_are_kept(tmp_path, monkeypatch):
    path = tmp_path / "training.checkpoint"
    monkeypatch.setitem(globals(), "network", Noisy)
    settings = TrainSettings(**{**vars(SETTINGS), "steps": 40})
    states = random.getstate(), np.random.get_state()[1].tolist()
    with pytest.raises(Stopped):
        trained(Checkpoint(path, "a", 0), stopped_after(17), settings)
    resumed = trained(Checkpoint(path, "a"), settings=settings)
    expected = trained(None, settings=settings, callbacks=(Drawing(),))

    assert all(torch.equal(*pair) for pair in zip(values(resumed), values(expected), strict=True))
    assert resumed.mean.equal(expected.mean) and resumed.mean.any()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_a_checkpoint_is_written_no_more_often_than_asked_for(tmp_path):
    path = tmp_path / "training.checkpoint"
    with pytest.raises(Stopped):
        trained(Checkpoint(path, "a test", every_seconds=1e6), stopped_after(200))
    assert not path.exists()


@pytest.mark.parametrize(
    ("identity", "changes", "model", "message"),
    [
        ("other", {}, None, "another identity: 'a test' instead of 'other'"),
        ("a test", {"seed": 9}, None, "another settings.seed: 2 instead of 9"),
        ("a test", {"steps": 300}, None, "another settings.steps: 240 instead of 300"),
        ("a test", {}, 5, r"another network.4.weight: \[3, 16\] instead of \[5, 16\]"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    tmp_path, monkeypatch, identity, changes, model, message
):
    path = tmp_path / "training.checkpoint"
    with pytest.raises(Stopped):
        trained(Checkpoint(path, "a test", 0), stopped_after(5))
    before = path.read_bytes()
    if model is not None:
        wider = nn.Sequential(*network()[:4], nn.Linear(16, model))
        monkeypatch.setattr(sys.modules[__name__], "network", lambda: wider)
    settings = TrainSettings(**{**vars(SETTINGS), **changes})
    with pytest.raises(ValueError, match=f"training.checkpoint: .*{message}; use another path"):
        trained(Checkpoint(path, identity, 0), settings=settings)
    assert path.read_bytes() == before


def test_callbacks_with_a_state_of_their_own_are_compared(tmp_path):
    path = tmp_path / "training.checkpoint"
    with pytest.raises(Stopped):
        trained(Checkpoint(path, "a test", 0), stopped_after(5), callbacks=(Losses(),))
    with pytest.raises(ValueError, match=r"another callbacks: \['Losses'\] instead of \[\]"):
        trained(Checkpoint(path, "a test"), callbacks=(TrainingCallback(),))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_changed_or_cut_file_is_refused(tmp_path, share):
    path = tmp_path / "training.checkpoint"
    with pytest.raises(Stopped):
        trained(Checkpoint(path, "a test", 0), stopped_after(3))
    content = path.read_bytes()
    at = round(share * len(content))
    for damaged in (content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], content[:at]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"is damaged|got a file that begins"):
            trained(Checkpoint(path, "a test"))


def test_a_file_of_another_kind_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(ValueError, match="checkpoint 2', got a file that begins with 'mine'; use"):
        trained(Checkpoint(path, "a test"))
    assert path.read_text() == "mine"


def test_a_negative_interval_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"every_seconds: .*got -1"):
        Checkpoint(tmp_path / "a", "a test", every_seconds=-1)


def test_numbers_of_numpy_are_read_back(tmp_path):
    checkpoint = Checkpoint(tmp_path / "a", {"seed": np.int64(3)})
    checkpoint.save({}, {"measures": {"share": np.float32(0.5)}, "history": [(np.int64(2), 0.25)]})
    found = Checkpoint(tmp_path / "a", {"seed": 3}).load({})
    assert found == {"measures": {"share": 0.5}, "history": [(2, 0.25)]}
    assert type(found["measures"]["share"]) is float


@pytest.mark.parametrize("name", ["a**b.checkpoint", "[ab].checkpoint"])
def test_a_name_is_no_pattern(tmp_path, name):
    checkpoint = Checkpoint(tmp_path / name)
    leftovers = [tmp_path / f".{name}.1.tmp", tmp_path / f".{name}.2.tmp"]
    for file in leftovers:
        file.touch()
    checkpoint.save({}, {"step": 1})
    assert checkpoint.load({}) == {"step": 1}
    assert not any(file.exists() for file in leftovers)


@pytest.mark.parametrize("kind", [torch.Tensor.clone, torch.Tensor.numpy, torch.Tensor.bfloat16])
def test_every_value_of_a_large_tensor_identifies_a_training(tmp_path, kind):
    targets = torch.zeros(5000)
    Checkpoint(tmp_path / "a", kind(targets)).save({}, {"step": 1})
    assert Checkpoint(tmp_path / "a", kind(targets)).load({}) == {"step": 1}
    targets[2500] = 1
    with pytest.raises(ValueError, match="another identity"):
        Checkpoint(tmp_path / "a", kind(targets)).load({})
