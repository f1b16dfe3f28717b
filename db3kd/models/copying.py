"""Copies of networks."""

import copy

import torch
from torch import nn

from db3kd.errors import ArgumentTypeError


def copy_network(network: nn.Module, name: str = "network") -> nn.Module:
    """Returns a copy of a network, whose weights an optimizer can train.

    `name` is the argument that it was passed as, for the error.

    Example:
        >>> copy_network(network, "student")

    Raises:
        TypeError: If the network cannot be copied.
    """
    try:
        with torch.no_grad():  # otherwise autograd tracks the copied weights of TorchScript
            copied = copy.deepcopy(network)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise ArgumentTypeError(
            name,
            f"expected a network that can be copied, got {type(network).__name__} "
            f"({type(error).__name__}: {error})",
        ) from error
    for weight, original in zip(copied.parameters(), network.parameters(), strict=True):
        if weight.requires_grad != original.requires_grad:  # as with TorchScript
            weight.requires_grad_(original.requires_grad)
    return copied
