"""`Ensemble`: the mean of several networks of one architecture."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.errors import ArgumentError

MAX_NETWORKS = 16
"""Maximum number of networks in an ensemble that is built by name."""


class Ensemble(nn.Module):
    """Networks whose log-probabilities are averaged.

    Networks that were trained on the same decisions from different initial weights err in different
    directions, so the gradients of their mean are nearer to the teacher's than those of each.

    Example:
        >>> networks = [db3kd.build_model("lenet5", (1, 28, 28), 10) for _ in range(3)]
        >>> Ensemble(networks)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])

    Args:
        networks: At least one network, from images [N, *image_shape] to scores [N, C].
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks:
            raise ArgumentError("networks", "expected at least one network, got none")
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images, [N, *image_shape], to mean log-probabilities, [N, C]."""
        first, *others = (F.log_softmax(network(images), dim=1) for network in self.networks)
        return sum(others, start=first) / len(self.networks)
