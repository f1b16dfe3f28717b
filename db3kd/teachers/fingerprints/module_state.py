"""The state of a torch module that defines its scores besides architecture and weights."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from db3kd.models.state import unsaved_buffers
from db3kd.teachers.fingerprints.user_code import is_of_library

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def beside_weights(module: nn.Module) -> Iterator[Any]:
    """Yields what defines a module's scores besides its architecture and weights."""
    yield from sorted(unsaved_buffers(module).items())
    for path, each in module.named_modules():
        if isinstance(each, torch.jit.ScriptModule):
            yield path, _script(each)
        elif isinstance(each, torch.fx.GraphModule):
            yield path, each.code
        elif not _describes_itself(type(each)):
            names = {name for name in vars(each) if name[:1] != "_"} - _OF_EVERY_MODULE
            attributes = {name: vars(each)[name] for name in names}
            if attributes or not is_of_library(type(each).__module__):
                yield path, type(each), attributes


def _script(module: torch.jit.ScriptModule) -> tuple[str, Any, list[Any]] | None:
    """Returns the code of a module's TorchScript with its constants and plain attributes."""
    try:
        code, constants = module.code_with_constants
    except (AttributeError, RuntimeError):  # it has no method `forward`
        return None
    values = []
    for name in sorted(set(re.findall(r"\.(\w+)", code))):
        with suppress(Exception):  # a property may raise anything
            values.append(getattr(module, name, None))
    plain = [value for value in values if not isinstance(value, nn.Module)]
    return code, constants.const_mapping, plain


def _describes_itself(kind: type[nn.Module]) -> bool:
    """Returns whether the text of a module shows its attributes, or their class is db3kd's."""
    if not kind.__module__.startswith("torch.nn.modules."):
        return is_of_library(kind.__module__)
    # Of the two activations, only `inplace` is missing in their text, which changes no score.
    return kind.extra_repr is not nn.Module.extra_repr or kind in (nn.Hardsigmoid, nn.Hardswish)
