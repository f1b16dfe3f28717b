"""Searches do not depend on the default dtype of torch: images and distances are float32."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from teachers_analytic import NearestCentroidTeacher
from torch import nn

import db3kd
from db3kd.storage.choice_log import ChoiceLog
from db3kd.surrogates.boundary_points import collect_boundary_points
from db3kd.synthesis.acquisition_settings import AcquisitionSettings

SHAPE, CLASSES = (1, 6, 6), 3
TRAINING = db3kd.TrainSettings(steps=3, device="cpu")
WALK = db3kd.Moves(count=2, queries_per_move=40, queries_per_sample=60)


def draw(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(shape[0])
    return torch.rand(shape, dtype=torch.float32, generator=generator)


TEACHER, IMAGES = NearestCentroidTeacher(draw(CLASSES, *SHAPE), SHAPE), draw(20, *SHAPE)


def network() -> nn.Module:
    layer = nn.Linear(36, CLASSES, dtype=torch.float32)
    layer.weight.data, layer.bias.data = draw(CLASSES, 36) - 0.5, draw(CLASSES)
    return nn.Sequential(nn.Flatten(), layer)


def label(measure: str, surrogate: nn.Module | None = None) -> list[torch.Tensor]:
    targets = None if measure == "sd" else 1
    settings = db3kd.LabelSettings(measure, queries_per_pair=30, targets=targets, snapshots=(10,))
    labels = db3kd.label(TEACHER, IMAGES, settings, surrogate=surrogate, progress=False)
    return [labels.distances, labels.queries, labels.snapshots[10]]


def synthesize(**options: object) -> list[torch.Tensor]:
    settings = db3kd.SynthesisSettings(samples=12, snapshots=(1,), **options)
    samples = db3kd.synthesize(TEACHER, settings, progress=False)
    return [samples.pixels, samples.distance, samples.queries]


SAME = {
    "sd": lambda: label("sd"),
    "bd": lambda: label("bd"),
    "mbd": lambda: label("mbd"),
    "surrogate": lambda: label("mbd", network()),
    "still": synthesize,
    "moved": lambda: synthesize(moves=WALK),
}


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("call", SAME)
def test_searches_give_the_same_bits(call, request):
    expected = SAME[call]()
    request.getfixturevalue("double")
    for first, second in zip(SAME[call](), expected, strict=True):
        assert first.dtype == second.dtype and torch.equal(first, second)


def test_networks_by_name_learn_answers(double):
    made = db3kd.SurrogateSettings("linear", networks=1, training=TRAINING, queries_per_sample=2)
    surrogate = db3kd.make_surrogate(TEACHER, IMAGES, made, progress=False)
    assert 0 <= surrogate.agreement <= 1
    acquisition = AcquisitionSettings("linear", rounds=2, steps=3)
    assert synthesize(acquisition=acquisition)[1].dtype == torch.float32


def test_boundary_points_are_float32(double, tmp_path: Path):
    points = collect_boundary_points(
        8, SHAPE, lambda _, count, __: IMAGES[:count], TEACHER.decide, ChoiceLog(tmp_path)
    )
    assert points.images.dtype == torch.float32 and len(points) == 8


def test_students_are_exported(double, tmp_path: Path):
    student = db3kd.ModuleTeacher(network(), SHAPE, CLASSES)
    assert db3kd.export_model(student, tmp_path / "student.ts", images=IMAGES).path.is_file()


def test_image_files_are_read_as_float32(double, tmp_path: Path):
    (tmp_path / "0").mkdir()
    Image.new("L", (6, 6), 255).save(tmp_path / "0" / "a.png")
    assert db3kd.load_data(str(tmp_path)).read([0]).dtype == torch.float32
