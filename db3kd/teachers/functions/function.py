"""A teacher made of a Python function on NumPy arrays."""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.arguments.images import check_bounds, check_class_names, check_has_channels
from db3kd.arguments.plain import check_count
from db3kd.errors import ArgumentTypeError
from db3kd.teachers.answer_arrays import as_answer_array, check_answer_range
from db3kd.teachers.base import TeacherError, failure, teacher_repr
from db3kd.teachers.class_numbers import ClassNames
from db3kd.teachers.cpu_batch import batch_for_calls
from db3kd.teachers.decide import check_decisions
from db3kd.teachers.fingerprints import function_fingerprint
from db3kd.teachers.functions.generator import GeneratorStream, is_generator_function
from db3kd.teachers.given_images import as_images
from db3kd.wording import input_noun

_ABOUT_SHAPES = re.compile(r"dim|shape", re.IGNORECASE)
"""What models of rows say about images: "Found array with dim 4", "must be 2 dimensional"."""


class FunctionTeacher:
    """A teacher that calls a Python function on NumPy arrays.

    If each image takes long or costs money, make the function a generator that yields one class
    after the other: db3kd then records each class before it asks for the next.

    Example:
        >>> FunctionTeacher(svc.predict, (1, 8, 8), classes=10, flatten=True)  # scikit-learn

    Args:
        function: Takes images, [N, *image_shape] float32 or, with `flatten`, [N, D], and returns N
            class numbers, or N names among `class_names`. It receives a copy, which it may modify.
        image_shape: Shape of one image, for example `(1, 28, 28)`.
        classes: Number of classes.
        bounds: Lowest and highest pixel value.
        max_batch: Maximum number of images per call. The default is 256, or fewer if so many take
            more than 16 MiB.
        name: The name in errors; by default the function's qualified name.
        flatten: Pass rows of D = prod(image_shape) numbers.
        fingerprint: A text that changes when the function does, if `fingerprint()` cannot find out.
        class_names: Class names in the order of the class numbers.

    Raises:
        TypeError: If `function` cannot be called with one array.
        ValueError: If any of the other arguments is invalid.
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
            raise ArgumentTypeError(
                "function", f"expected a function, got {type(function).__name__}{hint}"
            )
        _check_takes_one_array(function)
        self.image_shape = check_has_channels(image_shape)
        self._noun = input_noun(self.image_shape)
        self.classes = check_count(classes, "classes", least=2)
        self.bounds = check_bounds(bounds)
        if max_batch is None:
            max_batch = batch_for_calls(self.image_shape)
        self.max_batch = check_count(max_batch, "max_batch")
        self.device = torch.device("cpu")
        self.name = str(name or _name_of(function))
        if class_names is not None:
            class_names = check_class_names(class_names, self.classes, f"teacher {self.name}")
        self.class_names = class_names
        self._names = ClassNames(
            class_names,
            "class_names=, in the order of the class numbers",
            quote=True,
            noun=self._noun,
        )
        self._function = function
        self._flatten = flatten
        self._fingerprint = fingerprint
        if is_generator_function(function):
            self.stream = self._stream

    def __repr__(self) -> str:
        return teacher_repr(self)

    def decide(self, images: Tensor) -> Tensor:
        """Returns the function's class of each image; see `Teacher.decide`.

        Raises:
            TeacherError: If the function returns anything but a class for each image, or fails
                because of their shape.
        """
        if is_generator_function(self._function):
            return self._decide_one_by_one(as_images(images, self))
        images = as_images(images, self)
        answer = torch.tensor(self._as_numbers(self._call(images)), device=images.device)
        check_decisions(answer, len(images), self.classes, f"teacher {self.name}")
        return answer.long()

    def fingerprint(self) -> str:
        """Returns the SHA-256 digest of what defines the function, or the text given instead.

        Of a function these are its code, defaults and closure, the user's functions and classes
        that it names, and the values of the globals that all of these name; of a method, its
        object. It is computed once, and a run computes it before its first query.
        """
        if self._fingerprint is None:
            self._fingerprint = function_fingerprint(self._function)
        return self._fingerprint

    def _as_numbers(self, answer: Any) -> np.ndarray:
        """Returns the function's answer as an array, with class numbers instead of names."""
        expected = f"teacher {self.name}: expected one class per {self._noun} from the function"
        if answer is None:
            raise TeacherError(f"{expected}, got None; does it return its result?")
        if np.ma.is_masked(answer):
            row = int(np.flatnonzero(np.ma.getmaskarray(answer))[0])
            raise TeacherError(
                f"{expected}, got a masked array that hides the class of {self._noun} {row}"
            )
        values = as_answer_array(answer, expected)
        if values.dtype.kind in "iu":
            check_answer_range(values, self.classes, f"teacher {self.name}")
            return np.asarray(values, np.int64)
        if values.dtype.kind == "f" and np.isnan(values).any():
            row = int(np.argwhere(np.isnan(values))[0][0])
            raise TeacherError(f"{expected}, got NaN for {self._noun} {row}")
        if values.dtype.kind in "OSU":
            numbers = [
                int(entry)
                if isinstance(entry, int | np.integer) and not isinstance(entry, bool)
                else self._names.number(entry, row, expected)
                for row, entry in enumerate(values.ravel().tolist())
            ]
            check_answer_range(numbers, self.classes, f"teacher {self.name}")
            return np.array(numbers, np.int64).reshape(values.shape)
        if values.dtype.kind not in "bfc":
            raise TeacherError(f"{expected}, got {values.dtype}; return class numbers as integers")
        return values

    def _call(self, images: Tensor) -> Any:
        try:
            return self._function(self._as_array(images))
        except Exception as error:
            are_images = images.ndim > 2 and not self._flatten
            if are_images and _ABOUT_SHAPES.search(str(error)):
                problem = str(failure(self.name, len(images), error)).rstrip(".")
                raise TeacherError(
                    f"{problem}; if it takes rows of numbers, pass flatten=True (on the command "
                    'line, describe the function in a .toml file with layout = "flat" under '
                    "[preprocessing])"
                ) from error
            raise

    def _as_array(self, images: Tensor) -> np.ndarray:
        array = images.detach().to("cpu", torch.float32, copy=True).numpy()
        return array.reshape(len(array), -1) if self._flatten else array

    def _decide_one_by_one(self, images: Tensor) -> Tensor:
        stream, parts = self._stream(images), []
        while len(part := stream.next_part()):
            parts.append(part)
        return torch.cat([*parts, torch.empty(0, dtype=torch.int64)]).to(images.device)

    def _stream(self, images: Tensor) -> GeneratorStream:
        """`StreamingTeacher.stream`, which only the teacher of a generator function has."""
        batches = [self._as_array(batch) for batch in images.split(self.max_batch)]
        return GeneratorStream(
            self._function, batches, self.classes, self._names, self.name, self._noun
        )


def _name_of(function: Callable[..., Any]) -> str:
    """Returns the name of a function; of a method, with the class of its object.

    The `predict` of a model has the name of the model's class, which need not define it.
    """
    if inspect.ismethod(function) and not isinstance(function.__self__, type):
        model, method = type(function.__self__).__name__, function.__func__.__name__
        return model if method == "predict" else f"{model}.{method}"
    return getattr(function, "__qualname__", type(function).__name__)


def _check_takes_one_array(function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        return
    try:
        signature.bind(None)
    except TypeError:
        name = getattr(function, "__qualname__", type(function).__name__)
        raise ArgumentTypeError(
            "function", f"expected a function that takes one array of images, got {name}{signature}"
        ) from None
