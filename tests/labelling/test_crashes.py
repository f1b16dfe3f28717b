"""SIGKILL at random moments of a labelling run: a small benchmarks.systems.crashes."""

import pytest
from forked import forked_processes

from db3kd.data.loading import load_data
from db3kd.labelling.runs.auto_surrogate import AutoSurrogate
from db3kd.labelling.settings import LabelSettings
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier

crashes = pytest.importorskip("benchmarks.systems.crashes", reason="benchmarks are not installed")


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path):
    images = load_data("digits")
    network = train_classifier(
        lambda: build_model("linear", (1, 8, 8), 10),
        images,
        images.labels,
        settings=TrainSettings(epochs=2, device="cpu"),
    )
    teacher = tmp_path / "teacher.safetensors"
    save_model(teacher, network, model="linear", image_shape=(1, 8, 8), classes=10)
    settings = LabelSettings("mbd", queries_per_pair=20, query_batch_size=512)
    surrogate = AutoSurrogate("linear", training=TrainSettings(steps=50, device="cpu"))
    work = crashes.Work(teacher, "digits", settings, 260, max_batch=64, surrogate=surrogate)

    forked_processes()
    outcomes = list(crashes.kill_often(work, 2, tmp_path, seed=1))

    kills = sum(len(outcome.shards) for outcome in outcomes)
    assert kills == 2
    for outcome in outcomes:
        assert outcome.same
        assert 0 <= outcome.twice <= outcome.in_flight <= 64 * len(outcome.shards)
