"""Runs every kernel once, on awkward shapes, and labels a few images, for compute-sanitizer.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer python tests/helpers/small_cuda_run.py

Without torch's cache each tensor has its own allocation, so an access past its end is found.
"""

from collections.abc import Callable

import op_cases as cases
import torch
from torch import Tensor

from db3kd import ops
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.models.networks import build_model
from db3kd.teachers import ModuleTeacher

SIZES = (1, 63, 64, 784, 4100)


def on_cuda(arguments: dict) -> dict:
    return {
        name: value.cuda() if isinstance(value, Tensor) else value
        for name, value in arguments.items()
    }


def check(op: Callable[..., object], arguments: dict, tolerance: float = 3e-6) -> None:
    result, expected = op(**on_cuda(arguments)), op(**arguments)
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance, check_device=False)


def check_ops() -> None:
    for size in SIZES:
        check(ops.ray_lengths, cases.ray_lengths(7, size))
        for dtype, tolerance in cases.TOLERANCE.items():
            rays = cases.bracket_queries(7, size) | cases.BOUNDS | {"dtype": dtype}
            check(ops.bracket_queries, rays, tolerance)
        for noise, frequencies in cases.DRAWS:
            drawn = cases.directions(noise, frequencies, size)
            if drawn is None:
                continue
            probes = cases.probe_queries(3, size) | drawn | cases.BOUNDS | {"count": 5}
            check(ops.probe_queries, probes)
            check(ops.probe_gradient, cases.probe_gradient(3, 33, size) | drawn)
        rules = {"targeted": True, "absolute": 0.1, "relative": 0.2, **cases.BOUNDS}
        check(ops.bracket_step, cases.bracket_step(300, size) | rules)
    for classes in (3, 10, 33):
        labels = cases.soft_labels(9, classes) | {"normalisation": "margin"}
        check(ops.soft_labels, labels)


def check_labels() -> None:
    torch.manual_seed(0)
    images = torch.rand(60, 1, 16, 16)
    network = build_model("lenet5-fifth", (1, 16, 16), 4)
    with torch.inference_mode():
        network.classifier[-1].bias -= network(images).mean(0)
    # Else the largest batch is searched for, which takes minutes here.
    teacher = ModuleTeacher(network, (1, 16, 16), 4, device="cuda", max_batch=64)
    settings = LabelSettings("mbd", starting_points=5, queries_per_pair=60)
    labels = label(teacher, images, settings, index=torch.arange(3))
    assert (labels.queries.sum(1) <= 1 + 3 * 60).all()


if __name__ == "__main__":
    check_ops()
    check_labels()
    torch.cuda.synchronize()
    print("every kernel ran")
