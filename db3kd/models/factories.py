"""Functions and classes of callers that make networks: how they are called."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from db3kd.errors import ArgumentTypeError

NetworkFactory = Callable[..., nn.Module]
"""A function or class that makes a network: without arguments, or of (image_shape, classes)."""


def make_network(
    factory: NetworkFactory, image_shape: tuple[int, ...], classes: int, name: str | None = None
) -> nn.Module:
    """Calls a function or class that makes a network.

    One that needs no argument gets none, and every other one gets the shape and the number of
    classes. This holds wherever a caller passes or names such a function.

    Example:
        >>> make_network(lambda: nn.Linear(64, 10), (64,), 10)
        >>> make_network(lambda shape, classes: nn.Linear(*shape, classes), (64,), 10)

    Args:
        factory: The function or class.
        image_shape: Shape of one image.
        classes: Number of classes.
        name: What errors call it; by default its own name.

    Raises:
        TypeError: If it cannot be called in either way, or if it returns something else than a
            module.
    """
    name = factory_name(factory) if name is None else name
    network = factory(*_arguments(factory, image_shape, classes, name))
    if not isinstance(network, nn.Module):
        raise ArgumentTypeError(
            "model", f"expected {name} to return a torch.nn.Module, got {type(network).__name__}"
        )
    return network


def factory_name(factory: NetworkFactory) -> str:
    """Returns what errors call a function or class."""
    return getattr(factory, "__name__", type(factory).__name__)


def _arguments(
    factory: Any, image_shape: tuple[int, ...], classes: int, name: str
) -> tuple[Any, ...]:
    expected = (
        f"expected {name} to be a function or class that makes a network, without arguments "
        "or of (image_shape, classes)"
    )
    if isinstance(factory, nn.Module) or not callable(factory):
        raise ArgumentTypeError(
            "model", f"{expected}, got an object of type {type(factory).__name__}"
        )
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some functions written in C have none
        return image_shape, classes
    for arguments in ((), (image_shape, classes)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return arguments
    raise ArgumentTypeError("model", f"{expected}, got one of {signature}")
