"""Digests of values of any type, and of the code and the globals behind them.

A pickle is no stable digest of an object: its bytes depend on the order of sets, and on which equal
values are one object.
"""

import copyreg
import hashlib
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, cached_property, partial
from itertools import chain
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from db3kd.arguments.arrays import tensor_bytes
from db3kd.errors import ArgumentError
from db3kd.teachers.fingerprints.module_state import beside_weights
from db3kd.teachers.fingerprints.user_code import (
    CodeNames,
    instructions_of,
    is_installed,
    is_of_library,
)

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_SEQUENCES = (tuple, list, deque)
_SETS = (set, frozenset)
_DICTS = (dict, defaultdict, OrderedDict, Counter)
_ARRAYS = (np.ndarray, np.memmap)
_WRAPPERS = (property, staticmethod, classmethod, cached_property)
_BY_TYPE = (
    *(random.Random, np.random.Generator, np.random.BitGenerator, np.random.RandomState),
    *(torch.Generator, torch.device),
)
"""What differs in each process, or between machines."""

_DEEPEST = 100


class ObjectDigests:
    """Digests of values of any type, which are the same in each process.

    What cannot be read counts by its type.

    Args:
        home: The name of the module of the function or class that is digested. It makes no
            difference, so that a file may be imported, run or moved.
        counts_home: Whether the code of this module counts even if it is installed.
    """

    def __init__(self, home: str, *, counts_home: bool = False) -> None:
        self._home = home
        self._modules = {home} if counts_home else set()
        self._is_installed = cache(is_installed)
        # The objects are kept, so that no other one gets the id of a temporary object.
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._open: set[int] = set()
        self._strict = False
        self._in_part = not self._counts(home)  # if the teacher is itself a library's object
        self._globals: dict[tuple[str, str], Any] = {}
        self._assigned: set[tuple[str, str]] = set()

    def of(self, value: Any) -> bytes:
        """Returns the digest of a value: 32 bytes, the same for equal state."""
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._open:  # the object holds itself
            return hashed("cycle", [])
        if len(self._open) == _DEEPEST:
            return hashed("deep", [self._name(type(value))])
        self._open.add(id(value))
        try:
            digest = hashed(*self._parts(value))
        except Exception:  # an object may raise anything if it is looked at
            if self._strict:
                raise
            digest = hashed("type", [self.of(type(value))])
        finally:
            self._open.discard(id(value))
        if type(value) not in _PLAIN:
            self._known[id(value)] = (value, digest)
        return digest

    def of_globals(self) -> list[bytes]:
        """Returns the digests of the globals that the code of all values so far names.

        Those that this code assigns are left out, such as a number of calls.
        """
        self._in_part = False
        found = dict[tuple[str, str], bytes]()
        while left := self._globals.keys() - found.keys() - self._assigned:
            for key in sorted(left):
                found[key] = hashed("global", [self.of(key), self.of(self._globals[key])])
        return [found[key] for key in sorted(found.keys() - self._assigned)]

    def of_weights(self, module: nn.Module, autocast: torch.dtype | None = None) -> str:
        """Returns the hex digest of a module's architecture, weights and precision.

        Raises:
            ValueError: If a lazy layer was never called.
        """
        kind = type(module)
        digest = hashlib.sha256(
            f"{kind.__module__}.{kind.__qualname__}\n{module}\n{autocast}\n".encode()
        )
        for key, value in sorted(module.state_dict().items()):
            if nn.parameter.is_lazy(value):
                raise ArgumentError(
                    "fingerprint",
                    f"{key!r} of the module {kind.__qualname__} has no shape before "
                    "the module is called; call the module once before passing it",
                )
            if isinstance(value, torch.Tensor) and not value.is_quantized:
                digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(tensor_bytes(value))
            else:  # extra state, or quantized weights
                digest.update(f"{key}\n".encode() + self.of(value))
        return digest.hexdigest()

    def _parts(self, value: Any) -> tuple[str, Iterable[bytes]]:
        """Returns what kind of value it is, and the bytes that distinguish it from others."""
        kind = type(value)
        if kind in _PLAIN:
            return kind.__name__, [repr(value).encode()]
        if kind in (*_SEQUENCES, *_SETS, *_DICTS) and (text := _plain_text(value)) is not None:
            return kind.__name__, [text.encode()]
        if kind in _SEQUENCES:
            return kind.__name__, map(self.of, value)
        if kind in _SETS:
            return kind.__name__, sorted(map(self.of, value))
        if kind in _DICTS:
            return kind.__name__, self._items(value.items())
        if kind in _ARRAYS or isinstance(value, np.generic):
            return "array", self._array(np.asarray(value))
        if isinstance(value, np.dtype):
            return "dtype", [str(value).encode()]
        if isinstance(value, torch.Tensor):
            return "tensor", _tensor(value)
        if isinstance(value, CodeType):
            return "code", [self.of(instructions_of(value))]
        if isinstance(value, FunctionType):
            with self._reading(strict=False):
                return "function", list(self._function(value))
        if isinstance(value, type):
            with self._reading(strict=False):
                return "class", list(self._class(value))
        if isinstance(value, MethodType):
            return "method", [self.of(value.__func__), self.of(value.__self__)]
        if isinstance(value, partial):
            return "partial", map(self.of, (value.func, value.args, value.keywords))
        if isinstance(value, _WRAPPERS):
            names = ("fget", "fset", "__func__", "func")
            return kind.__name__, [self.of(getattr(value, name, None)) for name in names]
        if isinstance(value, ModuleType):
            return "module", [self._label(vars(value)).encode()]
        if isinstance(value, torch.jit.ScriptFunction):
            return "script", [str(value.code).encode()]
        if isinstance(value, nn.Module):
            return self.of_weights(value), map(self.of, beside_weights(value))
        if isinstance(value, _BY_TYPE):
            return "type", [self._name(kind)]
        counts = self._counts(kind.__module__)
        if not counts and isinstance(getattr(value, "__wrapped__", None), FunctionType):
            return "wrapper", [self._name(kind), self.of(value.__wrapped__)]  # functools.lru_cache
        if kind.__module__.startswith("scipy.sparse") and hasattr(value, "tocoo"):
            # Its flags, for example of sorted indices, are set when they are first needed.
            entries = value.tocoo()
            arrays = (entries.row, entries.col, entries.data)
            return kind.__qualname__, list(map(self.of, (value.shape, *arrays)))
        with self._reading(strict=not counts and not self._in_part):
            return "object", self._state(value)

    @contextmanager
    def _reading(self, *, strict: bool) -> Iterator[None]:
        """Sets whether an object counts by its type alone if any part of it cannot be read.

        It does if it is a library's: such a part shows that it is no data, but a connection or the
        like, whose other parts may differ in each process.
        """
        before, self._strict = self._strict, strict
        try:
            yield
        finally:
            self._strict = before

    def _state(self, value: Any) -> list[bytes]:
        """Returns the digests of what pickle would store of an object."""
        reduce = copyreg.dispatch_table.get(type(value))
        reduced: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
        if isinstance(reduced, str):
            return [self._name(value, reduced)]
        make, arguments, state, entries, items = [*reduced, None, None, None][:5]
        if hasattr(type(value), "get_tree_stats"):  # KDTree and BallTree count what a search visits
            state = [part for part in state if type(part) is not int]
        return [
            self.of(make),
            self.of(arguments),
            self.of(state),
            *([] if entries is None else map(self.of, entries)),
            b"",
            *([] if items is None else self._items(items)),
        ]

    def _function(self, function: FunctionType) -> Iterator[bytes]:
        module = function.__globals__.get("__name__", "")
        yield self._name(function)
        if self._counts(module):
            self._name_globals(function.__globals__, CodeNames.of(function.__code__))
            defaults = (function.__defaults__, function.__kwdefaults__)
            yield from map(self.of, (function.__code__, defaults, vars(function)))
        elif "<locals>" not in function.__qualname__:
            yield self.of(getattr(function, "__wrapped__", None))
            return
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # it is empty
                yield self.of(cell.cell_contents)

    def _class(self, kind: type) -> Iterator[bytes]:
        yield self._name(kind)
        if issubclass(kind, nn.Module):
            self._modules.add(kind.__module__)
        if self._counts(kind.__module__):
            yield from map(self.of, kind.__bases__)
            for name, member in sorted(vars(kind).items(), key=lambda item: item[0]):
                is_method = isinstance(member, (FunctionType, *_WRAPPERS))
                left_out = ("__annotate",) if is_method else ("__", "_abc_")
                if not name.startswith(left_out):
                    yield from (name.encode(), self.of(member))

    def _name_globals(self, namespace: dict[str, Any], names: CodeNames) -> None:
        """Keeps the values of the globals that code names, for `of_globals`.

        Of a module they are the attributes in it that the code names.
        """
        self._assigned |= {(self._label(namespace), name) for name in names.assigned}
        # A name such as __name__ depends on how the module was started.
        named = {name for name in names.read if name[:2] != "__"}
        waiting, seen = [(namespace, named)], set[str]()
        for space, used in waiting:  # it grows meanwhile
            for name in sorted(used & space.keys()):
                value = space[name]
                if not issubclass(type(value), ModuleType):  # isinstance may run its code
                    self._globals.setdefault((self._label(space), name), value)
                elif self._counts(value.__name__) and value.__name__ not in seen:
                    seen.add(value.__name__)
                    waiting.append((vars(value), names.attributes))

    def _label(self, namespace: dict[str, Any]) -> str:
        module = str(namespace.get("__name__", ""))
        return "" if module == self._home else module

    def _name(self, value: Any, name: str | None = None) -> bytes:
        module = getattr(value, "__module__", None) or type(value).__module__
        label = self._label({"__name__": module})
        return f"{label}.{value.__qualname__ if name is None else name}".encode()

    def _counts(self, module: str) -> bool:
        """Returns whether the code of a module is the user's, or that of the teacher's class."""
        if is_of_library(module):
            return False
        return module in self._modules or not self._is_installed(module.partition(".")[0])

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


def _plain_text(container: Any) -> str | None:
    """Returns the entries of a container as a text; None if they are not all plain values."""
    entries = container.items() if isinstance(container, dict) else container
    plain = chain.from_iterable(entries) if isinstance(container, dict) else entries
    if not all(type(value) in _PLAIN for value in plain):
        return None
    texts = map(repr, entries)
    return ", ".join(texts if isinstance(container, _SEQUENCES) else sorted(texts))


def _tensor(tensor: torch.Tensor) -> list[bytes]:
    header = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    if not tensor.is_quantized:
        return [header, tensor_bytes(tensor)]
    return [header, tensor_bytes(tensor.int_repr()), tensor_bytes(tensor.dequantize())]


def hashed(kind: str, parts: Iterable[bytes]) -> bytes:
    """Returns the digest of a kind of value and its parts, 32 bytes."""
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        digest.update(f"\0{len(part)}\0".encode())
        digest.update(part)
    return digest.digest()
