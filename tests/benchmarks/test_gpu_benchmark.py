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
gpu = pytest.importorskip("benchmarks.gpu.measure", reason=REASON)
gpu_ops = pytest.importorskip("benchmarks.gpu.ops", reason=REASON)
record = pytest.importorskip("benchmarks.common.record", reason=REASON)
gpu_needs = pytest.importorskip("benchmarks.gpu.needs", reason=REASON)
generated = pytest.importorskip("benchmarks.common.generated", reason=REASON)

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for a busy core would take most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def short_procedure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Replaces the paper's procedure by a bisection towards the first start."""

    def paper_search(decide, image, source, target, starts, budget, rng, *, sign_opt):
        assert sign_opt
        assert (decide(starts) == target).all() and source != target
        low, high = 0.0, 1.0
        for _ in range(budget):
            middle = (low + high) / 2
            hit = decide((image + middle * (starts[0] - image))[None])[0] == target
            low, high = (low, middle) if hit else (middle, high)
        return high * float(np.linalg.norm(starts[0] - image)), budget

    module = ModuleType("benchmarks.peers.paper_procedure")
    module.paper_search = paper_search
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_every_part_is_measured_on_a_cpu_too(short_procedure):
    result = gpu.measure(CPU, small=True, compiled=False)
    assert json.dumps(result)
    assert not [row for row in result["ops"] if "error" in row.get("eager", {})]
    run = result["labelling_lenet5-fifth"]
    assert 0 < run["share_in_teacher"] < 1
    assert run["queries"] <= 200 + 4 * 9 * 30
    assert run["projected_wall"] == pytest.approx(run["wall"] * 60_000 / 4)
    theirs = result["paper_procedure"]["paper_procedure"]
    assert theirs["mean_distance"] > 0 and theirs["queries"] <= 9 * 30


def test_a_part_that_fails_leaves_the_others(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "measure_ops", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(gpu, "measure_paper_procedure", lambda *_: {})
    result = gpu.measure(CPU, small=True, compiled=False)
    assert result["ops"] == {"error": "ZeroDivisionError: division by zero"}
    assert "wall" in result["labelling_lenet5-fifth"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_op_that_fails_leaves_the_others(monkeypatch):
    def measured(case, watch, compiled):
        if case.name.startswith("probe_queries"):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        time = {"median": 1.0}
        return {"name": case.name, "native": time, "native_with_launch": time}

    monkeypatch.setattr(gpu_ops, "_measured", measured)
    rows = list(gpu_ops.measure_ops(CPU, None, 1.0, small=True, compiled=False))
    failed = [row["name"].split(",")[0] for row in rows if "error" in row]
    assert set(failed) == {"probe_queries"} and len(rows) > len(failed) > 0
    assert gpu.has_failed(rows)


def test_results_are_written_after_each_part_and_measured_once(monkeypatch, tmp_path, capsys):
    file = tmp_path / "there" / "some.json"
    command = ["gpu", "--device", "cpu", "--small", "--no-compile", "--folder", str(file.parent)]
    monkeypatch.setattr(sys, "argv", [*command, "--save", "some"])
    monkeypatch.setenv("DB3KD_COMMIT", "abc")
    monkeypatch.setattr(record, "_git", lambda *_: "")
    rows = [{"name": "first"}, {"name": "second"}]
    monkeypatch.setattr(gpu, "measure_ops", lambda *_, **__: iter(rows))
    monkeypatch.setattr(gpu, "measure_run", lambda *_: json.loads(file.read_text()))
    monkeypatch.setattr(gpu, "measure_paper_procedure", lambda *_: 1 / 0)
    with pytest.raises(SystemExit, match="failed: paper_procedure;"):
        gpu.main()
    kept = json.loads(file.read_text())
    assert kept["measured"]["commit"] == "abc" and kept["ops"] == rows
    assert kept["paper_procedure"] == {"error": "ZeroDivisionError: division by zero"}
    # The ops had been written before the run was measured.
    assert kept["labelling_lenet5-fifth"]["ops"] == rows

    monkeypatch.setattr(gpu, "measure_ops", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(gpu, "measure_run", lambda *_: 1 / 0)
    monkeypatch.setattr(gpu, "measure_paper_procedure", lambda *_: {"fine": True})
    gpu.main()
    again = json.loads(file.read_text())
    assert again["ops"] == rows and again["paper_procedure"] == {"fine": True}

    # Results of another commit are dropped, and only the named part is measured.
    monkeypatch.setenv("DB3KD_COMMIT", "def")
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", "paper_procedure"])
    gpu.main()
    last = json.loads(file.read_text())
    assert "ops" not in last and last["paper_procedure"] == {"fine": True}
    assert [path.name for path in file.parent.iterdir()] == ["some.json"]


def test_an_unknown_part_is_named(monkeypatch):
    with pytest.raises(SystemExit, match="--only: expected some of ops, labelling_lenet5-fifth"):
        gpu.measure(CPU, small=True, compiled=False, only=["op"])


def test_no_part_of_make_gpu_hides_the_others(tmp_path):
    log = tmp_path / "log"
    doubles = {
        # Tests fail; everything else that Python is asked for succeeds.
        "python": 'case "$*" in *"-m pytest"*) exit 1;; esac',
        # One tool finds a fault, the other does not work on this device.
        "sanitizer": 'case "$*" in --help) exit 0;; *memcheck*) echo found; exit 1;; esac\n'
        'echo "Error: Device not supported"; exit 1',
    }
    for name, body in doubles.items():
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{body}\n')
        script.chmod(0o755)
    names = {"PYTHON": "python", "SANITIZER": "sanitizer", "GPU_BUILD": "build"}
    done = subprocess.run(
        ["make", "gpu", *(f"{variable}={tmp_path / name}" for variable, name in names.items())],
        # Without the variables of a make that runs these tests.
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == "gpu: failed: gpu-test gpu-sanitize"
    assert "found\n" in done.stdout
    assert "gpu-sanitize: SKIPPED racecheck, this device does not allow it" in done.stdout
    parts = ("setup.py", "-m pytest", "benchmarks.gpu --save", "memcheck", "racecheck")
    calls = [
        next((part for part in parts if part in line), "") for line in log.read_text().splitlines()
    ]
    assert [call for call in calls if call] == list(parts)


def test_generated_images_can_be_learnt():
    images, labels = generated.generated_images((1, 12, 12), 4, 300, 0, CPU)
    assert images.min() >= 0 and images.max() <= 1
    network = generated.trained_network("lenet5-fifth", images, labels, 4, steps=150)
    assert (
        generated.accuracy(network, *generated.generated_images((1, 12, 12), 4, 100, 1, CPU)) > 0.8
    )


def test_what_is_missing_is_listed_in_one_line(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "needs.py")]
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
