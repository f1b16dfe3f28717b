"""Processes that were launched together train the network that one process trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import db3kd

pytest.importorskip("accelerate")

SCRIPT = """
import os, sys, torch
import db3kd
from db3kd.distillation.training import TrainSettings

images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
classes = torch.arange(64) % 4
settings = TrainSettings(steps=12, batch_size=16, seed=3, device="cpu")
network = db3kd.train_classifier(
    lambda: db3kd.build_model("lenet5-fifth", (1, 8, 8), 4), images, classes, settings
)
rank = os.environ.get("RANK", "alone")
torch.save(network.state_dict(), f"{sys.argv[1]}/{rank}.pt")
"""


def run(folder: Path, *launcher: str) -> None:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    paths = [str(Path(db3kd.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *launcher, str(script), str(folder)]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)


@pytest.mark.skipif(sys.platform == "win32", reason="gloo needs other settings there")
def test_two_processes_train_the_network_of_one(tmp_path):
    run(tmp_path)
    run(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    alone, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("alone", "0", "1")
    )
    for name, weights in alone.items():
        assert first[name].equal(second[name])
        torch.testing.assert_close(first[name], weights, rtol=1e-3, atol=1e-4)
