"""Trainings are logged through accelerate's trackers, as TensorBoard reads them."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from db3kd.training.callbacks import TrainingCallback
from db3kd.training.checkpoint import Checkpoint
from db3kd.training.settings import TrainSettings
from db3kd.training.tracker import TrackerCallback
from db3kd.training.train import train

pytest.importorskip("tensorboard")
pytest.importorskip("accelerate")
from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SETTINGS = TrainSettings(steps=30, batch_size=10, learning_rate=0.01, device="cpu")


@pytest.fixture(autouse=True)
def fresh_state():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


class Measuring(TrainingCallback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_report(self, state):
        state.measures["half of the steps"] = state.step / 2
        self.losses.append(state.loss)


class Stopping(TrainingCallback):
    def on_report(self, state):
        if state.step == 17:
            raise KeyboardInterrupt


class Recording(GeneralTracker):
    """Stands in for Weights & Biases, which is not installed."""

    name = "wandb"
    requires_logging_directory = False
    tracker = None
    made: ClassVar[list[tuple[str, dict[str, str], bool]]] = []

    def __init__(self, run_name: str, **options: str) -> None:
        super().__init__()
        self.made.append((run_name, options, Path(options["dir"]).is_dir()))

    def start(self) -> None:
        """Nothing is opened."""

    def store_init_configuration(self, values: dict) -> None:
        """Nothing is kept."""

    def log(self, values: dict, step: int | None = None, **options: str) -> None:
        """Nothing is kept."""


def trained(*callbacks: TrainingCallback, checkpoint: Checkpoint | None = None) -> nn.Module:
    return train(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 2)),
        torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(0)),
        torch.arange(40) % 2,
        None,
        F.cross_entropy,
        SETTINGS,
        checkpoint=checkpoint,
        callbacks=callbacks,
    )


def logged(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def test_tensorboard_shows_what_was_reported(tmp_path):
    measuring = Measuring()
    settings = dataclasses.asdict(SETTINGS)
    trained(measuring, TrackerCallback("tensorboard", "one", tmp_path, settings))

    events = logged(tmp_path / "one")
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == list(range(1, 31))
    assert [event.value for event in losses] == pytest.approx(measuring.losses)
    assert [event.value for event in events.Scalars("learning_rate")] == pytest.approx([0.01] * 30)
    assert [e.value for e in events.Scalars("half of the steps")] == [n / 2 for n in range(1, 31)]
    assert "learning_rate: 0.01" in next((tmp_path / "one").rglob("hparams.yml")).read_text()


def test_a_resumed_training_is_logged_as_one(tmp_path):
    checkpoint = tmp_path / "training.checkpoint"

    def tracker() -> TrackerCallback:
        return TrackerCallback("tensorboard", "one", tmp_path)

    with pytest.raises(KeyboardInterrupt):
        trained(tracker(), Stopping(), checkpoint=Checkpoint(checkpoint, "a", every_seconds=0))
    trained(tracker(), checkpoint=Checkpoint(checkpoint, "a"))

    steps = [event.step for event in logged(tmp_path / "one").Scalars("loss")]
    assert steps == list(range(1, 31)), "step 17 was logged twice and is shown once"


class Own(GeneralTracker):
    name = "own"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, dict] = {}
        self.stored: dict = {}
        self.finished = False

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.stored = values

    def log(self, values, step=None, **_):
        self.values[step] = values

    def finish(self):
        self.finished = True


def test_a_tracker_of_the_callers_is_used_and_left_open():
    own = Own()
    trained(Measuring(), TrackerCallback(own, configuration={"seed": 3, "ema": None}))
    assert list(own.values) == list(range(1, 31))
    assert set(own.values[30]) == {"loss", "learning_rate", "half of the steps"}
    assert own.stored == {"seed": 3}
    assert not own.finished


def test_trackers_that_cannot_be_used_are_refused_before_the_training(monkeypatch):
    with pytest.raises(ValueError, match=r"tracker: expected one of .*tensorboard.*, got 'paper'"):
        TrackerCallback("paper")
    with pytest.raises(ValueError, match="logging_dir: 'tensorboard' writes files"):
        TrackerCallback("tensorboard")
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(ModuleNotFoundError, match="'wandb' is not installed: pip install wandb"):
        TrackerCallback("wandb")


def test_a_tracker_is_closed_if_the_training_is_interrupted(tmp_path, monkeypatch):
    from accelerate.tracking import TensorBoardTracker

    closed = []
    monkeypatch.setattr(TensorBoardTracker, "finish", lambda self: closed.append(self))
    own = Own()
    trackers = TrackerCallback("tensorboard", "one", tmp_path), TrackerCallback(own)
    with pytest.raises(KeyboardInterrupt):
        trained(*trackers, Stopping())
    assert len(closed) == 1 and not own.finished


def test_the_folder_of_wandb_is_made_when_the_training_starts(tmp_path, monkeypatch):
    from accelerate import tracking

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Recording)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["wandb"])
    folder = tmp_path / "run/logs"
    callback = TrackerCallback("wandb", logging_dir=folder, name="student")
    assert not folder.exists()  # a run refuses a folder that is not empty

    trained(callback)

    assert Recording.made == [("db3kd", {"name": "student", "dir": str(folder)}, True)]


@pytest.mark.parametrize("failing", ["on_start", "on_report", "on_end"])
def test_only_callbacks_that_were_started_and_not_ended_are_told_of_an_exception(failing):
    calls = []

    class Told(TrainingCallback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_exception(self, state, error):
            calls.append((self.name, type(error)))
            raise OSError(self.name)

    class Failing(Told):
        pass

    def fail(self, state):
        raise ValueError(failing)

    setattr(Failing, failing, fail)
    with pytest.raises(ValueError, match=failing) as raised:
        trained(Told("first"), Failing("second"), Told("third"))
    told = {
        "on_start": ["first", "second"],
        "on_report": ["first", "second", "third"],
        "on_end": ["third"],
    }[failing]
    assert calls == [(name, ValueError) for name in told]
    assert len(raised.value.__notes__) == len(told)
