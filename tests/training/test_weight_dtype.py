"""Networks of float64 are trained, measured and exported, also if that is torch's default dtype."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import db3kd
from db3kd.training.settings import TrainSettings
from db3kd.training.train import train

SETTINGS = TrainSettings(steps=20, batch_size=8, learning_rate=0.01, ema=0.9, device="cpu")


@pytest.fixture
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


def trained(images: Tensor, dtype: torch.dtype, precision: str = "no") -> nn.Module:
    initial = network()
    initial(images)
    settings = TrainSettings(**{**vars(SETTINGS), "precision": precision})
    classes = torch.arange(len(images)) % 10
    return train(initial.to(dtype), images, classes, None, F.cross_entropy, settings)


def test_networks_of_float64_train_as_those_of_float32(images):
    torch.manual_seed(0)
    single = trained(images, torch.float32)
    torch.manual_seed(0)
    double = trained(images, torch.float64)
    for found, expected in zip(double.parameters(), single.parameters(), strict=True):
        assert found.dtype == torch.float64
        assert torch.allclose(found, expected.double(), atol=1e-4)


def test_networks_of_float64_train_in_reduced_precision(images):
    assert next(trained(images, torch.float64, "bf16").parameters()).isfinite().all()


CALLS = {
    "lazy": lambda truth, images: db3kd.train_classifier(
        network, images, truth.decide(images), settings=SETTINGS
    ),
    "surrogate": lambda truth, images: (
        db3kd.make_surrogate(
            truth,
            images,
            db3kd.SurrogateSettings("linear", queries_per_sample=2, networks=2, training=SETTINGS),
        ).network
    ),
    "distill": lambda truth, images: (
        db3kd.distill(
            truth,
            images,
            budget=60,
            strategy="decisions",
            student="linear",
            settings=db3kd.DistillSettings(training=SETTINGS, proxies=1, held_out=4),
        ).student
    ),
    "acquisition": lambda truth, _: db3kd.synthesize(
        truth,
        db3kd.SynthesisSettings(
            samples=40,
            acquisition=db3kd.AcquisitionSettings("linear", rounds=2, steps=2, device="cpu"),
        ),
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_training_takes_float64_as_the_default_dtype(float64_by_default, truth, images, call):
    made = CALLS[call](truth, images)
    if isinstance(made, nn.Module):
        assert next(made.parameters()).dtype == torch.float64
        assert db3kd.predict(made, images).shape == (20,)


def test_export_takes_float64_as_the_default_dtype(float64_by_default, module, images, tmp_path):
    teacher = db3kd.ModuleTeacher(module.float(), (1, 8, 8), 10)
    file = tmp_path / "student.pt"
    db3kd.export_model(teacher, file)
    found = db3kd.load_teacher(file, trust_code=True)
    assert found.decide(images.float()).equal(teacher.decide(images.float()))
