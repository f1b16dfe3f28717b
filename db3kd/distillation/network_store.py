"""Trained networks in a folder, which a stopped program finds or continues to train."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from db3kd.distillation.training_checkpoint import Checkpoint
from db3kd.models.channels_last import to_channels_last
from db3kd.storage.filesystem import write_atomically
from db3kd.storage.manifest import plain

_DIGEST = "training"
"""Metadata key of the digest of a training's identity."""


class NetworkStore:
    """Trains networks by name, each of them once, whatever stops the program.

    Example:
        >>> store = NetworkStore(folder / "networks", {"run": run_identity})
        >>> proxy = store.get(
        ...     "proxy-0",
        ...     make,
        ...     lambda kept: train_batches(make, batches, loss, settings, checkpoint=kept),
        ...     {"settings": settings},
        ... )

    Args:
        folder: Where weights and checkpoints are kept.
        identity: What all trainings depend on: plain values.
        every_seconds: The least time between two checkpoints of a training.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], every_seconds: float = 30.0
    ) -> None:
        self._folder = folder
        self._identity = dict(identity)
        self._every_seconds = every_seconds

    def get(
        self,
        name: str,
        make: Callable[[], nn.Module],
        train: Callable[[Checkpoint], nn.Module],
        identity: Mapping[str, Any],
    ) -> nn.Module:
        """Returns the trained network of a name: from its file, or after training it.

        A file of another training of this name is replaced.

        Args:
            name: The name of its file.
            make: Makes the network that the weights of the file belong to.
            train: Trains it, from a checkpoint if there is one.
            identity: What this training depends on: plain values.

        Returns:
            The network, in eval mode; on the CPU if it was trained before.
        """
        known = plain({**self._identity, **identity})
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        file = self._folder / f"{name}.safetensors"
        if (state := _read(file, digest)) is not None:
            with torch.random.fork_rng(devices=[]):
                network = to_channels_last(make())
            network.load_state_dict(state)
            return network.eval()
        self._folder.mkdir(parents=True, exist_ok=True)
        checkpoint = Checkpoint(
            self._folder / f"{name}-{digest[:12]}.checkpoint",
            digest,
            every_seconds=self._every_seconds,
        )
        network = train(checkpoint)
        state = {
            key: value.detach().cpu().clone().contiguous()
            for key, value in network.state_dict().items()
        }
        write_atomically(file, save(state, {_DIGEST: digest}))
        for old in self._folder.glob(f"{name}-*.checkpoint"):
            old.unlink(missing_ok=True)
        return network


def _read(file: Path, digest: str) -> dict[str, Tensor] | None:
    """Returns the weights of a file if it holds the network of this digest."""
    if not file.is_file():
        return None
    with safe_open(file, "pt") as content:
        if (content.metadata() or {}).get(_DIGEST) != digest:
            return None
        return {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
