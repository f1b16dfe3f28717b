"""The code of functions, and the globals that it names.

The code is read from its instructions, which have neither comments nor line numbers.
"""

import dis
import inspect
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch

from db3kd.teachers.changed_globals import READS, Change, changes_of

_ASSIGNS = ("STORE_GLOBAL", "DELETE_GLOBAL")
_CONTAINERS = (list, dict, set, deque)
_CHANGING_METHODS = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "reverse",
        "setdefault",
        "sort",
        "update",
    ]
)
_CHANGING_ARRAY_METHODS = frozenset(["fill", "partition", "put", "resize", "sort"])
_KEEPING_TENSOR_METHODS = frozenset(["requires_grad_", "share_memory_"])
_SIGNATURE_FLAGS = (
    inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
    | inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
)


def instructions_of(code: CodeType) -> list[tuple[Any, ...]]:
    """Returns the signature and the instructions of code as plain values and constants.

    Comments, line numbers, annotations and the docstring are not in it.
    """
    signature = (
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags & _SIGNATURE_FLAGS,
        code.co_exceptiontable,
    )
    found: list[tuple[Any, ...]] = [signature]
    for step in dis.get_instructions(code):
        nested = isinstance(step.argval, CodeType)
        found.append((step.opname, instructions_of(step.argval) if nested else step.argval))
    return found


@dataclass(frozen=True)
class NamedGlobals:
    """The globals that a function names, and the functions of its module that it calls.

    Attributes:
        functions: The functions and methods of its module that it may call, without itself, in an
            order that depends on their names.
        values: The other globals by name, without those that the code assigns, and without lists,
            dicts, sets, arrays and tensors that it changes.
    """

    functions: list[FunctionType]
    values: dict[str, Any]

    @classmethod
    def of(cls, function: FunctionType) -> "NamedGlobals":
        """Finds what a function names, and what the functions name that it may call."""
        module = function.__globals__
        reached, values = [function], dict[str, Any]()
        assigned, changes = set[str](), set[Change]()
        for each in reached:  # it grows meanwhile
            for code in nested_code(each.__code__):
                uses = _Uses.of(code)
                assigned |= uses.assigned
                changes |= changes_of(code)
                # A name such as __name__ depends on how the module was started.
                named = {name for name in uses.read if name in module and name[:2] != "__"}
                for name in sorted(named):
                    called = list[FunctionType]()
                    with suppress(Exception):  # a proxy may raise if it is looked at
                        called = _functions_of(module[name], module)
                    reached += [new for new in called if new not in reached]
                    if not called:
                        values[name] = module[name]
        left_out = assigned | {
            each.name
            for each in changes
            if each.name in values and is_changed(values[each.name], each)
        }
        return cls(reached[1:], {name: values[name] for name in sorted(values.keys() - left_out)})


@dataclass(frozen=True)
class _Uses:
    """The names of globals that code reads, and that it assigns."""

    read: set[str]
    assigned: set[str]

    @classmethod
    def of(cls, code: CodeType) -> "_Uses":
        steps = list(dis.get_instructions(code))
        read = {step.argval for step in steps if step.opname in READS}
        return cls(read, {step.argval for step in steps if step.opname in _ASSIGNS})


def is_changed(value: Any, change: Change) -> bool:
    """Returns whether a change that code may make to a global changes this value.

    In case of doubt it does not. A value that counts although it changes only keeps a run from
    being resumed without `accept_changed_teacher`; one that is left out although the answers depend
    on it mixes the answers of two teachers.
    """
    method = change.method
    if isinstance(value, _CONTAINERS):
        if change.sliced or change.held > 1:
            return False
        if not method or not change.depth:
            return not method or (method in _CHANGING_METHODS and hasattr(value, method))
        # `TABLE[key].append(x)` changes a table of lists, and an empty one may become such.
        part = replace(change, depth=0, held=0)
        return change.depth == 1 and (
            any(is_changed(each, part) for each in _parts(value))
            if value
            else method in _CHANGING_METHODS
        )
    if change.held or (method and change.depth):
        return False  # `row = TABLE[codes]` may be a copy
    if isinstance(value, np.ndarray):
        return not method or method in _CHANGING_ARRAY_METHODS
    if isinstance(value, torch.Tensor):
        in_place = method.endswith("_") and not method.startswith("_")
        return not method or (in_place and method not in _KEEPING_TENSOR_METHODS)
    return False


def _parts(container: Any) -> Iterator[Any]:
    return iter(container.values() if isinstance(container, dict) else container)


def nested_code(code: CodeType) -> Iterator[CodeType]:
    """Yields code and the code of all functions that it defines."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested_code(constant)


def _functions_of(value: Any, module: dict[str, Any]) -> list[FunctionType]:
    """Returns the functions of a module that a value is or wraps, or that are methods of it."""
    members = [value]
    if not isinstance(inspect.unwrap(value) if callable(value) else value, FunctionType):
        owner = value if isinstance(value, type) else type(value)
        members = [member for _, member in sorted(vars(owner).items())]
    found = []
    for member in members:
        if isinstance(member, property):
            member = member.fget
        member = inspect.unwrap(getattr(member, "__func__", member))
        if isinstance(member, FunctionType) and member.__globals__ is module:
            found.append(member)
    return found
