"""Teachers and images as callers give them: made into what db3kd works with, or explained."""

import copy
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from db3kd.data.image_set import ImageSet
from db3kd.teachers.base import Teacher
from db3kd.teachers.module import ModuleTeacher

_PARTS = ("image_shape", "classes", "bounds", "device", "decide", "fingerprint")


def as_images(images: Any) -> Any:
    """An image set as it is, a tensor or array as a float32 tensor; uint8 becomes an image set.

    Raises:
        TypeError: it is none of these; the message says how to make one.
    """
    if isinstance(images, np.ma.MaskedArray):
        raise _no_images(images, "fill its hidden entries, then images.data")
    if isinstance(images, np.ndarray):
        if images.dtype.kind not in "fiu":
            raise _no_images(images, f"of dtype {images.dtype}: convert it to float32 or uint8")
        if images.dtype.kind == "f":
            return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
        images = torch.from_numpy(
            np.ascontiguousarray(images.astype(images.dtype.newbyteorder("=")))
        )
    if isinstance(images, Tensor):
        if images.is_floating_point():
            return images.float()
        if images.dtype == torch.uint8:
            return ImageSet.from_arrays(images.cpu().numpy(), name="images")
        raise _no_images(images, "of whole numbers: convert it to uint8 (0 to 255) or to float32")
    if all(hasattr(images, name) for name in ("read", "image_shape", "name", "__len__")):
        return images
    if isinstance(images, nn.Module) or hasattr(images, "decide"):
        raise _no_images(images, "the teacher comes first: label(teacher, images)")
    if isinstance(images, str | os.PathLike):
        raise _no_images(images, f"load them: db3kd.load_data({str(images)!r})")
    raise _no_images(
        images, "make an array [N, C, H, W] of them, or db3kd.ImageSet.from_arrays(array, labels)"
    )


def as_teacher(teacher: Any, images: Any = None) -> Teacher:
    """A teacher as it is; a torch module with the images' shape, and as many classes as it scores.

    images: as `as_images` returns them, if there are any.

    Raises:
        TypeError: it is neither; the message says how to wrap it.
    """
    if isinstance(teacher, nn.Module) and not hasattr(teacher, "decide"):
        return _wrapped(teacher, images)
    missing = [name for name in _PARTS if not hasattr(teacher, name)]
    if not missing and not isinstance(teacher, type):
        return teacher
    raise TypeError(
        f"teacher: expected a teacher, got {_described(teacher)}; {_teacher_hint(teacher, missing)}"
    )


def _wrapped(module: nn.Module, images: Any) -> ModuleTeacher:
    how = "wrap it: db3kd.ModuleTeacher(module, image_shape, classes)"
    if images is None:
        raise TypeError(f"teacher: a torch module does not tell the shape of its images; {how}")
    shape = tuple(images.shape[1:] if isinstance(images, Tensor) else images.image_shape)
    first = next(module.parameters(), torch.empty(0))
    dtype = first.dtype if first.is_floating_point() else torch.float32
    try:
        with torch.inference_mode():
            blank = torch.zeros(1, *shape, dtype=dtype, device=first.device)
            scores = copy.deepcopy(module).eval()(blank)
    except Exception as error:
        raise TypeError(
            f"teacher: {type(module).__name__} fails on an image of shape {shape} "
            f"({type(error).__name__}: {error}); give images of the shape that it takes, or {how}"
        ) from error
    if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[1] < 2:
        came = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(
            f"teacher: expected scores [1, classes] from {type(module).__name__} for an image of "
            f"shape {shape}, got {came}; {how}, around a module that returns such scores"
        )
    return ModuleTeacher(module, shape, scores.shape[1])


def _teacher_hint(teacher: Any, missing: list[str]) -> str:
    if isinstance(teacher, np.ndarray | Tensor | ImageSet):
        return "the teacher comes first, then the images"
    if isinstance(teacher, str | os.PathLike):
        return f"load it: db3kd.load_teacher({str(teacher)!r})"
    if hasattr(teacher, "decide"):
        return f"it lacks {', '.join(missing)} (see db3kd.Teacher)"
    if hasattr(teacher, "predict"):
        return (
            "wrap its predict method: db3kd.FunctionTeacher(model.predict, image_shape, classes, "
            "flatten=True)"
        )
    if callable(teacher):
        return "wrap it: db3kd.FunctionTeacher(function, image_shape, classes)"
    return "see db3kd.FunctionTeacher, db3kd.ModuleTeacher and db3kd.load_teacher"


def _no_images(images: Any, hint: str) -> TypeError:
    return TypeError(
        f"images: expected an ImageSet, or an array or tensor [N, C, H, W], got "
        f"{_described(images)}; {hint}"
    )


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray | Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{type(value).__name__} {list(value.shape)} {dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return type(value).__name__
