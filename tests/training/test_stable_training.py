"""A network that an unsuitable rate ruins is trained again, because its answers are paid for."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from db3kd.data.image_source import TensorImages
from db3kd.errors import DivergedError
from db3kd.training import stable
from db3kd.training.evaluation import predict
from db3kd.training.settings import SGD_DEFAULTS, TrainSettings
from db3kd.training.stable import train_classifier_stably

SETTINGS = TrainSettings(steps=100, batch_size=20, device="cpu").completed(SGD_DEFAULTS)
ROWS = torch.arange(60)


class Network(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def images() -> tuple[TensorImages, Tensor]:
    classes = torch.arange(60) % 2
    pixels = torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.4
    return TensorImages(pixels + 0.6 * classes.view(-1, 1, 1, 1)), classes


def train(settings: TrainSettings) -> nn.Module:
    return train_classifier_stably(Network, *images(), settings, rows=ROWS)


def test_a_network_that_learns_is_trained_once(caplog):
    network = train(SETTINGS)

    assert not caplog.text
    assert (predict(network, images()[0]) == images()[1]).all()


def dead() -> nn.Module:
    network = Network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    return network.eval()


@pytest.mark.parametrize("ends", ["diverged", "dead"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_network_that_sgd_ruins_is_trained_again_by_adam(monkeypatch, caplog, ends, optimizer):
    learns, tried = stable.train_classifier, []

    def ruined(*given: Any, settings: TrainSettings, **others: Any) -> nn.Module:
        tried.append((settings.optimizer, settings.rate))
        if len(tried) > 1:
            return learns(*given, settings=settings, **others)
        if ends == "diverged":
            raise DivergedError("the loss is nan")
        return dead()

    monkeypatch.setattr(stable, "train_classifier", ruined)
    expected = nullcontext()
    if (optimizer, ends) == ("adam", "diverged"):
        expected = pytest.raises(DivergedError, match="the loss is nan")
    with expected:
        train(replace(SETTINGS, optimizer=optimizer))

    again = [("adam", 1e-3)] if optimizer == "sgd" else []
    assert tried == [(optimizer, 0.05), *again]
    reason = "the loss is nan" if ends == "diverged" else "answers all images with one class"
    assert (f"{reason}; it is trained again by Adam" in caplog.text) == (optimizer == "sgd")


def test_a_short_training_may_end_with_one_class(monkeypatch, caplog):
    monkeypatch.setattr(stable, "train_classifier", lambda *_, **__: dead())

    train(replace(SETTINGS, steps=99))

    assert not caplog.text
