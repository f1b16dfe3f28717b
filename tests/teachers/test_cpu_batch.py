"""The batch size of a model on a CPU, which depends on sizes only."""

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from db3kd.models.networks import build_model
from db3kd.teachers import FunctionTeacher, ModuleTeacher
from db3kd.teachers.cpu_batch import (
    batch_for_bytes,
    batch_for_calls,
    batch_for_images,
    batch_for_module,
)
from db3kd.training.evaluation import predict_logits

MIB = 2**20


class Widening(nn.Module):
    """Computes the means of `maps` feature maps, and records the size of every batch."""

    def __init__(self, maps: int, classes: int = 3) -> None:
        super().__init__()
        self.spread = nn.Conv2d(1, maps, 1)
        self.head = nn.Linear(maps, classes)
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        return self.head(self.spread(images).mean((2, 3)))


def found(network: nn.Module, shape: tuple[int, ...]) -> int:
    return batch_for_module(network, network, shape, torch.zeros(1, *shape))


def scripted(network: nn.Module, image: Tensor) -> torch.jit.ScriptModule:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return torch.jit.trace(network, image)


@pytest.mark.parametrize(
    ("bytes_per_image", "batch"),
    [
        *((0, 256), (1, 256), (48 * MIB // 256, 256), (48 * MIB // 256 + 1, 128)),
        *((12 * MIB, 4), (48 * MIB, 1), (1000 * MIB, 1)),
    ],
)
def test_a_batch_is_the_largest_power_of_two_that_fits(bytes_per_image, batch):
    assert batch_for_bytes(bytes_per_image) == batch


@pytest.mark.parametrize(("maps", "batch"), [(11, 256), (12, 128), (383, 8), (384, 4)])
def test_the_largest_operation_of_a_module_decides(maps, batch):
    # The convolution reads one map of 64·64·4 bytes = 1/64 MiB, and writes `maps` of them.
    assert found(Widening(maps), (1, 64, 64)) == batch
    assert batch_for_bytes((maps + 1) * MIB // 64) == batch


def test_weights_are_not_counted():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(16, 4000), nn.Linear(4000, 3000))
    assert found(wide, (1, 4, 4)) == 256


def test_half_precision_doubles_the_batch():
    single, double = Widening(383), Widening(383).double()
    teachers = (ModuleTeacher(module, (1, 64, 64), 3) for module in (single, double))
    assert [teacher.max_batch for teacher in teachers] == [8, 4]


@pytest.mark.parametrize(
    ("model", "shape", "batch"),
    [("lenet5", (1, 28, 28), 256), ("resnet18", (3, 32, 32), 64), ("resnet18", (3, 224, 224), 4)],
)
def test_the_batches_of_the_packages_networks(model, shape, batch):
    with torch.device("meta"):
        network = build_model(model, shape, 10)
    on_meta = torch.zeros(1, *shape, device="meta")
    assert batch_for_module(network.eval(), network, shape, on_meta) == batch


def test_a_scripted_module_has_the_batch_of_the_module():
    network = nn.Sequential(nn.Conv2d(1, 383, 1), nn.Flatten(), nn.LazyLinear(3))
    network(torch.zeros(1, 1, 64, 64))
    assert found(scripted(network, torch.zeros(1, 1, 64, 64)), (1, 64, 64)) == 8


def test_a_lazy_module_has_the_batch_of_the_module():
    lazy = nn.Sequential(nn.Conv2d(1, 383, 1), nn.Flatten(), nn.LazyLinear(3))
    assert found(lazy, (1, 64, 64)) == 8
    assert not lazy[2].weight.is_inference(), "it can still be trained"


def test_inspecting_a_module_changes_neither_images_nor_random_state():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    found(network.train(), (1, 4, 4))
    assert torch.equal(torch.rand(3), expected)


def test_inspecting_a_module_loads_no_compiler(interpreters):
    code = (
        "import sys, torch; from db3kd.teachers import ModuleTeacher;"
        "ModuleTeacher(torch.nn.Flatten(), (1, 1, 3), 3).max_batch;"
        "print('torch._dynamo' in sys.modules)"
    )
    assert interpreters[0].run(code) == "False\n"


def test_image_size_decides_if_a_module_fails_on_zeros():
    def fails(images):
        raise RuntimeError("zeros")

    assert batch_for_module(nn.Identity(), fails, (3, 224, 224), torch.zeros(1, 1)) == 4


@pytest.mark.parametrize(
    ("shape", "images", "calls"),
    [((1, 28, 28), 256, 256), ((3, 32, 32), 256, 256), ((3, 224, 224), 4, 16)],
)
def test_image_size_decides_if_a_model_cannot_be_inspected(shape, images, calls):
    assert batch_for_images(shape) == images
    assert batch_for_calls(shape) == calls
    assert FunctionTeacher(np.argmax, shape, 10).max_batch == calls


def test_a_teacher_decides_large_images_in_small_batches():
    network = Widening(383)
    teacher = ModuleTeacher(network, (1, 64, 64), 3)
    assert teacher.max_batch == 8
    teacher.module.seen.clear()
    images = torch.rand(20, 1, 64, 64)
    decisions = teacher.decide(images)
    assert teacher.module.seen == [8, 8, 4]
    assert torch.equal(
        decisions, ModuleTeacher(network, (1, 64, 64), 3, max_batch=1).decide(images)
    )


def test_a_student_computes_logits_in_the_same_batches():
    network = Widening(383).eval()
    predict_logits(network, torch.rand(10, 1, 64, 64))
    assert network.seen == [1, 8, 2]


def test_every_teacher_of_a_network_has_the_same_batch():
    network = Widening(200)
    assert len({ModuleTeacher(network, (1, 64, 64), 3).max_batch for _ in range(3)}) == 1
