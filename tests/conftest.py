"""What all tests share."""

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from teachers_analytic import LinearTeacher
from torch import nn

from db3kd import ops
from db3kd.models.networks import build_model

# A shell starts background jobs with interrupts ignored, which some tests send to themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Only a crash of the machine loses what a process has written and not flushed. Tests that check
# what is flushed replace this function themselves.
os.fsync = lambda descriptor: None

settings.register_profile("db3kd", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("db3kd")

HAS_CUDA = ops.build_config()["cuda"] and torch.cuda.is_available()
DEVICES = ["cpu", "cuda"] if HAS_CUDA else ["cpu"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that this machine and this build can test."""
    return torch.device(request.param)


@pytest.fixture(autouse=True, scope="module")
def _frozen_imports() -> None:
    """Keeps collections of garbage from going over all modules, a sixth of the tests' time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def images() -> torch.Tensor:
    """Twenty images of 8x8 pixels."""
    return torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def module() -> nn.Module:
    """A network that tells ten classes of such images apart."""
    torch.manual_seed(0)
    return build_model("lenet5-fifth", (1, 8, 8), 10)


@pytest.fixture(scope="session")
def truth() -> LinearTeacher:
    """A teacher of such images, ten classes, that decides each image by itself."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(10, 64, generator=generator)
    return LinearTeacher(weights - weights.mean(1, keepdim=True), torch.zeros(10), (1, 8, 8))


@pytest.fixture
def empty_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves figures without drawing them, which takes a third of a run with little training."""

    def savefig(figure: Any, file: Any, *, format: str = "png", **_: Any) -> None:
        if format == "svg":
            file.write('<svg viewBox="0 0 1 1"></svg>')
        else:
            Path(file).touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)


@pytest.fixture
def limit_chunks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Limits the samples in a chunk, so that a few images are labelled in several chunks."""
    constant = "db3kd.labelling.chunk_search.MAX_CHUNK_SAMPLES"
    return lambda samples: monkeypatch.setattr(constant, samples)


@pytest.fixture
def cache(monkeypatch, tmp_path_factory):
    """Keeps what the datasets library prepares inside the test's folder."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
