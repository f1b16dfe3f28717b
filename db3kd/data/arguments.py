"""Teachers and images as callers pass them: converted to db3kd's types, or refused with advice."""

import os
import sys
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from db3kd.arguments.arrays import IntegersLike, as_classes, float_tensor
from db3kd.arguments.images import check_dense
from db3kd.data.dataset_images import (
    HuggingFaceDataset,
    dataset_image_set,
    hugging_face_image_set,
)
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import ImageSource, NamedImages, TensorImages
from db3kd.data.pseudo_samples import PseudoSamples
from db3kd.data.table_rows import features_of, is_model, table_as_images
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.models.copying import copy_network
from db3kd.tables import Features
from db3kd.tables.columns import is_table
from db3kd.teachers.base import Teacher
from db3kd.teachers.functions.tabular import TabularTeacher
from db3kd.teachers.torch_modules.module import ModuleTeacher
from db3kd.wording import input_noun


class TableLike(Protocol):
    """A pandas DataFrame, or a table of pyarrow or polars."""

    @property
    def columns(self) -> Any:
        """The columns, or their names."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of rows and columns."""
        ...


class ModelLike(Protocol):
    """A fitted model of scikit-learn, or one with the same method."""

    def predict(self, rows: Any, /) -> Any:
        """Returns the class of each row."""
        ...


ImagesLike = (
    ImageSet
    | Tensor
    | np.ndarray
    | Dataset[Any]
    | HuggingFaceDataset
    | PseudoSamples
    | NamedImages
    | ImageSource
    | TableLike
)
"""What every function that takes images accepts.

- An `ImageSet`, whose images lie in [0, 1].
- A tensor or NumPy array [N, *image_shape]: floats within the teacher's bounds, or uint8, which is
  divided by 255.
- A map-style `torch.utils.data.Dataset`, whose items are images or pairs (image, label).
- A `datasets.Dataset` of Hugging Face, with a column of images and perhaps one of labels.
- `PseudoSamples`.
- A pandas DataFrame, or a table of pyarrow or polars, if the function also takes a teacher. The
  columns that the teacher's features name are encoded. A teacher without features gets all columns,
  which must be numbers.
"""

TeacherLike = Teacher | nn.Module | ModelLike
"""What every function that takes a teacher accepts.

- A teacher.
- A torch module from images to scores.
- With a table, a fitted model of scikit-learn, whose features are inferred from the table. Declare
  them with `TabularTeacher` if the model takes values that the table lacks.
"""

_TEACHER_MEMBERS = ("image_shape", "classes", "bounds", "device", "decide", "fingerprint")
_NAMED_MEMBERS = ("read", "image_shape", "name", "__len__")


def as_images(
    images: ImagesLike, *, with_labels: bool = True, teacher: TeacherLike | None = None
) -> NamedImages:
    """Converts images to `TensorImages` or an image set.

    Float arrays and tensors become `TensorImages`, whose bounds are the teacher's. Everything else
    becomes an `ImageSet`, whose bounds are [0, 1]. The items of a data set are read by index when
    they are needed; its labels and class names are kept.

    Args:
        images: The images.
        with_labels: Whether to read the labels of a data set, which may read each item once.
        teacher: The teacher that is to be asked, which says what the columns of a table are. None
            refuses tables.

    Raises:
        TypeError: If `images` has another type; the message states how to convert it.
        ValueError: If the items of a data set do not fit each other.
    """
    given: Any = images
    if isinstance(given, np.ndarray):
        return _from_array(given)
    if isinstance(given, Tensor):
        return _from_tensor(given)
    if isinstance(given, PseudoSamples):
        return given.as_image_set()
    if all(hasattr(given, name) for name in _NAMED_MEMBERS):
        return given
    if isinstance(given, IterableDataset) or _is_hugging_face(given, "IterableDataset"):
        raise _unsupported_images(
            given,
            "a data set that can only be iterated has no indices; collect its items and use "
            "db3kd.ImageSet.from_arrays(images, labels)",
        )
    if is_table(given):
        if teacher is not None:
            return table_as_images(given, teacher)
        raise _unsupported_images(given, "encode it: db3kd.ImageSet.from_table(table, labels)")
    if isinstance(given, DataLoader):
        raise _unsupported_images(given, "pass its data set: loader.dataset")
    if _is_hugging_face(given, "DatasetDict"):
        raise _unsupported_images(given, f"pass one of its splits: {', '.join(given)}")
    if _is_hugging_face(given, "Dataset"):
        return hugging_face_image_set(given, with_labels)
    if isinstance(given, Dataset):
        return dataset_image_set(given, with_labels)
    if isinstance(given, nn.Module) or hasattr(given, "decide"):
        raise _unsupported_images(given, "pass the teacher first, then the images")
    if isinstance(given, str | os.PathLike):
        raise _unsupported_images(given, f"load them: db3kd.load_data({str(given)!r})")
    raise _unsupported_images(
        given, "make an array [N, C, H, W], or db3kd.ImageSet.from_arrays(array, labels)"
    )


def as_image_source(images: ImagesLike) -> ImageSource:
    """Converts images as `as_images`; any other image source is returned unchanged.

    Training and evaluation need images by index only. So they also take a source without a name,
    and the labels of a data set are not read.

    Raises:
        TypeError: See `as_images`.
        ValueError: See `as_images`.
    """
    if all(hasattr(images, name) for name in ("read", "__len__")):
        source: Any = images
        return source
    return as_images(images, with_labels=False)


def with_labels(images: ImagesLike, labels: IntegersLike | None) -> tuple[ImageSource, Tensor]:
    """Converts images, and takes their labels unless other labels are given.

    Labels of -1 are accepted: they mean that there is none.

    Returns:
        The images as by `as_image_source`, and [N] int64.

    Raises:
        TypeError: See `as_images`.
        ValueError: If there are no labels or not one per image, or as for `as_images`.
    """
    if labels is not None:
        given = as_image_source(images)
        return given, as_classes(labels, len(given), least=-1)
    source = as_images(images)
    if source.labels is None:
        noun = input_noun(source.image_shape)
        made = "from_arrays(images" if noun == "image" else "from_table(table"
        raise ArgumentError(
            "labels",
            f"expected the class of each {noun}, got {noun}s without labels; pass labels=, "
            f"or db3kd.ImageSet.{made}, labels)",
        )
    return source, source.labels


def as_teacher(teacher: TeacherLike, images: NamedImages | None = None) -> Teacher:
    """Converts a torch module to a teacher; a teacher is returned unchanged.

    Args:
        teacher: A teacher, or a module from images to scores [n, C].
        images: Images as `as_images` returns them: a module has their shape.

    Raises:
        TypeError: If `teacher` has another type; the message states how to convert it.
        ValueError: If the images are rows of a table that were encoded by other features than the
            teacher's.
    """
    given: Any = teacher
    if isinstance(given, nn.Module) and not hasattr(given, "decide"):
        return _wrap_module(given, images)
    missing = [name for name in _TEACHER_MEMBERS if not hasattr(given, name)]
    if not missing and not isinstance(given, type):
        features_of(given, images)  # raises if they differ
        return given
    features = Features.of(images)
    if is_model(given) and features is not None:
        return TabularTeacher(given, features)
    raise ArgumentTypeError(
        "teacher", f"expected a teacher, got {_described(given)}; {_teacher_advice(given, missing)}"
    )


def _from_array(array: np.ndarray) -> NamedImages:
    if isinstance(array, np.ma.MaskedArray):
        raise _unsupported_images(array, "fill its masked values, and pass images.data")
    if array.dtype.kind == "f":
        return TensorImages(float_tensor(array))
    if array.dtype.kind not in "iu":
        raise _unsupported_images(array, f"convert it from {array.dtype} to float32 or uint8")
    native = array.astype(array.dtype.newbyteorder("="))
    return _from_tensor(torch.from_numpy(np.ascontiguousarray(native)))


def _from_tensor(images: Tensor) -> NamedImages:
    check_dense(images)
    if images.is_floating_point():
        return TensorImages(images.detach().float())
    if images.dtype == torch.uint8:
        return ImageSet.from_arrays(images.cpu().numpy(), name="images")
    raise _unsupported_images(images, "convert it to uint8 (0 to 255) or to float32")


def _is_hugging_face(value: Any, kind: str) -> bool:
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(value, getattr(datasets, kind))


def _wrap_module(module: nn.Module, images: NamedImages | None) -> Teacher:
    advice = "wrap it: db3kd.ModuleTeacher(module, image_shape, classes)"
    if images is None:
        raise ArgumentTypeError(
            "teacher", f"a torch module does not state the shape of its images; {advice}"
        )
    shape = tuple(images.image_shape)
    first = next(module.parameters(), torch.empty(0))
    dtype = first.dtype if first.is_floating_point() else torch.float32
    copied = copy_network(module, "teacher").eval()
    try:
        with torch.inference_mode():
            scores = copied(torch.zeros(1, *shape, dtype=dtype, device=first.device))
    except Exception as error:
        raise ArgumentTypeError(
            "teacher",
            f"{type(module).__name__} fails on an image of shape {shape} "
            f"({type(error).__name__}: {error}); pass images of the shape that it takes, or "
            f"{advice}",
        ) from error
    if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[1] < 2:
        actual = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ArgumentTypeError(
            "teacher",
            f"expected scores [1, classes] from {type(module).__name__} for an image of "
            f"shape {shape}, got {actual}; {advice}, around a module that returns such scores",
        )
    return ModuleTeacher(module, shape, scores.shape[1])


def _teacher_advice(teacher: Any, missing: list[str]) -> str:
    if isinstance(teacher, np.ndarray | Tensor | ImageSet | Dataset):
        return "pass the teacher first, then the images"
    if isinstance(teacher, str | os.PathLike):
        return f"load it: db3kd.load_teacher({str(teacher)!r})"
    if hasattr(teacher, "decide"):
        return f"it lacks {', '.join(missing)} (see db3kd.Teacher)"
    if hasattr(teacher, "predict"):
        return (
            "wrap its predict method: db3kd.FunctionTeacher(model.predict, image_shape, classes, "
            "flatten=True) for images, db3kd.TabularTeacher(model, features) for rows of a table; "
            "or pass the rows as a DataFrame"
        )
    if callable(teacher):
        return "wrap it: db3kd.FunctionTeacher(function, image_shape, classes)"
    return "see db3kd.FunctionTeacher, db3kd.ModuleTeacher and db3kd.load_teacher"


def _unsupported_images(images: Any, advice: str) -> TypeError:
    return ArgumentTypeError(
        "images",
        "expected an ImageSet, an array or tensor [N, C, H, W], or a map-style data set, "
        f"got {_described(images)}; {advice}",
    )


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray | Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{type(value).__name__} {list(value.shape)} {dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return type(value).__name__
