"""Measures memory and CPU time of a CPU teacher of large images by its batch size.

The teacher is a network of depthwise convolutions for images of 3x224x224, built like
EfficientNet-lite0, with random weights. Each batch size is measured in a separate process: forward
passes, and an `mbd` run with 100 queries per pair on two images. "found" is the batch size that the
teacher chooses itself.

    python -m benchmarks.systems.cpu_batch
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

import db3kd
from benchmarks.common.peak_memory import peak_mib
from benchmarks.common.record import keep

_SHAPE = (3, 224, 224)
_STAGES = ((24, 2, 2), (40, 2, 2), (80, 3, 2), (112, 3, 1), (192, 4, 2), (320, 1, 1))
"""Channels, blocks and stride of EfficientNet-lite0's stages after the first."""


@dataclass(frozen=True)
class Cost:
    """The cost of one batch size.

    Attributes:
        batch: Images of a batch.
        milliseconds: CPU time an image.
        idle: Peak MiB of the process with the teacher loaded.
        passes: Peak MiB after forward passes.
        run: Peak MiB after the labelling run.
        queries: Queries of the run.
    """

    batch: int
    milliseconds: float
    idle: float
    passes: float
    run: float
    queries: int


class _Residual(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, images: Tensor) -> Tensor:
        return images + self.block(images)


def depthwise_network(classes: int) -> nn.Module:
    """EfficientNet-lite0 with random weights, adjusted so that images spread over classes."""
    torch.manual_seed(0)
    layers = [*_convolution(3, 32, 3, 2), nn.ReLU6(), _block(32, 16, 1, 1)]
    width = 16
    for channels, blocks, stride in _STAGES:
        layers.append(_block(width, channels, stride, 6))
        layers += [_Residual(_block(channels, channels, 1, 6)) for _ in range(blocks - 1)]
        width = channels
    layers += [*_convolution(width, 1280, 1, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers, nn.BatchNorm1d(1280), nn.Linear(1280, classes))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.rand(8, *_SHAPE))
    return network.eval()


def _convolution(
    width: int, channels: int, size: int, stride: int, groups: int = 1
) -> list[nn.Module]:
    padding = size // 2
    convolution = nn.Conv2d(width, channels, size, stride, padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(channels)]


def _block(width: int, channels: int, stride: int, widening: int) -> nn.Module:
    wide = width * widening
    return nn.Sequential(
        *_convolution(width, wide, 1, 1), nn.ReLU6(),
        *_convolution(wide, wide, 3, stride, groups=wide), nn.ReLU6(),
        *_convolution(wide, channels, 1, 1),
    )  # fmt: skip


def main() -> None:
    """Measures all batch sizes and writes the result."""
    options = _options()
    if options.only is not None:
        print(json.dumps(asdict(_measure(options.only or None, options))))
        return
    costs = []
    for batch in [0, *options.batches]:
        again = [sys.executable, "-m", "benchmarks.systems.cpu_batch", "--only", str(batch)]
        again += ["--threads", str(options.threads), "--classes", str(options.classes)]
        found = subprocess.run(again, capture_output=True, text=True, check=True)
        costs.append(Cost(**json.loads(found.stdout)))
        print(f"{'given' if batch else 'found'}: {costs[-1]}", flush=True)
    keep(options, {"classes": options.classes, "costs": [asdict(cost) for cost in costs]})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--only", type=int, help="measure this batch size here; 0 lets the teacher choose"
    )
    parser.add_argument("--save", help="write the result to results/NAME.json")
    return parser.parse_args()


def _measure(batch: int | None, options: argparse.Namespace) -> Cost:
    torch.set_num_threads(options.threads)
    network = depthwise_network(options.classes)
    teacher = db3kd.ModuleTeacher(network, _SHAPE, options.classes, max_batch=batch)
    batch, idle = teacher.max_batch, peak_mib()
    images = torch.rand(max(16, batch), *_SHAPE)
    decisions = teacher.decide(images)
    begun = time.process_time()
    teacher.decide(images)
    milliseconds = (time.process_time() - begun) / len(images) * 1000
    passes = peak_mib()
    other = int((decisions != decisions[0]).nonzero()[0])
    settings = db3kd.LabelSettings("mbd", queries_per_pair=100)
    queries = int(db3kd.label(teacher, images[[0, other]], settings, progress=False).queries.sum())
    return Cost(batch, milliseconds, idle, passes, peak_mib(), queries)


if __name__ == "__main__":
    main()
