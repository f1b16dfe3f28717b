"""Weights that training scripts saved: found under prefixes and in nested dictionaries."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError

_NESTED_STATES = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
_MOST_NESTED = 4


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights in a file of `torch.save`, also inside nested dictionaries; nothing is unpickled.

    Raises:
        TeacherError: the file is corrupt, pickled, or holds no state dict, or several.
    """
    state = reading(path, lambda: torch.load(path, map_location="cpu", weights_only=True))
    if isinstance(state, dict):
        found = list(_states(state))
        # Several, as where averaged weights lie beside the last: the usual name tells.
        usual = [weights for key, weights in found if key in _NESTED_STATES]
        chosen = [weights for _, weights in found] if len(found) == 1 else usual[:1]
        state = chosen[0] if chosen else state
    if not isinstance(state, dict) or not _is_state(state):
        found = f"keys {listed(state)}" if isinstance(state, dict) else type(state).__name__
        raise TeacherError(
            f"{path}: expected a state dict of tensors, got {found}; save module.state_dict()"
        )
    return state


def _states(
    content: dict[str, Any], key: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The state dicts inside nested dictionaries, each with the key it lies under."""
    if _is_state(content):
        yield key, content
    elif depth < _MOST_NESTED:
        for name, value in content.items():
            if isinstance(value, dict):
                yield from _states(value, str(name), depth + 1)


def _is_state(state: dict[str, Any]) -> bool:
    return bool(state) and all(isinstance(value, Tensor) for value in state.values())


def without_prefix(state: dict[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """The weights without a prefix that is common to all of them, if the module has none such.

    Wrappers such as DataParallel ("module."), torch.compile ("_orig_mod.") and Lightning ("model.")
    leave one, and several of them one each.
    """
    wanted = set(wanted)
    while state and not wanted & state.keys():
        heads = {key.partition(".")[0] for key in state}
        if len(heads) != 1 or not all("." in key for key in state):
            break
        state = {key.partition(".")[2]: value for key, value in state.items()}
    return state


def listed(keys: Iterable[str], most: int = 6) -> str:
    """The first keys, and how many more there are."""
    keys = [str(key) for key in keys]
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def reading(path: Path, read: Callable[[], Any]) -> Any:
    """What `read` returns; whatever a corrupt file makes it raise becomes one clear error."""
    try:
        return read()
    except TeacherError:
        raise
    except pickle.UnpicklingError as error:
        raise TeacherError(
            f"{path}: is corrupt or holds pickled Python objects, which db3kd never unpickles; "
            "save module.state_dict() or use save_model"
        ) from error
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TeacherError(
            f"{path}: cannot be read as {path.suffix}; it is corrupt or of another kind ({first})"
        ) from error
