"""Finds the weights in checkpoints of training scripts: in nested dictionaries, under prefixes."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError
from db3kd.wording import first_line

_USUAL_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
_MAX_DEPTH = 4

Result = TypeVar("Result")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Returns the state dict in a file of `torch.save`, read with `weights_only=True`.

    If there are several, for example the last and the averaged weights, the first one under a usual
    key such as "state_dict" is returned.

    Raises:
        TeacherError: If the file is corrupt or holds pickled objects, or if there is no state dict
            or no usual key among several.
    """
    content = reading(path, lambda: torch.load(path, map_location="cpu", weights_only=True))
    if not isinstance(content, dict):
        raise _no_state_dict(path, type(content).__name__)
    states = list(_states(content))
    if len(states) > 1:
        states = [(key, state) for key, state in states if key in _USUAL_KEYS][:1]
    if not states:
        raise _no_state_dict(path, f"keys {first_keys(content)}")
    return states[0][1]


def _no_state_dict(path: Path, got: str) -> TeacherError:
    return TeacherError(
        f"{path}: expected a state dict of tensors, got {got}; save module.state_dict()"
    )


def _states(
    content: dict[str, Any], key: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields the state dicts inside nested dictionaries, each with its key."""
    if _is_state(content):
        yield key, content
    elif depth < _MAX_DEPTH:
        for name, value in content.items():
            if isinstance(value, dict):
                yield from _states(value, str(name), depth + 1)


def _is_state(state: dict[str, Any]) -> bool:
    return bool(state) and all(isinstance(value, Tensor) for value in state.values())


def without_prefix(state: dict[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Returns the weights without the prefixes that all their names share.

    Each wrapper adds one: DataParallel "module.", torch.compile "_orig_mod.", Lightning "model.".
    Prefixes are kept if any name is among the module's `expected` names.
    """
    expected = set(expected)
    while state and not expected & state.keys():
        heads = {key.partition(".")[0] for key in state}
        if len(heads) != 1 or not all("." in key for key in state):
            break
        state = {key.partition(".")[2]: value for key, value in state.items()}
    return state


def first_keys(keys: Iterable[object], count: int = 6) -> str:
    """Returns a text with the first keys and the number of the others."""
    names = [str(key) for key in keys]
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def reading(path: Path, read: Callable[[], Result]) -> Result:
    """Returns the result of `read`.

    Raises:
        TeacherError: If `read` raises anything, because the file is corrupt or pickled.
    """
    try:
        return read()
    except TeacherError:
        raise
    except pickle.UnpicklingError as error:
        raise TeacherError(
            f"{path}: is corrupt or holds pickled Python objects, which db3kd does not unpickle; "
            "save module.state_dict() or use save_model"
        ) from error
    except Exception as error:
        raise TeacherError(
            f"{path}: cannot be read as {path.suffix}; it is corrupt or in another format "
            f"({first_line(error)})"
        ) from error
