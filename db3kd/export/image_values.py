"""Finds networks whose Python code reads the values of their images, which a trace cannot record.

Tracing runs a network once. A number that Python reads from a tensor becomes a constant of the
graph, and so does every branch that depends on it. Shapes are different: code may read them.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_BATCHES = (1, 2, 37)
"""Numbers of images: a network may read values only in batches of one, or of several."""

_READ_VALUES = frozenset(
    [
        "__array__",
        "__bool__",
        "__complex__",
        "__contains__",
        "__float__",
        "__index__",
        "__int__",
        "allclose",
        "equal",
        "is_nonzero",
        "item",
        "numpy",
        "tolist",
    ]
)
"""Functions of torch that return values of a tensor to Python."""

_LIBRARIES = ("torch", "db3kd")


def where_values_are_read(network: nn.Module, image_shape: tuple[int, ...]) -> str | None:
    """Returns where a network reads values of its images, such as "__float__ in net.py, line 7".

    The network is called on a few random images.

    Returns:
        The first place, or None if no values are read, or if the network fails.
    """
    for count in _BATCHES:
        generator = torch.Generator().manual_seed(count)
        images = torch.rand(count, *image_shape, generator=generator, dtype=torch.float32)
        mode = _ValueReads(images)
        try:
            with torch.no_grad(), mode:
                network(images)
        except Exception:  # the conversion that follows raises it, too
            return None
        if mode.place is not None:
            return mode.place
    return None


class _ValueReads(TorchFunctionMode):
    """Notes the first place at which Python reads a value that depends on the images.

    Args:
        images: The images.

    Attributes:
        place: The place; None if there is none so far.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.place: str | None = None
        self._dependent = {id(images): images}  # keeps the tensors, so that no id is used again

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Calls a function of torch; see `torch.overrides.TorchFunctionMode`."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(id(each) in self._dependent for each in tree_leaves((args, kwargs))):
            name = getattr(func, "__name__", "")
            if name in _READ_VALUES and self.place is None:
                self.place = f"{name}{_caller()}"
            changed = args[:1] if name == "__setitem__" else result
            for each in tree_leaves(changed):
                if isinstance(each, Tensor):
                    self._dependent[id(each)] = each
        return result


def _caller() -> str:
    """Returns the place in the network's own code, such as " in net.py, line 7"; may be empty."""
    for frame, line in traceback.walk_stack(None):
        library = str(frame.f_globals.get("__name__")).partition(".")[0]
        if library not in _LIBRARIES:
            return f" in {Path(frame.f_code.co_filename).name}, line {line}"
    return ""
