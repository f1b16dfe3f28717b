"""A trained teacher and a label run, which tests of several commands use."""

from pathlib import Path

import pytest
from command_line import label, succeed

from db3kd.pipelines.student_training import step_timing
from db3kd.synthesis import acquisition_settings


@pytest.fixture(autouse=True)
def _short_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times few training steps, and trains the students that choose pseudo samples for few."""
    monkeypatch.setattr(step_timing, "_WARM_UP", 1)
    monkeypatch.setattr(step_timing, "_TIMED", 3)
    monkeypatch.setattr(acquisition_settings, "_LEAST_STEPS", 10)


@pytest.fixture(autouse=True)
def _empty_figures(empty_figures: None) -> None:
    """The tests of reports draw them."""


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear network, trained on digits."""
    out = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    options = ("--model", "linear", "--epochs", 10, "--learning-rate", 0.01, "--device", "cpu")
    assert "test images" in succeed("teacher", "--data", "digits", *options, "--out", out)
    return out


@pytest.fixture(scope="session")
def run(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A label run of 40 digits. Tests must not change it."""
    out = tmp_path_factory.mktemp("run") / "bd"
    label(teacher, out, "--queries-per-pair", 30, "--snapshots", "5,10,20")
    return out
