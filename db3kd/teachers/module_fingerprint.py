"""Fingerprints of torch modules: digests of what defines their scores."""

import torch
from torch import nn

from db3kd.teachers.function_fingerprint import module_digest, object_digest
from db3kd.teachers.module_state import weights_digest


def module_fingerprint(module: nn.Module, autocast: torch.dtype | None = None) -> str:
    """Returns the SHA-256 hex digest of what defines a module's scores, as far as it can be read.

    This is its architecture, weights, other buffers and extra state, the public attributes of its
    submodules, and the code of `forward` with the methods, functions and globals that it uses. The
    code of torch's and of db3kd's modules does not count.

    Example:
        >>> module_fingerprint(nn.Linear(2, 2)) == module_fingerprint(nn.Linear(2, 2))
        False

    Args:
        module: The module.
        autocast: The dtype of `torch.autocast`, or None.

    Raises:
        ValueError: If its extra state cannot be read.
    """
    return module_digest(module, autocast)


def weights_fingerprint(network: nn.Module) -> str:
    """Returns the SHA-256 hex digest of a network's architecture and weights.

    It is meant for networks that a run trains or is given besides its teacher. The code and the
    attributes of the network's class make no difference.

    Raises:
        ValueError: If its extra state cannot be read.
    """
    return weights_digest(network, None, object_digest)
