"""The ceiling: students that see the teacher's logits."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("benchmarks.students.white_box", reason="benchmarks are not installed")

from benchmarks.students.white_box import train_white_box
from db3kd.data.image_set import ImageSet
from db3kd.training.evaluation import predict
from db3kd.training.settings import TrainSettings

SHAPE, CLASSES = (1, 4, 4), 3
SETTINGS = TrainSettings(
    steps=40, batch_size=32, learning_rate=0.1, schedule="cosine", device="cpu"
)


class Watched(nn.Module):
    """A linear teacher that keeps the images it is asked about."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(CLASSES, 16, generator=generator))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        return (images.flatten(1) - 0.5) @ self.weight.T


def make() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))


def images(count: int, seed: int = 0) -> ImageSet:
    pixels = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return ImageSet.from_arrays(pixels.numpy())


def test_a_student_of_the_teachers_form_learns_its_function():
    teacher, new = Watched(), images(500, seed=1)

    student = train_white_box(make, teacher, images(40), replace(SETTINGS, steps=1000))

    agreement = (predict(student, new) == predict(teacher, new)).double().mean().item()
    assert agreement > 0.98


def test_half_of_a_batch_are_the_images_and_the_others_are_new_each_time():
    teacher, samples = Watched(), images(40)
    known = {each.numpy().tobytes() for each in samples.read(torch.arange(40))}

    train_white_box(make, teacher, samples, SETTINGS)

    new = set()
    for batch in teacher.seen:
        keys = [each.numpy().tobytes() for each in batch]
        assert [key in known for key in keys] == [True] * 16 + [False] * 16
        new |= set(keys[16:])
    assert len(new) > 0.99 * 16 * SETTINGS.steps


def test_the_student_depends_on_the_seed_alone():
    teacher, samples = Watched(), images(40)

    first, again = (train_white_box(make, teacher, samples, SETTINGS) for _ in range(2))

    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
