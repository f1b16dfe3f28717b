"""`make gpu` as far as a machine without a GPU can rehearse it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

REASON = "benchmarks are not installed"
gpu = pytest.importorskip("benchmarks.gpu", reason=REASON)
gpu_needs = pytest.importorskip("benchmarks.gpu_needs", reason=REASON)
generated = pytest.importorskip("benchmarks.generated", reason=REASON)

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for a busy core would take most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A procedure that bisects towards the first start, in the place of the published one."""

    def published_search(decide, image, own, target, starts, budget, rng, *, descent):
        assert descent
        assert (decide(starts) == target).all() and own != target
        low, high = 0.0, 1.0
        for _ in range(budget):
            middle = (low + high) / 2
            hit = decide((image + middle * (starts[0] - image))[None])[0] == target
            low, high = (low, middle) if hit else (middle, high)
        return high * float(np.linalg.norm(starts[0] - image)), budget

    module = ModuleType("benchmarks.published")
    module.published_search = published_search
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_every_part_is_measured_on_a_cpu_too(published):
    result = gpu.measure(CPU, small=True, compiled=False)
    assert json.dumps(result)
    assert not [row for row in result["ops"] if "error" in row.get("eager", {})]
    run = result["labelling_lenet5-fifth"]
    assert 0 < run["share_in_teacher"] < 1
    assert run["queries"] <= 200 + 4 * 9 * 30
    assert run["projected_wall"] == pytest.approx(run["wall"] * 60_000 / 4)
    theirs = result["published"]["published"]
    assert theirs["mean_distance"] > 0 and theirs["queries"] <= 9 * 30


def test_a_part_that_fails_leaves_the_others(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "measure_ops", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(gpu, "measure_published", lambda *_: {})
    result = gpu.measure(CPU, small=True, compiled=False)
    assert result["ops"] == {"error": "ZeroDivisionError: division by zero"}
    assert "wall" in result["labelling_lenet5-fifth"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_generated_images_can_be_learnt():
    images, labels = generated.generated_images((1, 12, 12), 4, 300, 0, CPU)
    assert images.min() >= 0 and images.max() <= 1
    network = generated.trained_network("lenet5-fifth", images, labels, 4, steps=150)
    assert (
        generated.accuracy(network, *generated.generated_images((1, 12, 12), 4, 100, 1, CPU)) > 0.8
    )


def test_what_is_missing_is_said_in_one_line(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_needs.py")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "CXX": str(tmp_path / "none")}
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 1
    line = found.stderr.splitlines()[-1]
    assert line.startswith(f"make gpu: {sys.executable} lacks ")
    assert "torch" in line and "a C++ compiler" in line


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(gpu_needs, "find_spec", lambda name: None if name == "ninja" else name)
    assert "ninja" in gpu_needs.missing()
    assert "numpy" not in gpu_needs.missing()
