"""Fingerprints of functions and of fitted models: digests of what defines their answers.

A pickle is not a stable fingerprint of an object: its bytes depend on the order of sets and on
which equal values are one object, and some models count their calls.
"""

import copyreg
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn

from db3kd.models.weights import tensor_bytes
from db3kd.teachers.function_code import NamedGlobals, instructions_of
from db3kd.teachers.module_state import Methods, defining_values, weights_digest

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_CONTAINERS = (tuple, list, dict, set, frozenset)


def function_fingerprint(function: Callable[..., Any]) -> str:
    """Returns the SHA-256 digest, in hex, of what defines a function.

    Of a Python function these are its code, defaults and closure, the code of the functions of its
    module that it calls, and the globals that these name, as far as their values can be read. A
    comment, a docstring and the place of the function in its file make no difference.

    A fitted scikit-learn model keeps its fingerprint after it is saved and loaded, and after
    predictions.

    Raises:
        ValueError: If its closure or object cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for part in _defining_parts(function, []):
            digest.update(part)
            digest.update(b"\0")
    except Exception as error:  # an object's own __reduce__ may raise anything
        raise ValueError(
            f"fingerprint: the state of {function!r} cannot be read ({error}); pass "
            "fingerprint=, a text that changes when the function does"
        ) from error
    return digest.hexdigest()


def module_digest(
    module: nn.Module,
    autocast: torch.dtype | None = None,
    digests: "_GlobalDigests | None" = None,
) -> str:
    """Returns the digest of `db3kd.teachers.module_fingerprint.module_fingerprint`.

    Args:
        module: The module.
        autocast: The dtype of `torch.autocast`, or None.
        digests: Knows what is being read, if the module is part of something else.

    Raises:
        ValueError: If its extra state cannot be read.
    """
    weights = weights_digest(module, autocast, object_digest)
    digests = digests or _GlobalDigests([], module)
    parts = []
    methods = Methods(module)
    for name, value in defining_values(module, methods):
        with suppress(Exception):  # its state cannot be read
            parts.append(digests.of((name, value)))
    for function in methods.all():
        if function not in digests.functions:
            parts += _reached_parts(function, digests.functions, _helper_parts)
    return _hashed(weights, parts).hex() if parts else weights


def object_digest(value: Any) -> bytes:
    """Returns the digest of an object by the state that it would pickle, 32 bytes."""
    return _ObjectDigests().of(value)


def _defining_parts(function: Callable[..., Any], known: list[FunctionType]) -> list[bytes]:
    """Returns bytes that change when the function does.

    Args:
        function: The function.
        known: Functions whose parts are known, for functions that name each other; extended.
    """
    if isinstance(function, functools.partial):
        arguments = _ObjectDigests().of((function.args, function.keywords))
        return [*_defining_parts(function.func, known), arguments]
    if inspect.ismethod(function):
        return [function.__func__.__qualname__.encode(), _ObjectDigests().of(function.__self__)]
    if not isinstance(function, FunctionType):
        wrapped = getattr(function, "__wrapped__", None)  # of functools.lru_cache, for example
        parts = _defining_parts(wrapped, known) if isinstance(wrapped, FunctionType) else []
        return [_ObjectDigests().of(function), *parts]
    if function in known:
        return [function.__qualname__.encode()]
    return _reached_parts(function, known, _own_parts)


def _reached_parts(
    function: FunctionType,
    known: list[FunctionType],
    parts_of: Callable[[FunctionType, list[FunctionType]], list[bytes]],
) -> list[bytes]:
    """Returns the parts of a function, and of the functions and globals of its module it names."""
    named = NamedGlobals.of(function)
    known.append(function)
    parts = parts_of(function, known)
    for helper in named.functions:
        if helper not in known:
            known.append(helper)
            parts += _helper_parts(helper, known)
    digests = _GlobalDigests(known)
    for name, value in named.values.items():
        with suppress(Exception):  # its state cannot be read
            parts.append(digests.of((name, value)))
    return parts


def _own_parts(function: FunctionType, known: list[FunctionType]) -> list[bytes]:
    """Returns bytes that change with the code, the defaults or the closure of a function."""
    defined = (
        instructions_of(function.__code__),
        function.__defaults__,
        function.__kwdefaults__,
    )
    parts = [function.__qualname__.encode(), _ObjectDigests().of(defined)]
    for cell in function.__closure__ or ():
        value = cell.cell_contents
        if inspect.isroutine(value):
            parts += _defining_parts(value, known)
        else:
            parts.append(_ObjectDigests().of(value))
    return parts


def _helper_parts(function: FunctionType, known: list[FunctionType]) -> list[bytes]:
    """Returns the parts of a function that the teacher's function may call.

    Of its defaults and closure, what cannot be read or may differ in each process does not count.
    """
    parts = [
        function.__qualname__.encode(),
        _ObjectDigests().of(instructions_of(function.__code__)),
    ]
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    digests = _GlobalDigests(known)
    for value in (*(function.__defaults__ or ()), function.__kwdefaults__, *cells):
        with suppress(Exception):  # its state cannot be read
            routine = inspect.isroutine(value)
            parts += _defining_parts(value, known) if routine else [digests.of(value)]
    return parts


class _ObjectDigests:
    """Digests of objects, by the state that they would pickle; nothing is unpickled."""

    def __init__(self) -> None:
        # The objects are kept, so that no other one gets the id of a temporary object.
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._open: dict[int, int] = {}

    def of(self, value: Any) -> bytes:
        """Returns the digest of an object: 32 bytes, the same for equal state."""
        if type(value) in _PLAIN:
            return _hashed(type(value).__name__, [repr(value).encode()])
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._open:  # the object holds itself
            return _hashed("cycle", [str(len(self._open) - self._open[id(value)]).encode()])
        self._open[id(value)] = len(self._open)
        try:
            digest = _hashed(*self._parts(value))
        finally:
            del self._open[id(value)]
        self._known[id(value)] = (value, digest)
        return digest

    def _parts(self, value: Any) -> tuple[str, list[bytes]]:
        """Returns what kind of object it is, and the bytes that distinguish it from others."""
        kind = type(value)
        if kind in (tuple, list):
            return kind.__name__, list(map(self.of, value))
        if kind in (set, frozenset):
            return kind.__name__, sorted(map(self.of, value))
        if kind is dict:
            return "dict", self._items(value.items())
        if kind in (np.ndarray, np.memmap) or isinstance(value, np.generic):
            return "array", self._array(np.asarray(value))
        if isinstance(value, np.dtype):
            return "dtype", [str(value).encode()]
        if isinstance(value, torch.Tensor):
            return "tensor", self._tensor(value)
        if isinstance(value, type):
            return "global", [_global_name(value)]
        if inspect.isfunction(value):
            importable = value.__module__ != "__main__" and "<" not in value.__qualname__
            return "function", [_global_name(value)] if importable else _defining_parts(value, [])
        if kind.__module__.startswith("scipy.sparse") and hasattr(value, "tocoo"):
            # Its flags, for example of sorted indices, are set when they are first needed.
            entries = value.tocoo()
            arrays = (entries.row, entries.col, entries.data)
            return kind.__qualname__, list(map(self.of, (value.shape, *arrays)))
        return "object", self._state(value)

    def _state(self, value: Any) -> list[bytes]:
        reduce = copyreg.dispatch_table.get(type(value))
        reduced: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
        if isinstance(reduced, str):
            return [_global_name(value, reduced)]
        make, arguments, state, entries, items = [*reduced, None, None, None][:5]
        if hasattr(value, "get_tree_stats"):  # KDTree and BallTree count what a search visits
            state = [part for part in state if type(part) is not int]
        return [
            self.of(make),
            self.of(arguments),
            self.of(state),
            *([] if entries is None else map(self.of, entries)),
            b"",
            *([] if items is None else self._items(items)),
        ]

    def _items(self, items: Iterable[tuple[Any, Any]]) -> list[bytes]:
        keyed = sorted(((self.of(key), value) for key, value in items), key=lambda item: item[0])
        return [part for key, value in keyed for part in (key, self.of(value))]

    def _array(self, array: np.ndarray) -> list[bytes]:
        header = f"{array.dtype} {array.shape}".encode()
        if array.dtype.names is not None:  # bytes between the fields are undefined
            return [header, *(self.of(np.asarray(array[name])) for name in array.dtype.names)]
        if array.dtype.hasobject:
            return [header, *map(self.of, array.ravel().tolist())]
        return [header, array.tobytes()]

    def _tensor(self, tensor: torch.Tensor) -> list[bytes]:
        header = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
        if not tensor.is_quantized:
            return [header, tensor_bytes(tensor)]
        return [header, tensor_bytes(tensor.int_repr()), tensor_bytes(tensor.dequantize())]


class _GlobalDigests(_ObjectDigests):
    """Digests of globals; an object that may differ in each process does not count.

    Such are random generators, clients, open files and objects of the user's classes. Of a value
    that holds some of them, the others still count.

    Args:
        functions: Functions whose parts are known; extended.
        module: A module that is being read.
    """

    def __init__(self, functions: list[FunctionType], module: nn.Module | None = None) -> None:
        super().__init__()
        self.functions = functions
        if module is not None:
            self._open[id(module)] = 0

    def _parts(self, value: Any) -> tuple[str, list[bytes]]:
        kind = type(value)
        if isinstance(value, nn.Module):
            return "module", [module_digest(value, None, self).encode()]
        if kind.__module__.startswith(("sklearn.", "scipy.sparse")):
            with suppress(Exception):  # a part of it may have any class
                return "model", [_ObjectDigests().of(value)]
        elif isinstance(value, (*_CONTAINERS, np.ndarray, np.generic, np.dtype, torch.Tensor)):
            return super()._parts(value)
        elif isinstance(value, type) or inspect.isfunction(value) or inspect.isbuiltin(value):
            return "named", [value.__qualname__.encode()]
        elif isinstance(value, functools.partial):
            return "partial", [self.of((value.func, value.args, value.keywords))]
        elif inspect.ismethod(value):
            return "method", [self.of((value.__func__, value.__self__))]
        return "left out", []


def _global_name(value: Any, name: str | None = None) -> bytes:
    module = getattr(value, "__module__", None) or type(value).__module__
    return f"{module}.{name or value.__qualname__}".encode()


def _hashed(kind: str, parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        digest.update(f"\0{len(part)}\0".encode())
        digest.update(part)
    return digest.digest()
