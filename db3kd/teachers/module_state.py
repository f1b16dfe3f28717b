"""What of a torch module defines its scores: weights, other state, and the code of its class."""

import dis
import hashlib
import inspect
import re
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cached_property, lru_cache
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from db3kd.models.weights import tensor_bytes
from db3kd.teachers.changed_globals import Change, changes_of
from db3kd.teachers.function_code import is_changed, nested_code

_LIBRARIES = ("torch", "db3kd")
"""Packages whose code does not count, so that their next versions give the same fingerprints."""

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")


def weights_digest(
    module: nn.Module, autocast: torch.dtype | None, of: Callable[[Any], bytes]
) -> str:
    """Returns the SHA-256 hex digest of a module's architecture, weights and precision.

    Args:
        module: The module.
        autocast: The dtype of `torch.autocast`, or None.
        of: Returns the digest of an entry of `module.state_dict()` that is no plain tensor, such as
            the state of `get_extra_state` or quantized weights.

    Raises:
        ValueError: If an entry cannot be read, or a lazy layer was never called.
    """
    kind = type(module)
    digest = hashlib.sha256(
        f"{kind.__module__}.{kind.__qualname__}\n{module}\n{autocast}\n".encode()
    )
    for key, value in sorted(module.state_dict().items()):
        if nn.parameter.is_lazy(value):
            raise ValueError(
                f"fingerprint: {key!r} of the module {kind.__qualname__} has no shape before the "
                "module is called; call the module once before passing it"
            )
        if isinstance(value, torch.Tensor) and not value.is_quantized:
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(tensor_bytes(value))
            continue
        try:
            digest.update(f"{key}\n".encode() + of(value))
        except Exception as error:  # an object's own __reduce__ may raise anything
            raise ValueError(
                f"fingerprint: the state {key!r} of the module {kind.__qualname__} cannot be read "
                f"({error}); pass fingerprint=, a text that changes when the module does"
            ) from error
    return digest.hexdigest()


def defining_values(module: nn.Module, methods: "Methods") -> Iterator[tuple[str, Any]]:
    """Yields the names and values of what defines a module's scores and is not in its state.

    These are buffers that are not saved, the public attributes of modules whose classes do not
    describe themselves, the attributes of these classes that the code uses, and code that torch
    generated. What the module's code assigns or changes in place is left out, because it differs
    after each call.

    Args:
        module: The module.
        methods: Its methods.
    """
    saved = module.state_dict().keys()
    modules = dict(module.named_modules(remove_duplicate=False))
    for name, buffer in sorted(module.named_buffers(remove_duplicate=False)):
        path, _, own_name = name.rpartition(".")
        if name not in saved and not methods.change(modules[path], own_name, buffer):
            yield f"buffer {name}", buffer
    for path, each in module.named_modules():
        kind = type(each)
        if isinstance(each, torch.jit.ScriptModule):
            yield f"script {path}", _script(each)
        elif isinstance(each, torch.fx.GraphModule):
            yield f"code {path}", each.code
        elif not _describes_itself(kind):
            attributes = methods.class_attributes(kind) | vars(each)
            for name, value in sorted(attributes.items(), key=lambda item: item[0]):
                if name[:1] in ("", "_") or name in _OF_EVERY_MODULE:
                    continue
                if not methods.change(each, name, value):
                    yield f"attribute {path}.{name}", _as_plain(value)


class Methods:
    """The methods and properties of a module and its submodules that `forward` may use.

    They are found by their names, because an instruction does not show whose method it calls.
    """

    def __init__(self, module: nn.Module) -> None:
        self._modules = list(module.modules())
        self._names = ["forward", "__call__"]
        self._changes: dict[int, tuple[frozenset[str], frozenset[Change]]] = {}
        read: set[FunctionType] = set()
        known = 0
        while known < len(self._names):  # a name may be used in the method of any module
            names, known = self._names[known:], len(self._names)
            for each in self._modules:
                for function in _methods_of(each, names):
                    if function not in read:
                        read.add(function)
                        used = _attributes(function.__code__, _ATTRIBUTES)
                        self._names += sorted(used - {*self._names})

    def all(self) -> list[FunctionType]:
        """Returns the functions that compute the scores, without those of torch and db3kd.

        These are `forward` of each submodule, and the methods and properties of all of them that
        these may use.
        """
        found: list[FunctionType] = []
        for each in self._modules:
            found += [function for function in self._of(each) if function not in found]
        return found

    def class_attributes(self, kind: type[nn.Module]) -> dict[str, Any]:
        """Returns the attributes of a class that the code uses, without methods and the like."""
        found: dict[str, Any] = {}
        for each in reversed(kind.__mro__):
            if not _is_of_library(each):
                found |= {name: vars(each)[name] for name in self._names if name in vars(each)}
        return {name: value for name, value in found.items() if not hasattr(type(value), "__get__")}

    def change(self, module: nn.Module, name: str, value: Any) -> bool:
        """Returns whether the code of a module assigns or changes an attribute with this value."""
        if isinstance(inspect.getattr_static(type(module), name, None), cached_property):
            return True
        if id(module) not in self._changes:
            codes = tuple(function.__code__ for function in self._of(module))
            self._changes[id(module)] = _changes_of_self(codes)
        assigned, changes = self._changes[id(module)]
        return name in assigned or any(
            _changes_value(value, each) for each in changes if each.name == f".{name}"
        )

    def _of(self, module: nn.Module) -> list[FunctionType]:
        """Returns the functions of a module in an order that depends on the code alone."""
        return _methods_of(module, self._names)


def _script(module: torch.jit.ScriptModule) -> tuple[str, Any, list[Any]] | None:
    """Returns the code of a module's TorchScript with its constants and plain attributes."""
    try:
        code, constants = module.code_with_constants
    except (AttributeError, RuntimeError):  # it has no method `forward`
        return None
    used = sorted(set(re.findall(r"\.(\w+)", code)))
    values = []
    for name in used:
        with suppress(Exception):  # a property may raise anything
            values.append(getattr(module, name, None))
    plain = [value for value in values if not isinstance(value, nn.Module)]
    return code, constants.const_mapping, plain


def _methods_of(module: nn.Module, names: list[str]) -> list[FunctionType]:
    """Returns the functions of the methods and properties of a module that have one of the names.

    Those of a class count also if a subclass replaces them.
    """
    kinds = [kind for kind in type(module).__mro__ if not _is_of_library(kind)]
    found: list[FunctionType] = []
    for name in names:
        members = [vars(kind).get(name) for kind in kinds]
        if name == "forward":
            members.append(vars(module).get(name))
        for member in members:
            function = _function_of(member)
            if function is not None and function not in found and not _is_of_library(function):
                found.append(function)
    return found


def _function_of(member: Any) -> FunctionType | None:
    """Returns the function behind a method or property of a class, or None."""
    with suppress(Exception):  # an object that is no method may raise if it is looked at
        if isinstance(member, property):
            member = member.fget
        elif isinstance(member, cached_property):
            member = member.func
        member = inspect.unwrap(getattr(member, "__func__", member))
        return member if isinstance(member, FunctionType) else None
    return None


def _assigned(code: CodeType) -> set[str]:
    """Returns the names of the attributes that code may assign."""
    found = _attributes(code, ("STORE_ATTR", "DELETE_ATTR"))
    for each in nested_code(code):
        if {"register_buffer", "setattr"} & {*each.co_names}:
            found |= {constant for constant in each.co_consts if isinstance(constant, str)}
    return found


@lru_cache(maxsize=256)
def _changes_of_self(
    codes: tuple[CodeType, ...],
) -> tuple[frozenset[str], frozenset[Change]]:
    """Returns the attributes that methods assign, and the changes that they make to others."""
    assigned, changes = set[str](), set[Change]()
    for code in codes:
        assigned |= _assigned(code)
        owner = code.co_varnames[0] if code.co_argcount else ""
        for each in nested_code(code):
            if each is code or owner in each.co_freevars:
                changes |= changes_of(each, owner)
    return frozenset(assigned), frozenset(changes)


def _changes_value(value: Any, change: Change) -> bool:
    with suppress(Exception):  # an object may raise if it is looked at
        return is_changed(value, change) or (change.method[:1] == "." and bool(_settings(value)))
    return False


def _attributes(code: CodeType, instructions: tuple[str, ...]) -> set[str]:
    """Returns the names of the attributes that some instructions of code use."""
    steps = (step for each in nested_code(code) for step in dis.get_instructions(each))
    return {str(step.argval) for step in steps if step.opname in instructions}


def _describes_itself(kind: type[nn.Module]) -> bool:
    """Returns whether the text of a module shows its attributes, or their class is db3kd's."""
    if not kind.__module__.startswith("torch.nn.modules."):
        return _is_of_library(kind)
    # Of the two activations, only `inplace` is missing in their text, which changes no score.
    return kind.extra_repr is not nn.Module.extra_repr or kind in (nn.Hardsigmoid, nn.Hardswish)


def _is_of_library(code: type | FunctionType) -> bool:
    return (code.__module__ or "").partition(".")[0] in (*_LIBRARIES, "builtins")


def _as_plain(value: Any, depth: int = 4) -> Any:
    """Returns a value with the data classes and namespaces in it as dicts of their settings.

    A setting that cannot be read is left out.
    """
    if not depth:
        return value
    with suppress(Exception):  # an object may raise if it is looked at
        if type(value) in (list, tuple):
            return type(value)(_as_plain(each, depth - 1) for each in value)
        if type(value) is dict:
            return {key: _as_plain(each, depth - 1) for key, each in value.items()}
        settings = {}
        for name in _settings(value):
            with suppress(Exception):
                settings[name] = _as_plain(getattr(value, name), depth - 1)
        return settings or value
    return value


def _settings(value: Any) -> list[str]:
    """Returns the names of the settings in a data class or namespace; other values have none."""
    if isinstance(value, type):
        return []
    if isinstance(value, Namespace | SimpleNamespace):
        return list(vars(value))
    if is_dataclass(value):  # it may have no __dict__, and other attributes than its fields
        return [*{each.name: None for each in fields(value)} | getattr(value, "__dict__", {})]
    return []
