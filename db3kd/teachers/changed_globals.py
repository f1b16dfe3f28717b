"""Which globals code changes in place, found by following them through its instructions.

An object is followed from the global to local names, entries, attributes and loop variables. The
result of a call or of an operator counts as another object. The attributes of a method's `self`
are followed in the same way.
"""

import dis
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from types import CodeType
from typing import Any

READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
"""The instructions that load a global."""

_ENDS = ("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE")
_JUMPS = ("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")
_ONLY_PUSH = ("LOAD_", "PUSH_")
_KEEP_REST = (
    *("STORE_", "DELETE_", "POP_", "JUMP_", "RETURN_", "END_FOR", "NOP", "RESUME", "CACHE"),
    *("MAKE_CELL", "COPY_FREE_VARS", "KW_NAMES", "GET_ITER", "NOT_TAKEN"),
)
"""How the names of instructions begin that leave what they do not remove from the stack."""

_DEEPEST = 2


_MOST_STEPS = (20_000, 10)
"""How many steps are followed at most: a number, and one per instruction."""


@dataclass(frozen=True)
class Change:
    """A change of a global, or of a part of it.

    Attributes:
        name: The name of the global. That of an attribute of `self` begins with a dot.
        held: How far from the global the object is that a local name holds, if one leads to the
            change: 0 for the global itself (`cache = CACHE`) and if there is none, 1 for a part
            (`row = TABLE[0]`), 2 for a part of a part.
        method: The method that is looked up; empty if an entry is assigned or deleted, and
            `.name` if the attribute `name` is.
        depth: How far from the global the object is that changes, counted in the same way.
        sliced: Whether the object is a slice, which is a copy of a list, and not of an array.
    """

    name: str
    held: int
    method: str = ""
    depth: int = 0
    sliced: bool = False


def changes_of(code: CodeType, owner: str = "") -> set[Change]:
    """Returns the changes that code, without the functions that it defines, may make to globals.

    Example:
        >>> changes_of(compile("CACHE[0] = 1", "", "exec"))
        {Change(name='CACHE', held=0, method='', depth=0, sliced=False)}

    Args:
        code: The code.
        owner: The local name, such as `self`, of an object whose attributes count as globals do.

    Returns:
        All changes of entries and attributes, and all methods of globals and their parts, also
        those that change nothing. Of code that is too complex to follow, none.
    """
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    offsets = [step.offset for step in steps]
    before: dict[int, _State] = {}
    found = _Found()
    if owner:
        found.held[owner] = frozenset([_OWNER])
    left = _MOST_STEPS[0] + _MOST_STEPS[1] * len(steps)
    for start in range(len(steps)):
        if start in before:
            continue
        # No jump leads to an exception handler, where any name may hold what it held before.
        before[start] = _State([], {**found.held})
        waiting = [start]
        # The first instruction comes first, so that branches have met before the code after them.
        while waiting:
            number = heappop(waiting)
            left -= 1
            if not left:
                return set()
            for follower, after in _followers(steps, offsets, number, before[number], found):
                known = before.get(follower)
                before[follower] = after if known is None else known.joined(after)
                if before[follower] != known and follower not in waiting:
                    heappush(waiting, follower)
    return found.changes


@dataclass(frozen=True)
class _Origin:
    """The global that an object is, or is a part of, and how far from it the object is.

    The name is empty for a slice, and for the owner of the attributes that are followed.
    """

    name: str
    depth: int = 0
    held: int = 0
    sliced: bool = False

    def part(self) -> "_Origin":
        return replace(self, depth=min(self.depth + 1, _DEEPEST))

    def change(self, method: str = "") -> Change:
        return Change(self.name, self.held, method, self.depth, self.sliced)


_Origins = frozenset[_Origin]
"""What an object may be; empty for one that is no part of a global."""

_OTHER: _Origins = frozenset()
_OWNER = _Origin("")
_SLICE: _Origins = frozenset([_Origin("", sliced=True)])
"""What stands for a slice, because an entry `[1:2]` of a list is a copy."""


@dataclass
class _Found:
    """The changes that were found, and all that the local names may hold anywhere."""

    changes: set[Change] = field(default_factory=set)
    held: dict[str, _Origins] = field(default_factory=dict)

    def add(self, origins: _Origins, method: str = "") -> None:
        self.changes.update(each.change(method) for each in origins if each.name)


@dataclass
class _State:
    """What the top of the stack and the local names hold before an instruction.

    The rest of the stack is not known. States share the dict of names, which is never changed; it
    has no names that hold no part of a global.
    """

    stack: list[_Origins]
    names: dict[str, _Origins]

    def copy(self) -> "_State":
        return _State([*self.stack], self.names)

    def joined(self, other: "_State") -> "_State":
        known = min(len(self.stack), len(other.stack))
        stacks = (each.stack[len(each.stack) - known :] for each in (self, other))
        names = self.names
        if names is not other.names and names != other.names:
            names = {**names}
            for name, origins in other.names.items():
                names[name] = names.get(name, _OTHER) | origins
        return _State([a | b for a, b in zip(*stacks, strict=True)], names)

    def pop(self) -> _Origins:
        return self.stack.pop() if self.stack else _OTHER

    def top(self, depth: int = 1) -> _Origins:
        return self.stack[-depth] if len(self.stack) >= depth else _OTHER

    def use(self, name: str, names: Any, found: _Found) -> None:
        """Loads and stores local names, of which one instruction may have two."""
        uses = [part for part in name.split("_") if part in ("LOAD", "STORE")]
        for use, each in zip(uses, (names,) if isinstance(names, str) else names, strict=False):
            if use == "LOAD":
                self.stack.append(self.names.get(each, _OTHER))
                continue
            held = frozenset(replace(origin, held=origin.depth) for origin in self.pop())
            if held:
                found.held[each] = found.held.get(each, _OTHER) | held
                self.names = {**self.names, each: held}
            elif each in self.names:
                self.names = {known: old for known, old in self.names.items() if known != each}


def _followers(
    steps: list[dis.Instruction],
    offsets: list[int],
    number: int,
    before: _State,
    found: _Found,
) -> Iterator[tuple[int, _State]]:
    """Yields the instructions that may follow, with the state before each of them."""
    step = steps[number]
    if step.opname not in (*_ENDS, *_JUMPS) and number + 1 < len(steps):
        yield number + 1, _after(step, before, found, jump=False)
    if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
        yield bisect_left(offsets, step.argval), _after(step, before, found, jump=True)


def _after(step: dis.Instruction, before: _State, found: _Found, *, jump: bool) -> _State:
    """Returns the state after an instruction, and adds the changes that it makes."""
    state, name = before.copy(), step.opname
    stack = state.stack
    effect = dis.stack_effect(step.opcode, step.arg, jump=jump)
    height = max(len(stack) + effect, 0)
    if name in READS:
        if not effect:
            state.pop()
        stack += [frozenset([_Origin(step.argval)])] * max(effect, 1)
    elif name.startswith(("LOAD_FAST", "STORE_FAST", "LOAD_DEREF", "STORE_DEREF")):
        state.use(name, step.argval, found)
    elif name == "COPY":
        stack.append(state.top(step.argval))
    elif name == "SWAP":
        if len(stack) < step.argval:
            stack.clear()
        else:
            stack[-1], stack[-step.argval] = stack[-step.argval], stack[-1]
        height = len(stack)
    elif name in ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE"):
        found.add(state.top(3 if name == "STORE_SLICE" else 2))
    elif name in ("STORE_ATTR", "DELETE_ATTR"):
        found.add(state.top(), f".{step.argval}")
    elif name in ("LOAD_ATTR", "LOAD_METHOD"):
        owners = state.pop()
        found.add(owners, step.argval)
        stack += [_attribute(owners, step.argval)] * (effect + 1)
    elif name == "BINARY_SUBSCR" or (name == "BINARY_OP" and step.argrepr == "[]"):
        key, owners = state.pop(), state.pop()
        stack.append(_slice(owners) if key == _SLICE else _parts(owners))
    elif name == "BINARY_SLICE":
        del stack[-2:]
        stack.append(_slice(state.pop()))
    elif name == "BINARY_OP" and step.argrepr.endswith("="):
        found.add(frozenset(replace(each, held=0) for each in state.top(2) if each.depth == 0))
    elif name == "FOR_ITER" and not jump:
        stack.append(_parts(state.top()))
    elif name == "UNPACK_SEQUENCE":
        stack += [_parts(state.pop())] * step.argval
    elif name == "LOAD_CONST" and isinstance(step.argval, slice):
        stack.append(_SLICE)
    elif not name.startswith(_KEEP_REST) and not (name.startswith(_ONLY_PUSH) and effect > 0):
        del stack[max(height - 1, 0) :]
        stack.append(_SLICE if name == "BUILD_SLICE" else _OTHER)
    del stack[height:]
    stack += [_OTHER] * (height - len(stack))
    return state


def _parts(origins: _Origins) -> _Origins:
    return frozenset(each.part() for each in origins if each.name)


def _slice(origins: _Origins) -> _Origins:
    return frozenset(replace(each, sliced=True) for each in origins if each.name)


def _attribute(origins: _Origins, name: str) -> _Origins:
    """Returns the parts of objects that are their attribute `name`."""
    of_owner = frozenset([_Origin(f".{name}")] if _OWNER in origins else [])
    return of_owner | _parts(origins)
