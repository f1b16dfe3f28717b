"""Any Python function on NumPy arrays as a teacher."""

import functools
import hashlib
import inspect
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError
from db3kd.teachers.cpu_batch import batch_for_calls
from db3kd.teachers.generator import GeneratorStream
from db3kd.validation import check_bounds, check_class_names, check_count, check_image_shape


class FunctionTeacher:
    """A function from images to classes; a scikit-learn estimator takes one line.

        FunctionTeacher(svc.predict, (1, 8, 8), 10, flatten=True)

    function     float32 array [N, *image_shape], or [N, D] with `flatten`, -> N class numbers, or
                 names among `class_names`. It gets a copy, free to change. If an image takes long
                 or costs money, make it a generator that yields one class after the other: each is
                 kept as it comes
    image_shape  shape of one image
    classes      number of classes
    bounds       lowest and highest value of an image
    max_batch    most images of one call; by default 256, fewer if so many take over 16 MiB
    name         what errors call it; by default the function's qualified name
    flatten      hand over rows of D = prod(image_shape) numbers
    fingerprint  SHA-256 hex, or any text, of what defines the function; by default found as
                 `fingerprint()` says
    class_names  the name of each class, in the order of their numbers, or None
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], Any],
        image_shape: tuple[int, ...],
        classes: int,
        bounds: tuple[float, float] = (0.0, 1.0),
        max_batch: int | None = None,
        name: str | None = None,
        flatten: bool = False,
        *,
        fingerprint: str | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        if not callable(function):
            hint = "; pass its predict method" if hasattr(function, "predict") else ""
            raise TypeError(f"function: expected a function, got {type(function).__name__}{hint}")
        self.image_shape = check_image_shape(image_shape)
        self.classes = check_count(classes, "classes", least=2)
        self.bounds = check_bounds(bounds)
        if max_batch is None:
            max_batch = batch_for_calls(self.image_shape)
        self.max_batch = check_count(max_batch, "max_batch")
        self.device = torch.device("cpu")
        self.name = name or getattr(function, "__qualname__", type(function).__name__)
        if class_names is not None:
            class_names = check_class_names(class_names, self.classes, f"teacher {self.name}")
        self.class_names = class_names
        self._function = function
        self._flatten = flatten
        self._fingerprint = fingerprint
        if inspect.isgeneratorfunction(function):
            self.stream = self._stream

    def decide(self, images: Tensor) -> Tensor:
        """images [N, *image_shape] -> the function's answers, integers as int64."""
        if inspect.isgeneratorfunction(self._function):
            return self._decide_one_by_one(images)
        answer = self._numbers(self._function(self._array(images)))
        return torch.tensor(answer, device=images.device)

    def _numbers(self, answer: Any) -> np.ndarray:
        """What the function returned, as an array of numbers; names become class numbers.

        Raises:
            TeacherError: it is no array of numbers or known names, or hides some of its entries.
        """
        wanted = f"{self.name}: expected a class number for each image"
        if answer is None:
            raise TeacherError(f"{wanted}, got None; does the function return what it computes?")
        if np.ma.is_masked(answer):
            row = int(np.flatnonzero(np.ma.getmaskarray(answer))[0])
            raise TeacherError(f"{wanted}, got a masked array whose entry {row} is hidden")
        values = np.asarray(answer)
        if values.dtype.kind in "iu":
            return values.astype(np.int64)
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise TeacherError(
                f"{wanted}, got NaN at row {int(np.argwhere(np.isnan(values))[0][0])}"
            )
        if values.dtype.kind in "OSU":
            return self._numbers_of_names(values, wanted)
        return values

    def _numbers_of_names(self, values: np.ndarray, wanted: str) -> np.ndarray:
        entries = values.ravel().tolist()
        texts = [each.decode() if isinstance(each, bytes) else each for each in entries]
        for row, each in enumerate(texts):
            if isinstance(each, int) and not isinstance(each, bool):
                continue
            if not isinstance(each, str):
                raise TeacherError(f"{wanted}, got {each!r} ({type(each).__name__}) at row {row}")
            if self.class_names is None:
                raise TeacherError(
                    f"{wanted}, got the name {each!r}; give class_names=, in the order of their "
                    "numbers"
                )
            if each.strip() not in self.class_names:
                raise TeacherError(f"{wanted}, got the name {each!r}, which is not in class_names")
        names = self.class_names or ()
        numbers = [names.index(each.strip()) if isinstance(each, str) else each for each in texts]
        return np.array(numbers, np.int64).reshape(values.shape)

    def _array(self, images: Tensor) -> np.ndarray:
        array = images.detach().to("cpu", torch.float32, copy=True).numpy()
        return array.reshape(len(array), -1) if self._flatten else array

    def _decide_one_by_one(self, images: Tensor) -> Tensor:
        stream, parts = self._stream(images), []
        while len(part := stream.next_part()):
            parts.append(part)
        return torch.cat([*parts, torch.empty(0, dtype=torch.int64)]).to(images.device)

    def _stream(self, images: Tensor) -> GeneratorStream:
        """As `decide`, of a generator function, but each decision is handed over as it comes."""
        arrays = [self._array(part) for part in images.split(self.max_batch)]
        return GeneratorStream(self._function, arrays, self.classes, self.name)

    def fingerprint(self) -> str:
        """SHA-256 hex of a function's source and closure, or of a method's object as pickled.

        Raises ValueError where neither can be had; give `fingerprint=` then.
        """
        if self._fingerprint is None:
            self._fingerprint = _function_fingerprint(self._function)
        return self._fingerprint


def _function_fingerprint(function: Callable[..., Any]) -> str:
    digest = hashlib.sha256()
    try:
        for part in _defining_parts(function):
            digest.update(part)
            digest.update(b"\0")
    except Exception as error:  # pickle passes on whatever an object's own __reduce__ raises
        raise ValueError(
            f"fingerprint: what defines {function!r} cannot be read ({error}); give fingerprint= "
            "a text that changes with it"
        ) from error
    return digest.hexdigest()


def _defining_parts(function: Callable[..., Any]) -> list[bytes]:
    """Bytes that change when the function does. Pickled objects are hashed, never read back."""
    if isinstance(function, functools.partial):
        arguments = pickle.dumps((function.args, sorted(function.keywords.items())))
        return [*_defining_parts(function.func), arguments]
    if inspect.ismethod(function):
        return [function.__func__.__qualname__.encode(), pickle.dumps(function.__self__)]
    if inspect.isfunction(function):
        closure = [cell.cell_contents for cell in function.__closure__ or ()]
        defined = pickle.dumps((function.__defaults__, function.__kwdefaults__))
        parts = [function.__qualname__.encode(), inspect.getsource(function).encode(), defined]
        for value in closure:
            parts += _defining_parts(value) if inspect.isroutine(value) else [pickle.dumps(value)]
        return parts
    return [pickle.dumps(function)]
