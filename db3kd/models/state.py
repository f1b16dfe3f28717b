"""The state of networks: what a state dict holds of it, and what it lacks."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def weight_dtype(network: nn.Module) -> torch.dtype:
    """Returns the dtype of a network's weights, or float32 if it has none."""
    floating = (each.dtype for each in network.parameters() if each.is_floating_point())
    return next(floating, torch.float32)


def to_weight_dtype(images: Tensor, network: nn.Module) -> Tensor:
    """Converts images of floats to the dtype of a network's weights, unless these have several."""
    if images.dtype == weight_dtype(network):  # the usual case, in each training step
        return images
    dtypes = {each.dtype for each in network.parameters() if each.is_floating_point()}
    if len(dtypes) != 1 or not images.is_floating_point():
        return images
    return images.to(dtypes.pop())


def unsaved_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Returns the buffers that a network's state dict lacks, by name: those not persistent."""
    saved = network.state_dict().keys()
    buffers = network.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in buffers if name not in saved}


def changed_buffers(network: nn.Module, rebuilt: nn.Module) -> list[str]:
    """Returns the buffers that are missing from a state dict and differ from a new network's.

    Buffers of another shape are left out: they are caches, which a network fills itself.
    """
    fresh = unsaved_buffers(rebuilt)
    return [
        name
        for name, buffer in unsaved_buffers(network).items()
        if name in fresh
        and fresh[name].shape == buffer.shape
        and not torch.equal(fresh[name].to(buffer), buffer)
    ]


def whole_state(network: nn.Module) -> dict[str, Any]:
    """Returns a network's state dict together with its other buffers, for `load_whole_state`."""
    return {**unsaved_buffers(network), **network.state_dict()}


def load_whole_state(network: nn.Module, state: Mapping[str, Any]) -> None:
    """Restores what `whole_state` returned, as far as the network has buffers of these shapes.

    A buffer of another shape is a cache, which the network fills again.
    """
    saved = network.state_dict().keys()
    network.load_state_dict({name: value for name, value in state.items() if name in saved})
    for name, buffer in unsaved_buffers(network).items():
        if name in state and state[name].shape == buffer.shape:
            buffer.copy_(state[name])
