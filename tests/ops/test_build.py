"""The choice between a CUDA and a CPU build, and the configuration of the built extension."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from db3kd import ops

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def setup_module() -> ModuleType:
    """setup.py as a module; importing it builds nothing."""
    spec = importlib.util.spec_from_file_location("db3kd_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("environment", "torch_cuda", "toolkit", "expected"),
    [
        ({}, "13.0", "/toolkit", True),
        ({}, "13.0", None, False),
        ({}, None, "/toolkit", False),
        ({}, None, None, False),
        ({"FORCE_CPU": "1"}, "13.0", "/toolkit", False),
        ({"FORCE_CPU": "0", "FORCE_CUDA": "0"}, "13.0", "/toolkit", True),
        ({"FORCE_CUDA": "1"}, "13.0", "/toolkit", True),
        ({"CUDA_VISIBLE_DEVICES": ""}, "13.0", "/toolkit", True),
    ],
)
def test_cuda_is_chosen_if_torch_and_a_toolkit_allow_it(
    setup_module, environment, torch_cuda, toolkit, expected
):
    use_cuda, reason = setup_module.choose_cuda(environment, torch_cuda, toolkit)
    assert use_cuda is expected
    assert reason


@pytest.mark.parametrize(
    ("environment", "torch_cuda", "toolkit", "message"),
    [
        (
            {"FORCE_CUDA": "1", "FORCE_CPU": "1"},
            "13.0",
            "/toolkit",
            "at most one of them, got both",
        ),
        ({"FORCE_CUDA": "1"}, None, "/toolkit", "expected a CUDA build of torch, got a CPU build"),
        ({"FORCE_CUDA": "1"}, "13.0", None, "expected a CUDA toolkit, found none; set CUDA_HOME"),
    ],
)
def test_a_forced_build_that_is_impossible_is_an_error(
    setup_module, environment, torch_cuda, toolkit, message
):
    with pytest.raises(ValueError, match=message):
        setup_module.choose_cuda(environment, torch_cuda, toolkit)


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_a_build_on_another_system_is_refused(setup_module, monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(SystemExit, match=f"^db3kd builds and runs only on Linux, got {system}$"):
        setup_module.main()


@pytest.mark.parametrize("missing", ["torch", "pybind11"])
def test_a_build_without_a_requirement_says_how_to_install(tmp_path, missing):
    (tmp_path / f"{missing}.py").write_text(f"raise ImportError(name='{missing}')\n")
    result = subprocess.run(
        [sys.executable, str(ROOT / "setup.py"), "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert result.stderr.splitlines() == [
        f"db3kd: building needs {missing}; install it, or let pip do it: "
        "pip install . without --no-build-isolation"
    ]


@pytest.fixture
def fake_torch(monkeypatch, tmp_path) -> Path:
    """The folder of a torch without CUDA, which setup.py builds against in this test."""
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "version.py").write_text("cuda = None\n")
    monkeypatch.setenv("DB3KD_TORCH", str(folder))
    monkeypatch.setattr("pybind11.setup_helpers.ParallelCompile.install", lambda self: None)
    monkeypatch.chdir(ROOT)
    return folder


def test_pybind11_is_not_taken_from_a_torch_that_has_its_own(setup_module, fake_torch):
    own = fake_torch / "include" / "pybind11" / "pybind11.h"
    own.parent.mkdir(parents=True)
    own.write_text("")
    extension, _, _ = setup_module.native_build()
    found = [Path(folder) / "pybind11" / "pybind11.h" for folder in extension.include_dirs]
    assert next(file for file in found if file.exists()) != own


def test_builds_of_different_kinds_share_no_folder(setup_module, fake_torch, monkeypatch):
    monkeypatch.setattr(setup_module, "add_cuda", lambda extension: None)
    folders = set()
    for use_cuda in (False, True):
        monkeypatch.setattr(setup_module, "choose_cuda", lambda *_, cuda=use_cuda: (cuda, "test"))
        for sanitize in "01":
            monkeypatch.setenv("SANITIZE", sanitize)
            folders.add(setup_module.native_build()[2]["build"]["build_base"])
    assert len(folders) == 4


def test_torch_finds_the_ninja_of_this_python_off_the_path(setup_module, monkeypatch, tmp_path):
    pytest.importorskip("ninja")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("ninja") is None
    setup_module.put_ninja_on_path()
    assert shutil.which("ninja") is not None


def test_build_config_describes_the_build():
    config = ops.build_config()
    assert config.keys() == {
        "cuda",
        "cuda_version",
        "architectures",
        "torch_version",
        "torch_minimum",
        "compiler",
        "sanitizers",
    }
    # Any torch of the stable ABI may have built it, and it runs with this one.
    assert config["torch_minimum"] == "2.11"
    for torch_version in (config["torch_version"], torch.__version__):
        assert tuple(map(int, torch_version.split(".")[:2])) >= (2, 11)
    assert (config["cuda_version"] is not None) is config["cuda"]
    assert (config["architectures"] is not None) is config["cuda"]
    assert config["sanitizers"] is (os.environ.get("SANITIZE", "0") == "1")


@pytest.mark.parametrize(
    "name",
    [
        "ray_lengths",
        "bracket_queries",
        "bracket_step",
        "probe_queries",
        "probe_gradient",
        "soft_labels",
    ],
)
def test_every_op_is_registered_for_each_built_back_end(name):
    def is_registered(key: str) -> bool:
        return torch._C._dispatch_has_kernel_for_dispatch_key(f"db3kd::{name}", key)

    assert is_registered("CPU")
    assert is_registered("CUDA") is ops.build_config()["cuda"]


def test_an_op_runs_on_the_threads_of_torch():
    program = """
import os, numpy, torch
from db3kd import ops
torch.set_num_threads(2)
images = torch.from_numpy(numpy.zeros((1000, 784), numpy.float32))  # starts no thread of torch
index = torch.arange(1000)
before = len(os.listdir("/proc/self/task"))
ops.ray_lengths(images, images, index, index)
print(len(os.listdir("/proc/self/task")) - before)
"""
    # This build, if there are several.
    here = {**os.environ, "PYTHONPATH": str(Path(ops.__file__).parents[1])}
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=here)
    assert (done.stdout, done.stderr) == ("1\n", "")
