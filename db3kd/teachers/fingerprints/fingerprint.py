"""Fingerprints of functions, fitted models and torch modules: digests of what they depend on.

They cover the state before the first query, because what queries change, such as a cache, starts
afresh in the next process.
"""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn

from db3kd.teachers.fingerprints.module_state import beside_weights
from db3kd.teachers.fingerprints.object_digests import ObjectDigests, hashed


def function_fingerprint(function: Callable[..., Any]) -> str:
    """Returns the SHA-256 digest, in hex, of what defines a function, as far as it can be read.

    These are its code, defaults and closure, the user's functions and classes that it names, and
    the values of the globals that all of these name; of a method or a callable object, its object.
    A fitted scikit-learn model keeps its fingerprint if it is saved, loaded, or asked.
    """
    inner = function
    while isinstance(inner, partial):
        inner = inner.func
    if isinstance(inner, FunctionType):
        digests = ObjectDigests(inner.__globals__.get("__name__", ""), counts_home=True)
    else:
        owner = type(getattr(inner, "__self__", inner))
        digests = ObjectDigests(owner.__module__)
    return hashed("function", [digests.of(function), *digests.of_globals()]).hex()


def module_fingerprint(module: nn.Module, autocast: torch.dtype | None = None) -> str:
    """Returns the SHA-256 digest, in hex, of what defines a module's scores.

    These are its architecture, weights, other buffers and extra state, and, if its class or that of
    a submodule is not torch's or db3kd's, the code of the class with what it names, and the public
    attributes.

    Example:
        >>> module_fingerprint(nn.Linear(2, 2)) == module_fingerprint(nn.Linear(2, 2))
        False

    Args:
        module: The module.
        autocast: The dtype of `torch.autocast`, or None.

    Raises:
        ValueError: If a lazy layer was never called.
    """
    digests = ObjectDigests(type(module).__module__)
    weights = digests.of_weights(module, autocast)
    parts = [digests.of(part) for part in beside_weights(module)] + digests.of_globals()
    return hashed(weights, parts).hex() if parts else weights


def weights_fingerprint(network: nn.Module) -> str:
    """Returns the SHA-256 digest, in hex, of a network's architecture and weights.

    It is meant for networks that a run trains or is given besides its teacher. The code and the
    attributes of the network's class make no difference.

    Raises:
        ValueError: If a lazy layer was never called.
    """
    return ObjectDigests(type(network).__module__).of_weights(network)
