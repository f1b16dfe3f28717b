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
from db3kd.distillation.train_settings import TrainSettings

images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
classes = torch.arange(64) % 4
settings = TrainSettings(steps=12, batch_size=16, seed=3, device="cpu")
network = db3kd.train_classifier(
    lambda: db3kd.build_model("lenet5-fifth", (1, 8, 8), 4), images, classes, settings
)
rank = os.environ.get("RANK", "alone")
torch.save(network.state_dict(), f"{sys.argv[1]}/{rank}.pt")
"""

TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

RESUMABLE = """
import os, signal, sys, torch
from torch import nn
import torch.nn.functional as F
import db3kd
from db3kd.distillation.training import train

folder, kill_after = sys.argv[1], int(sys.argv[2])
rank = int(os.environ["RANK"])
images = torch.rand(67, 1, 8, 8, generator=torch.Generator().manual_seed(0))
classes = (images[:, 0, :4].sum((1, 2)) > images[:, 0, 4:].sum((1, 2))).long()
left = kill_after

def make():
    return nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.3), nn.Linear(64, 2)
    )

def loss(logits, classes):
    global left
    left -= 1
    if left == 0 and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return F.cross_entropy(logits, classes)

held_out = db3kd.HeldOutAgreement(images[50:], classes[50:])
stopping = db3kd.EarlyStopping(patience=15)
network = train(
    make, images, classes, None, loss,
    db3kd.TrainSettings(
        steps=60, batch_size=15, seed=3, device="cpu", schedule="cosine", ema=0.8,
        learning_rate=0.02,
    ),
    rows=torch.arange(50),
    checkpoint=db3kd.Checkpoint(f"{folder}/training.checkpoint", "a test", every_seconds=0),
    callbacks=[held_out, stopping],
)
torch.save((network.state_dict(), held_out.history), f"{folder}/{rank}.pt")
"""


def run(folder: Path, *launcher: str, code: str = SCRIPT, arguments: tuple[str, ...] = ()) -> None:
    script = folder / "script.py"
    script.write_text(code)
    paths = [str(Path(db3kd.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *launcher, str(script), str(folder), *arguments]
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr.decode(errors="replace"))  # pytest shows notes
        raise


@pytest.mark.skipif(sys.platform == "win32", reason="gloo needs other settings there")
def test_two_processes_train_the_network_of_one(tmp_path):
    run(tmp_path)
    run(tmp_path, *TWO_PROCESSES)
    alone, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("alone", "0", "1")
    )
    for name, weights in alone.items():
        assert first[name].equal(second[name])
        torch.testing.assert_close(first[name], weights, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(sys.platform == "win32", reason="gloo needs other settings there")
def test_two_processes_continue_after_one_was_killed(tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    run(undisturbed, *TWO_PROCESSES, code=RESUMABLE, arguments=("0",))
    with pytest.raises(subprocess.CalledProcessError):
        run(disturbed, *TWO_PROCESSES, code=RESUMABLE, arguments=("9",))
    assert (disturbed / "training.checkpoint").exists() and not (disturbed / "0.pt").exists()
    run(disturbed, *TWO_PROCESSES, code=RESUMABLE, arguments=("0",))

    expected, history = torch.load(undisturbed / "0.pt", weights_only=True)
    for file in (undisturbed / "1.pt", disturbed / "0.pt", disturbed / "1.pt"):
        found, measured = torch.load(file, weights_only=True)
        assert measured == history
        assert all(torch.equal(found[name], value) for name, value in expected.items())
