"""Combines what a model declares about its input and output with what the user declares."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db3kd.arguments.images import check_bounds, check_image_shape
from db3kd.arguments.plain import check_count, suggests_arguments
from db3kd.errors import ArgumentError, InputError
from db3kd.models.metadata import ModelMetadata
from db3kd.tables import Features
from db3kd.teachers.answers import AnswerReader
from db3kd.teachers.class_numbers import Numbering
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.wording import did_you_mean


class UndeclaredError(InputError):
    """A model does not declare what it takes or answers, and neither does the caller.

    Attributes:
        found: The object that a `package.module:object` named; None for files and addresses.
    """

    found: Any = None


@dataclass(frozen=True)
class TensorSpec:
    """An input or output tensor as a model declares it.

    Attributes:
        name: The tensor's name.
        dtype: A NumPy dtype name, or "text".
        shape: The shape, with the batch first and -1 for any size, or None if it is not declared.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None


@suggests_arguments
@dataclass(frozen=True)
class ModelOverrides:
    """What the user declares about a model. None means: as the model declares it.

    Example:
        >>> OnnxTeacher("digits.onnx", ModelOverrides(output="label", classes=10))

    Attributes:
        input: The name of the input tensor, for a model with several.
        output: The name of the output tensor, for a model with several.
        image_shape: Shape of one image in db3kd's layout, for example `(3, 32, 32)`.
        classes: Number of classes.
        class_names: Class names in the order of the class numbers.
        numbering: The model's class numbers, if they are not 0 to C - 1.
        threshold: For a model that returns one score per image: class 1 begins here.
        bounds: Lowest and highest pixel value of db3kd's images; replaces `Preprocessing.bounds`.
        assumed_shape: The image shape if neither the user nor the model declares it.
        assumed_classes: The number of classes if neither the user nor the model declares it.
        assumed_class_names: Their names if neither the user nor the model declares them.
        features: The features of a table, for a function or a fitted model that takes its rows.
    """

    input: str | None = None
    output: str | None = None
    image_shape: tuple[int, ...] | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    numbering: Numbering | None = None
    threshold: float | None = None
    bounds: tuple[float, float] | None = None
    assumed_shape: tuple[int, ...] | None = None
    assumed_classes: int | None = None
    assumed_class_names: tuple[str, ...] | None = None
    features: Features | None = None

    def require_all(self, who: str) -> tuple[tuple[int, ...], int, tuple[float, float]]:
        """Returns (image_shape, classes, bounds) for a model that declares nothing itself.

        Args:
            who: How errors begin.

        Raises:
            UndeclaredError: If the image shape or the number of classes is not known.
        """
        shape = self.image_shape or self.assumed_shape
        classes = self.classes or self._implied_classes() or self.assumed_classes
        if shape is None or classes is None:
            needed = (
                ("the shape of its images", "image_shape=", shape),
                ("its number of classes", "classes=", classes),
            )
            missing = [(noun, argument) for noun, argument, value in needed if value is None]
            nouns, arguments = (" and ".join(texts) for texts in zip(*missing, strict=True))
            raise UndeclaredError(f"{who}: does not declare {nouns}; pass {arguments}")
        return (
            check_image_shape(tuple(shape)),
            check_count(classes, "classes", least=2),
            check_bounds(self.bounds or (0.0, 1.0)),
        )

    def completed(self, declared: ModelMetadata | None, file: str | Path) -> "ModelOverrides":
        """Returns these declarations, completed with what a model's file declares.

        Args:
            declared: The file's metadata, or None if it has none.
            file: The file.

        Raises:
            ValueError: If the file declares other features of a table.
        """
        trained = None if declared is None else declared.features
        if None not in (trained, self.features) and trained != self.features:
            described, advice = str(file), ""
            if Path(file).suffix != ".safetensors":
                described = "features.json"
                advice = (
                    f", written by db3kd.load_teacher({str(file)!r}).features.save({described!r})"
                )
            raise ArgumentError(
                "features",
                f"expected those that the network in {file} was trained with, got "
                f"others from the data; load the data with features={described!r}{advice}",
            )
        names = ("image_shape", "classes", "bounds", "class_names", "threshold", "features")
        missing = [name for name in names if getattr(self, name) is None]
        return dataclasses.replace(
            self, **{name: getattr(declared, name, None) for name in missing}
        )

    def _implied_classes(self) -> int | None:
        if self.threshold is not None:
            return 2
        return None if self.class_names is None else len(self.class_names)


@dataclass(frozen=True)
class ModelSignature:
    """A model's input and output, complete and free of contradictions.

    Attributes:
        input: The input tensor.
        output: The output tensor.
        image_shape: Shape of one image in db3kd's layout.
        preprocessing: The steps from db3kd's images to the input.
        reader: Converts the output to decisions.
        batch: The only batch size that the model takes, or None.
    """

    input: TensorSpec
    output: TensorSpec
    image_shape: tuple[int, ...]
    preprocessing: Preprocessing
    reader: AnswerReader
    batch: int | None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.reader.classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names in the order of the class numbers, if they are known."""
        return self.reader.names


def resolve(
    who: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    overrides: ModelOverrides,
    preprocessing: Preprocessing,
    *,
    quote: bool = True,
) -> ModelSignature:
    """Combines a model's declarations with the user's.

    Args:
        who: How errors begin.
        inputs: The input tensors that the model declares, or none.
        outputs: The output tensors that the model declares, or none.
        overrides: What the user declares.
        preprocessing: The steps from db3kd's images to the input.
        quote: Whether errors may repeat an answer; see `AnswerReader`.

    Raises:
        ValueError: If the declarations contradict each other, or if information is missing.
    """
    if overrides.bounds is not None:
        preprocessing = dataclasses.replace(preprocessing, bounds=overrides.bounds)
    input = _choose(who, "input", inputs, overrides.input, preprocessing.dtype or "float32")
    output = _choose(who, "output", outputs, overrides.output, "float32")
    preprocessing = _resolve_dtype(who, input, preprocessing)
    shape = _resolve_shape(who, input, overrides, preprocessing)
    return ModelSignature(
        input,
        output,
        shape,
        preprocessing,
        AnswerReader(
            _resolve_classes(who, output, overrides),
            overrides.class_names,
            overrides.numbering,
            overrides.threshold,
            quote=quote,
        ),
        input.shape[0] if input.shape and input.shape[0] > 0 else None,
    )


def _choose(
    who: str, kind: str, declared: Sequence[TensorSpec], name: str | None, dtype: str
) -> TensorSpec:
    if not declared:
        if name is None:
            raise InputError(f"{who}: does not declare the name of its {kind}; pass {kind}=")
        return TensorSpec(name, dtype, None)
    names = [tensor.name for tensor in declared]
    if name is None and len(declared) > 1:
        raise InputError(f"{who}: has several {kind}s, {', '.join(names)}; choose one with {kind}=")
    if name is not None and name not in names:
        raise ArgumentError(
            kind,
            f"expected one of {', '.join(names)} for {who}, got {name!r}"
            f"{did_you_mean(name, names)}",
        )
    return declared[0 if name is None else names.index(name)]


def _resolve_dtype(who: str, input: TensorSpec, preprocessing: Preprocessing) -> Preprocessing:
    dtype = preprocessing.dtype
    if dtype is not None and dtype != input.dtype:
        raise ArgumentError("dtype", f"expected {input.dtype}, the input of {who}, got {dtype!r}")
    return dataclasses.replace(preprocessing, dtype=input.dtype)


def _resolve_shape(
    who: str, input: TensorSpec, overrides: ModelOverrides, preprocessing: Preprocessing
) -> tuple[int, ...]:
    declared = None if input.shape is None else input.shape[1:]
    from_model = None if declared is None else preprocessing.image_shape(declared)
    hint = ""
    if declared is not None and preprocessing.layout == "NCHW" and _looks_channels_last(declared):
        hint = '; the channels seem to be last: set layout = "NHWC" in [preprocessing]'
        if overrides.image_shape is None and from_model is not None:
            raise ArgumentError("layout", f"{who} takes {_sizes(declared)} per image{hint}")
    if from_model is not None and len(from_model) != 3:
        # A flat input does not determine the shape of the images.
        from_model = overrides.assumed_shape or from_model
    shape = overrides.image_shape or from_model or overrides.assumed_shape
    if shape is None:
        raise InputError(f"{who}: does not declare the shape of its images; pass image_shape=")
    shape = check_image_shape(shape)
    input_shape = preprocessing.input_shape(shape)
    if declared is not None and not _fits(input_shape, declared):
        raise ArgumentError(
            "image_shape",
            f"expected {_sizes(declared)} per image for {who}, got "
            f"{_sizes(input_shape)} from images {_sizes(shape)} in layout {preprocessing.layout}; "
            f"correct image_shape, layout or resize{hint}",
        )
    return shape


def _looks_channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4)


def _fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(shape) == len(declared) and all(
        expected in (-1, size) for size, expected in zip(shape, declared, strict=True)
    )


def _resolve_classes(who: str, output: TensorSpec, overrides: ModelOverrides) -> int:
    columns = _score_columns(output)
    if overrides.threshold is not None and columns is not None:
        raise ArgumentError("threshold", f"expected one score per image from {who}, got {columns}")
    numbering = overrides.numbering
    if numbering is not None and columns is not None:
        columns = _classes_among(who, columns, numbering)
    sources = {
        "the model's scores": columns,
        "classes=": overrides.classes,
        "the label file": len(overrides.class_names) if overrides.class_names else None,
        "class_numbers": len(numbering.numbers) if numbering and numbering.numbers else None,
        "threshold": None if overrides.threshold is None else 2,
    }
    counts = {source: count for source, count in sources.items() if count is not None}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} from {source}" for source, count in counts.items())
        raise ArgumentError("classes", f"expected one number of classes for {who}, got {listed}")
    classes = next(iter(counts.values()), overrides.assumed_classes)
    if classes is None:
        raise InputError(f"{who}: does not declare its number of classes; pass classes=")
    if output.dtype == "text" and not overrides.class_names:
        raise InputError(f"{who}: answers with class names; list them in a file and pass labels=")
    return check_count(classes, "classes", least=2)


def _score_columns(output: TensorSpec) -> int | None:
    """Returns the number of scores per image, or None if the output does not declare scores."""
    shape = output.shape
    if not output.dtype.startswith("float") or shape is None or len(shape) != 2 or shape[-1] <= 1:
        return None
    return shape[-1]


def _classes_among(who: str, columns: int, numbering: Numbering) -> int:
    """Returns how many of a model's score columns are classes."""
    if numbering.numbers is None:
        return columns - numbering.offset
    if max(numbering.numbers) >= columns:
        raise ArgumentError(
            "class_numbers",
            f"expected numbers in [0, {columns}), the score columns of {who}, got "
            f"{max(numbering.numbers)}",
        )
    return len(numbering.numbers)


def _sizes(shape: Sequence[int]) -> str:
    return "[" + ", ".join("any" if size < 0 else str(size) for size in shape) + "]"
