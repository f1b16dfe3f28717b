"""Processes that were launched together train the network that one process trains."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from forked import forked_processes
from torch import Tensor, nn

import db3kd
from db3kd.training.train import train

pytest.importorskip("accelerate")

SCRIPT = """
import os, sys, torch
import db3kd
from db3kd.training.settings import TrainSettings

images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
classes = torch.arange(64) % 4
settings = TrainSettings(steps=12, batch_size=16, seed=3)  # the device is "auto"
network = db3kd.train_classifier(
    lambda: db3kd.build_model("lenet5-fifth", (1, 8, 8), 4), images, classes, settings=settings
)
rank = os.environ.get("RANK", "alone")
torch.save(network.state_dict(), f"{sys.argv[1]}/{rank}.pt")
"""

IN_GROUP_AT_EXIT = """
import atexit, os, pathlib, sys
import torch.distributed

def write():
    in_group = torch.distributed.is_initialized()
    pathlib.Path(sys.argv[1], os.environ["RANK"]).write_text(str(in_group))

atexit.register(write)  # before db3kd registers anything, so that it runs last
"""

HAS_JOINED = """
from accelerate import PartialState

assert PartialState().num_processes == 2
"""

TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def resumable(folder: Path, rank: int, port: int, kill_after: int) -> None:
    """Trains in one of two processes; the second one kills itself in a step."""
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ |= {name: str(value) for name, value in launched.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    images = torch.rand(67, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    classes = (images[:, 0, :4].sum((1, 2)) > images[:, 0, 4:].sum((1, 2))).long()
    left = kill_after

    def make() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.3), nn.Linear(64, 2))

    def loss(logits: Tensor, classes: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        if left == 0 and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return F.cross_entropy(logits, classes)

    held_out = db3kd.HeldOutAgreement(images[50:], classes[50:])
    stopping = db3kd.EarlyStopping(patience=15)
    settings = db3kd.TrainSettings(
        steps=60, batch_size=15, seed=3, device="cpu", schedule="cosine", ema=0.8,
        learning_rate=0.02,
    )  # fmt: skip
    network = train(
        make, images, classes, None, loss, settings, rows=torch.arange(50),
        checkpoint=db3kd.Checkpoint(folder / "training.checkpoint", "a test", every_seconds=0),
        callbacks=[held_out, stopping],
    )  # fmt: skip
    torch.save((network.state_dict(), held_out.history), folder / f"{rank}.pt")


def train_together(folder: Path, kill_after: int = 0) -> tuple[int | None, int | None]:
    """Trains in two processes, as a launcher starts them, and returns their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first, second = (
        forked_processes().Process(target=resumable, args=(folder, rank, port, kill_after))
        for rank in (0, 1)
    )
    first.start()
    second.start()
    second.join(120)
    if second.exitcode != 0:  # a launcher ends the others
        first.terminate()
    first.join(120)
    return first.exitcode, second.exitcode


def launch(folder: Path) -> None:
    """Runs the script in two processes of torch's launcher."""
    script = folder / "script.py"
    script.write_text(IN_GROUP_AT_EXIT + SCRIPT + HAS_JOINED)
    paths = [str(Path(db3kd.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    environment["CUDA_VISIBLE_DEVICES"] = ""  # "auto" is the CPU, also where there is a GPU
    command = [sys.executable, *TWO_PROCESSES, str(script), str(folder)]
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr.decode(errors="replace"))  # pytest shows notes
        raise


def test_two_processes_train_the_network_of_one(tmp_path, monkeypatch):
    launch(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", ["script.py", str(tmp_path)])
        exec(SCRIPT, {})
    alone, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("alone", "0", "1")
    )
    for name, weights in alone.items():
        assert first[name].equal(second[name])
        torch.testing.assert_close(first[name], weights, rtol=1e-3, atol=1e-4)
    # Threads of a process group that is not left can abort a process that ends.
    assert {(tmp_path / rank).read_text() for rank in "01"} == {"False"}


def test_two_processes_continue_after_one_was_killed(tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    assert train_together(undisturbed) == (0, 0)
    first, second = train_together(disturbed, kill_after=9)
    assert second == -signal.SIGKILL and first != 0
    assert (disturbed / "training.checkpoint").exists() and not (disturbed / "0.pt").exists()
    assert train_together(disturbed) == (0, 0)

    expected, history = torch.load(undisturbed / "0.pt", weights_only=True)
    for file in (undisturbed / "1.pt", disturbed / "0.pt", disturbed / "1.pt"):
        found, measured = torch.load(file, weights_only=True)
        assert measured == history
        assert all(torch.equal(found[name], value) for name, value in expected.items())
