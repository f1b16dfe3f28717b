"""The code of functions, and the globals that it names.

The code is read from its instructions, which have neither comments nor line numbers.
"""

import dis
import inspect
import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch

_READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ASSIGNS = ("STORE_GLOBAL", "DELETE_GLOBAL")
_CHANGES_ENTRIES = ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE")
_CONTAINERS = (list, dict, set, deque, np.ndarray, torch.Tensor)
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
            dicts, sets, arrays and tensors that it may change.
    """

    functions: list[FunctionType]
    values: dict[str, Any]

    @classmethod
    def of(cls, function: FunctionType) -> "NamedGlobals":
        """Finds what a function names, and what the functions name that it may call."""
        module = function.__globals__
        reached, values = [function], dict[str, Any]()
        assigned, changed = set[str](), set[str]()
        for each in reached:  # it grows meanwhile
            for code in _nested(each.__code__):
                uses = _Uses.of(code)
                assigned |= uses.assigned
                changed |= uses.changed
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
            name for name in changed & values.keys() if isinstance(values[name], _CONTAINERS)
        }
        return cls(reached[1:], {name: values[name] for name in sorted(values.keys() - left_out)})


@dataclass(frozen=True)
class _Uses:
    """The names of globals that code reads, that it assigns, and whose entries it may change."""

    read: set[str]
    assigned: set[str]
    changed: set[str]

    @classmethod
    def of(cls, code: CodeType) -> "_Uses":
        steps = list(dis.get_instructions(code))
        read = {step.argval for step in steps if step.opname in _READS}
        assigned = {step.argval for step in steps if step.opname in _ASSIGNS}
        if any(step.opname in _CHANGES_ENTRIES for step in steps):
            return cls(read, assigned, read)
        changed = {
            step.argval
            for step, after in itertools.pairwise(steps)
            if step.opname in _READS and after.argval in _CHANGING_METHODS
        }
        return cls(read, assigned, changed)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


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
