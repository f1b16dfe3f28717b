"""The optimizer, the schedule of its learning rate, and the average of the weights over steps."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from db3kd.models.copying import copy_network
from db3kd.training.settings import TrainSettings

_MOMENTUM = 0.9


def make_optimizer(parameters: Iterable[nn.Parameter], settings: TrainSettings) -> Optimizer:
    """Returns the optimizer of a training."""
    rate, decay = settings.rate, settings.weight_decay or 0.0
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=rate, momentum=_MOMENTUM, nesterov=True, weight_decay=decay
        )
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)


def make_schedule(optimizer: Optimizer, settings: TrainSettings, steps: int) -> LambdaLR:
    """Returns the schedule of a training's learning rate, which is stepped after each batch."""

    def rate_share(step: int) -> float:
        if settings.schedule != "cosine":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))

    return LambdaLR(optimizer, rate_share)


class WeightAverage:
    """The exponential moving average of a network's weights, corrected for its start.

    After t updates, update i has the weight decay^(t-i) · (1 - decay) / (1 - decay^t), so the
    initial weights count for nothing and the first update is not overrepresented (as in Adam,
    Kingma and Ba 2015, section 3). `torch.optim.swa_utils.AveragedModel` has no such correction,
    and reads its counter from the device in each step.

    Args:
        network: The network whose weights are averaged.
        decay: In (0, 1).

    Attributes:
        network: A copy with the averaged weights, in eval mode. Its buffers, such as the statistics
            of batch normalisation, are those of the network at the last `copy_buffers`.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy_network(network).eval()
        self._decay = decay
        self._source = network
        self._averages: list[Tensor] = list(self.network.parameters())
        self._current: list[Tensor] = list(network.parameters())

    def update(self, updates: int) -> None:
        """Adds the current weights; `updates` counts this update and all before it."""
        share = (1 - self._decay) / (1 - self._decay**updates)
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._current, share)

    def copy_buffers(self) -> None:
        """Copies the network's buffers."""
        with torch.no_grad():
            pairs = zip(self.network.buffers(), self._source.buffers(), strict=True)
            for copied, current in pairs:
                copied.copy_(current)
