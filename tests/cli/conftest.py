"""A trained teacher and a label run, which tests of several commands use."""

from pathlib import Path

import pytest
from command_line import label, succeed


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
