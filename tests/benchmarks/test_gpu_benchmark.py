"""`make gpu` as far as a machine without a GPU can rehearse it."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

REASON = "benchmarks are not installed"
gpu = pytest.importorskip("benchmarks.gpu.measure", reason=REASON)
gpu_ops = pytest.importorskip("benchmarks.gpu.ops", reason=REASON)
gpu_device = pytest.importorskip("benchmarks.gpu.device", reason=REASON)
gpu_expected = pytest.importorskip("benchmarks.gpu.expected", reason=REASON)
gpu_part = pytest.importorskip("benchmarks.gpu.part", reason=REASON)
timed_teacher = pytest.importorskip("benchmarks.common.timed_teacher", reason=REASON)
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


OPS = ("bracket_queries", "probe_queries", "probe_gradient", "bracket_step", "soft_labels")


def run_main(monkeypatch, folder: Path, *options: str) -> dict:
    """Runs the command on the CPU, and returns what it wrote, also if it failed."""
    command = ["gpu", "--device", "cpu", "--small", "--no-compile", "--folder", str(folder)]
    monkeypatch.setattr(sys, "argv", [*command, "--save", "some", *options])
    try:
        gpu.main()
    finally:
        found = json.loads((folder / "some.json").read_text())
    return found


@pytest.fixture
def quick_parts(monkeypatch) -> dict:
    """Replaces the parts by some that take no time."""
    parts = {"first": lambda: iter([{"name": "a"}, {"name": "b"}]), "second": dict, "third": dict}
    monkeypatch.setattr(gpu.Measurement, "parts", lambda self, compiled: parts)
    monkeypatch.setattr(gpu, "table", lambda result, names: "table")
    return parts


def test_every_part_is_measured_on_a_cpu_too(short_procedure, monkeypatch, tmp_path):
    result = run_main(monkeypatch, tmp_path)
    rows = [row for op in OPS for row in result[op]]
    assert not [row for row in rows if "error" in row or "error" in row.get("eager", {})]
    assert all(row["lower_bounds"]["H100"] > row["lower_bounds"]["H200"] > 0 for row in rows)
    run = result["labelling_lenet5-fifth"]
    assert 0 < run["share_in_teacher"] < 1
    assert run["queries"] <= 200 + 4 * 9 * 30
    assert run["projected_wall"] == pytest.approx(run["wall"] * 60_000 / 4)
    theirs = result["paper_procedure"]["paper_procedure"]
    assert theirs["mean_distance"] > 0 and theirs["queries"] <= 9 * 30
    table = (tmp_path / "some.md").read_text()
    assert all(row["name"] in table for row in rows)


def test_a_part_that_fails_leaves_the_others(quick_parts, monkeypatch, tmp_path, capsys):
    quick_parts["second"] = lambda: 1 / 0
    with pytest.raises(SystemExit, match=r"^failed: second; see the result"):
        run_main(monkeypatch, tmp_path)
    kept = json.loads((tmp_path / "some.json").read_text())
    assert kept["second"] == {"error": "ZeroDivisionError: division by zero"}
    assert kept["first"] == [{"name": "a"}, {"name": "b"}] and kept["third"] == {}
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_case_that_fails_leaves_the_others(monkeypatch):
    def measured(case, device, watch):
        if "float16" in case.name:
            raise RuntimeError("out of memory")
        time = {"median": 1.0}
        return {"name": case.name, "native": time, "native_with_launch": time}

    monkeypatch.setattr(gpu_ops, "_measured", measured)
    cases = gpu_ops.op_cases(CPU, True)["bracket_queries"]
    rows = list(gpu_ops.measure_cases(CPU, None, 1.0, cases))
    assert ["error" in row for row in rows] == [False, False, True, True]
    assert gpu.has_failed(rows) and not gpu.has_failed(rows[:2])


def test_results_are_written_as_they_come_and_measured_once(quick_parts, monkeypatch, tmp_path):
    file = tmp_path / "there" / "some.json"
    seen = []

    def look():
        seen.append(json.loads(file.read_text()))
        return {}

    def rows():
        yield {"name": "a"}
        look()

    monkeypatch.setenv("DB3KD_COMMIT", "abc")
    quick_parts.update(first=rows, second=look)
    assert run_main(monkeypatch, file.parent)["measured"]["commit"] == "abc"
    # A part that is killed is not taken for a whole one.
    assert seen[0]["first"] == [{"name": "a"}, {"error": "it did not end"}]
    assert seen[1]["first"] == [{"name": "a"}] and seen[1]["second"] == {"error": "it did not end"}

    quick_parts.update(first=lambda: 1 / 0, second=lambda: {"again": True})
    again = run_main(monkeypatch, file.parent)
    assert again["first"] == [{"name": "a"}] and again["second"] == {}
    assert run_main(monkeypatch, file.parent, "--again", "--only", "second")["second"]["again"]

    # Results of another commit are dropped, and only the named part is measured.
    monkeypatch.setenv("DB3KD_COMMIT", "def")
    last = run_main(monkeypatch, file.parent, "--only", "third")
    assert "first" not in last and last["third"] == {}
    assert sorted(path.name for path in file.parent.iterdir()) == ["some.json", "some.md"]


def test_failed_parts_are_measured_after_missing_ones(quick_parts):
    run = gpu.Measurement(CPU, True, {"first": {"error": "it did not end"}, "second": {}})
    assert run.order(quick_parts) == ["third", "first"]
    assert run.order(quick_parts, tried=["third"]) == ["first"]


def test_parts_that_do_not_fit_the_time_are_left_to_the_next_run(
    quick_parts, monkeypatch, tmp_path
):
    with pytest.raises(SystemExit, match="not measured within --seconds: first, second, third"):
        run_main(monkeypatch, tmp_path, "--seconds", "-1")
    assert run_main(monkeypatch, tmp_path)["third"] == {}


def test_a_broken_device_gets_a_new_process(quick_parts, monkeypatch, tmp_path):
    """As after an illegal access, which makes every later call of the process fail."""
    started = []

    def replace(program, arguments):
        started.append(arguments)
        raise SystemExit("replaced")

    monkeypatch.setattr(os, "execv", replace)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-P", "-m", "benchmarks.gpu", "--save"])
    monkeypatch.setattr(gpu, "is_broken", lambda device: True)
    with pytest.raises(SystemExit, match="replaced"):
        run_main(monkeypatch, tmp_path, "--tried", "second", "--seconds", "100")
    (arguments,) = started
    assert arguments[1:5] == ["-P", "-m", "benchmarks.gpu", "--save"]
    assert 0 < float(arguments[arguments.index("--seconds") + 1]) < 101
    assert arguments[arguments.index("--tried") + 1 :] == ["second", "first"]


def test_no_further_case_is_tried_on_a_broken_device(monkeypatch):
    monkeypatch.setattr(gpu_ops, "is_broken", lambda device: True)
    rows = list(gpu_ops.measure_cases(CPU, None, 1.0, [lambda: 1 / 0] * 3))
    assert [row["name"] for row in rows] == ["case 0"]


def test_an_unknown_part_is_named(quick_parts, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="--only: expected some of first, second, third, got ops"):
        run_main(monkeypatch, tmp_path, "--only", "ops")


def test_expected_figures_stand_beside_measured_ones():
    cost = gpu_expected.Cost(written=3_350_000_000, read=0, operations=1)
    assert cost.lower_bound(gpu_expected.data_sheet("NVIDIA H100 80GB HBM3")) == pytest.approx(1e-3)
    assert gpu_expected.data_sheet("NVIDIA H100 PCIe").bytes_per_second == 2.0e12
    assert gpu_expected.data_sheet("cpu") is None
    row = {"name": "op", "native": {"median": 4e-3}, "share_of_copy": 0.25}
    share = gpu_expected.Expected("share_of_copy", 0.6, 0.8)
    gpu_expected.with_expectation(row, cost, share, "NVIDIA H100 80GB HBM3")
    assert row["share_of_roofline"] == pytest.approx(0.25) and row["as_expected"] is False
    result = {"device": {"name": "H"}, "measured": {"commit": "c"}, "ops": [row]}
    line = gpu_expected.table(result, ["ops"]).splitlines()[-1]
    assert line.split("|")[4:8] == [" 4,000.0 µs ", " 60 to 80 % of copy ", " 25% ", " below "]


def test_time_in_calls_that_overlap_counts_once():
    assert timed_teacher.union_of([(5, 6), (0, 2), (1, 3), (1.5, 2)]) == 4
    assert timed_teacher.union_of([]) == 0


# The parts of make gpu


def test_a_part_keeps_its_output_and_how_it_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("DB3KD_COMMIT", "abc")
    command = [sys.executable, "-c", "print('one'); raise SystemExit(3)"]
    outcome = gpu_part.run(command, 60, tmp_path / "made" / "gpu-test.log")
    assert outcome["exit"] == 3 and outcome["last_lines"] == ["one"]
    assert (tmp_path / "made" / "gpu-test.log").read_text() == "one\n"
    file = tmp_path / "gpu-parts.json"
    for name in ("build", "test", "test"):
        gpu_part.record(file, name, outcome)
    kept = json.loads(file.read_text())
    assert list(kept) == ["build", "test"] and kept["test"] == {"commit": "abc", **outcome}


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_part_that_takes_too_long_ends_with_its_children(tmp_path):
    pid = tmp_path / "pid"
    start = time.monotonic()
    outcome = gpu_part.run(
        ["sh", "-c", f"echo begun; sleep 600 & echo $! > {pid}; wait"], 2, tmp_path / "log"
    )
    assert outcome["exit"] == gpu_part.TIMED_OUT and time.monotonic() - start < 300
    assert outcome["last_lines"] == ["begun", "it took longer than 2 s and was ended"]
    # A killed process is gone as soon as the kernel has run it once more.
    while not has_ended(int(pid.read_text())) and time.monotonic() - start < 300:
        time.sleep(0.01)
    assert has_ended(int(pid.read_text()))


def test_no_part_of_make_gpu_hides_the_others(tmp_path):
    log = tmp_path / "log"
    doubles = {
        # Tests fail; everything else that Python is asked for succeeds.
        "python": f'case "$*" in *gpu/part.py*) exec {sys.executable} "$@";; '
        '*"-m pytest"*) exit 1;; esac',
        # One tool finds a fault, the other does not work on this device.
        "sanitizer": 'case "$*" in --help) exit 0;; *memcheck*) echo found; exit 1;; esac\n'
        'echo "Error: Device not supported"; exit 1',
    }
    for name, body in doubles.items():
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{body}\n')
        script.chmod(0o755)
    names = {
        "PYTHON": "python",
        "SANITIZER": "sanitizer",
        "GPU_BUILD": "build",
        "GPU_RESULTS": "results",
    }
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
        next((part for part in parts if f"{part} " in f"{line} " and "part.py" not in line), "")
        for line in log.read_text().splitlines()
    ]
    assert [call for call in calls if call] == list(parts)
    kept = json.loads((tmp_path / "results" / "gpu-parts.json").read_text())
    ended = {name: part["exit"] == 0 for name, part in kept.items()}
    assert ended == {"build": True, "test": False, "bench": True, "sanitize": False}
    assert "found" in kept["sanitize"]["last_lines"]


def variable(name: str, text: str) -> str:
    """The value of a variable of the Makefile, as it is written there."""
    return re.search(rf"^{name} [?:]?= ((?:.*\\\n)*.*)", text, re.MULTILINE)[1]


def test_the_parts_of_make_gpu_fit_into_eight_minutes():
    text = (ROOT / "Makefile").read_text()
    parts = ("build", "test", "bench", "sanitize")
    seconds = [int(variable(f"GPU_SECONDS_{part}", text)) for part in parts]
    assert sum(seconds) <= 480


def test_make_gpu_runs_every_test_that_needs_a_gpu():
    text = (ROOT / "Makefile").read_text()
    listed = set(re.findall(r"\w+(?=\.py)", variable("GPU_TESTS", text)))
    needs_gpu = re.compile(r"skipif\(\s*not .*cuda\.is_available", re.DOTALL)
    found = {
        file.stem.removeprefix("test_")
        for file in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"(cuda|needs_gpu) = pytest\.mark\.skipif", file.read_text())
        or needs_gpu.search(file.read_text())
    }
    # Students are trained with accelerate, which a machine that tests kernels need not have.
    assert found - {name.removeprefix("test_") for name in listed} <= {
        "student",
        "training_checkpoint",
        "gpu_benchmark",
    }
    folders = {file.name for file in (ROOT / "tests").rglob("test_*.py")}
    assert {f"test_{name.removeprefix('test_')}.py" for name in listed} <= folders


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


def test_a_package_and_headers_that_are_missing_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_needs, "find_spec", lambda name: None if name == "ninja" else name)
    monkeypatch.setattr(gpu_needs.sysconfig, "get_path", lambda name: str(tmp_path))
    missing = gpu_needs.missing()
    assert {"ninja", f"Python's headers ({tmp_path}/Python.h)"} <= set(missing)
    assert "numpy" not in missing
