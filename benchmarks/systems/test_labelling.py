"""How fast a small set is labelled by a LeNet-5 with random weights.

    python -m pytest benchmarks/systems/test_labelling.py --benchmark-json FILE

benchmarks.systems.teacher_share measures how much of that time the teacher takes.
"""

from typing import Any

import pytest
import torch

from benchmarks.common.generated import random_teacher
from db3kd.boundary.distance import Measure
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.teachers import ModuleTeacher

SHAPE, CLASSES = (1, 28, 28), 10
SAMPLES = 16


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """200 random images."""
    return torch.rand(200, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def teacher(images: torch.Tensor) -> ModuleTeacher:
    """A LeNet-5 with random weights."""
    return random_teacher("lenet5", images, CLASSES)


@pytest.mark.parametrize("measure", ["bd", "mbd"])
def test_labelling(
    benchmark: Any, teacher: ModuleTeacher, images: torch.Tensor, measure: Measure
) -> None:
    """Times `label` and checks its budget."""
    benchmark.group = f"labelling {SAMPLES} samples"
    settings = LabelSettings(measure, starting_points=5, queries_per_pair=100)
    index = torch.arange(SAMPLES)
    labels = benchmark.pedantic(
        label, (teacher, images, settings), {"index": index}, rounds=3, warmup_rounds=1
    )
    queries = len(images) - SAMPLES + int(labels.queries.sum())
    benchmark.extra_info |= {"measure": measure.upper(), "samples": SAMPLES, "queries": queries}
    assert set(labels.status) == {"ok"}
    assert (labels.queries.sum(1) <= 1 + (CLASSES - 1) * settings.queries_per_pair).all()
