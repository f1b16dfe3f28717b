"""Trained networks in a folder, so that a stopped program need not train them again."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from db3kd.arguments.arrays import tensor_bytes
from db3kd.models.channels_last import to_channels_last
from db3kd.models.random_state import kept_random_state
from db3kd.models.weights import serialized_weights, state_on_cpu
from db3kd.storage.filesystem import is_leftover, write_atomically
from db3kd.storage.manifest import plain
from db3kd.training.checkpoint import Checkpoint, CheckpointError

_LOG = logging.getLogger(__name__)

_DIGEST, _CHECKSUM = "training", "weights"
"""Metadata keys: the digest of a training's identity, and that of the bytes of its weights."""

_ANY_LENGTH, _STEPS = "training of any length", "steps"
"""Metadata keys: the digest of the identity without its steps, and the steps."""


class NetworkStore:
    """Trains networks by name, each of them once, even if the program is stopped and started again.

    Training costs time but no query. So if a file or a checkpoint is damaged or belongs to another
    network, the network is trained again.

    Example:
        >>> store = NetworkStore(folder / "networks", {"run": run_identity})
        >>> proxy = store.get(
        ...     "proxy-0",
        ...     make,
        ...     lambda kept: train_batches(make, batches, loss, settings, checkpoint=kept),
        ...     {"settings": settings},
        ... )

    Args:
        folder: Where weights and checkpoints are kept. Its parent must exist.
        identity: Plain values that all networks depend on.
        every_seconds: The minimum time between two checkpoints of a network.
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
        keep_longer: bool = False,
    ) -> nn.Module:
        """Returns a network by name, from its file if it has been trained already.

        Args:
            name: The name of its file.
            make: Makes the network whose weights the file holds.
            train: Trains the network, from the checkpoint if there is one.
            identity: Plain values that this network depends on.
            keep_longer: Whether a network of the same identity that was trained for more steps is
                as good.

        Returns:
            The network, in eval mode; on the CPU if it was trained before.
        """
        known = plain({**self._identity, **identity})
        digest, any_length, steps = _digest(known), *_without_steps(known)
        file = self._folder / f"{name}.safetensors"
        if (network := _load(file, {_DIGEST: digest}, make)) is not None:
            return network
        if keep_longer and (longer := _steps_in(file)) > steps:
            network = _load(file, {_ANY_LENGTH: any_length}, make)
            if network is not None:
                _LOG.warning(
                    "%s is kept as it was trained before, for %d steps; a time limit leaves %d",
                    name,
                    longer,
                    steps,
                )
                return network
        self._folder.mkdir(exist_ok=True)
        network = self._trained(self._folder / f"{name}-{digest[:12]}.checkpoint", digest, train)
        state = state_on_cpu(network)
        kept = {_DIGEST: digest, _ANY_LENGTH: any_length, _STEPS: str(steps)}
        kept[_CHECKSUM] = _checksum(state)
        write_atomically(file, serialized_weights(state, kept))
        for old in self._folder.glob(f"{name}-*.checkpoint"):
            old.unlink(missing_ok=True)
        return network

    def keep_only(self, names: Sequence[str]) -> None:
        """Removes all files except the networks whose names match patterns such as "proxy-*"."""
        kept = {file for name in names for file in self._folder.glob(f"{name}.safetensors")}
        for file in self._folder.glob("*"):
            made_here = file.suffix in (".safetensors", ".checkpoint") or is_leftover(file)
            if made_here and file not in kept:
                file.unlink(missing_ok=True)

    def _trained(
        self, path: Path, digest: str, train: Callable[[Checkpoint], nn.Module]
    ) -> nn.Module:
        checkpoint = Checkpoint(path, digest, every_seconds=self._every_seconds)
        try:
            return train(checkpoint)
        except CheckpointError as error:
            _LOG.warning("%s; the network is trained from the start", error)
            checkpoint.remove()
        return train(checkpoint)


def _digest(known: Any) -> str:
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _without_steps(known: Mapping[str, Any]) -> tuple[str, int]:
    """Returns the digest of an identity without its steps, and the steps."""
    settings = dict(known.get("settings") or {})
    steps = settings.pop("steps", None) or 0
    return _digest({**known, "settings": settings}), steps


def _steps_in(file: Path) -> int:
    """Returns how long the network in a file was trained; 0 if that is unknown."""
    try:
        with safe_open(file, "pt") as content:
            return int((content.metadata() or {}).get(_STEPS, 0))
    except (OSError, SafetensorError, ValueError):
        return 0


def _load(file: Path, wanted: Mapping[str, str], make: Callable[[], nn.Module]) -> nn.Module | None:
    """Returns the network in a file; None if its metadata are not those that are wanted."""
    state = _read(file, wanted)
    if state is None:
        return None
    with kept_random_state():
        network = to_channels_last(make())
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # the code of the network changed, but not its name
        _LOG.warning("%s: %s; the network is trained from the start", file, error)
        return None
    return network.eval()


def _read(file: Path, wanted: Mapping[str, str]) -> dict[str, Tensor] | None:
    """Returns the weights in a file if it is intact and its metadata are those that are wanted."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            if any(metadata.get(key) != value for key, value in wanted.items()):
                return None
            state = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        _LOG.warning("%s: damaged (%s); the network is trained from the start", file, error)
        return None
    if metadata.get(_CHECKSUM) != _checksum(state):
        _LOG.warning("%s: the weights are damaged; the network is trained from the start", file)
        return None
    return state


def _checksum(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(tensor_bytes(value))
    return digest.hexdigest()
