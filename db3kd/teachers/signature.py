"""What a model declares of its input and output, against what its user says of it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from db3kd.teachers.answers import AnswerReader, Numbering
from db3kd.teachers.preprocessing import Preprocessing
from db3kd.validation import check_count, check_image_shape


@dataclass(frozen=True)
class TensorSpec:
    """An input or output as a model declares it.

    dtype  a NumPy name, or "text"
    shape  with the batch first; -1 where any size will do; None where the model does not say
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class ModelOverrides:
    """What a user says of a model. What is None is read from the model where that tells it.

    input, output          which of the model's tensors, where it has several
    image_shape, classes   of the images as db3kd holds them; a model that says otherwise is refused
    names                  class names in the order of their numbers
    numbering              how the model numbers the classes, if not from 0
    threshold              of a model that gives one score an image: class 1 begins there
    assumed_shape, assumed_classes  taken where neither the user nor the model says
    """

    input: str | None = None
    output: str | None = None
    image_shape: tuple[int, ...] | None = None
    classes: int | None = None
    names: tuple[str, ...] | None = None
    numbering: Numbering | None = None
    threshold: float | None = None
    assumed_shape: tuple[int, ...] | None = None
    assumed_classes: int | None = None


@dataclass(frozen=True)
class ModelSignature:
    """What both sides agree on. batch: the only batch size the model takes, or None."""

    input: TensorSpec
    output: TensorSpec
    image_shape: tuple[int, ...]
    preprocessing: Preprocessing
    reader: AnswerReader
    batch: int | None

    @property
    def classes(self) -> int:
        return self.reader.classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.reader.names


def resolve(
    who: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    overrides: ModelOverrides,
    preprocessing: Preprocessing,
) -> ModelSignature:
    """The contract of a model that declares these tensors, or none where it says nothing of them.

    Raises ValueError, beginning with `who`, where the two contradict each other, and where
    something is said by neither.
    """
    input = _pick(who, "input", inputs, overrides.input, preprocessing.dtype or "float32")
    output = _pick(who, "output", outputs, overrides.output, "float32")
    preprocessing = _resolve_dtype(who, input, preprocessing)
    shape = _resolve_shape(who, input, overrides, preprocessing)
    return ModelSignature(
        input,
        output,
        shape,
        preprocessing,
        AnswerReader(
            _resolve_classes(who, output, overrides),
            overrides.names,
            overrides.numbering,
            overrides.threshold,
        ),
        input.shape[0] if input.shape and input.shape[0] > 0 else None,
    )


def _pick(
    who: str, kind: str, declared: Sequence[TensorSpec], name: str | None, dtype: str
) -> TensorSpec:
    if not declared:
        if name is None:
            raise ValueError(f"{who}: does not say what its {kind} is called; give {kind}=")
        return TensorSpec(name, dtype, None)
    names = [tensor.name for tensor in declared]
    if name is None and len(declared) > 1:
        raise ValueError(f"{who}: has several {kind}s, {', '.join(names)}; choose one with {kind}=")
    if name is not None and name not in names:
        raise ValueError(f"{kind}: expected one of {', '.join(names)} for {who}, got {name!r}")
    return declared[0 if name is None else names.index(name)]


def _resolve_dtype(who: str, input: TensorSpec, preprocessing: Preprocessing) -> Preprocessing:
    given = preprocessing.dtype
    if given is not None and given != input.dtype:
        raise ValueError(f"dtype: {who} takes {input.dtype}, got {given!r}")
    return dataclasses.replace(preprocessing, dtype=input.dtype)


def _resolve_shape(
    who: str, input: TensorSpec, overrides: ModelOverrides, preprocessing: Preprocessing
) -> tuple[int, ...]:
    declared = None if input.shape is None else input.shape[1:]
    reported = None if declared is None else preprocessing.image_shape(declared)
    hint = ""
    if declared is not None and preprocessing.layout == "NCHW" and _looks_channels_last(declared):
        hint = '; its channels seem to come last: layout = "NHWC" in [preprocessing]'
        if overrides.image_shape is None and reported is not None:
            raise ValueError(f"layout: {who} takes {_sizes(declared)} an image{hint}")
    if (
        reported is not None and len(reported) != 3
    ):  # rows of numbers: what images they are, it leaves open
        reported = overrides.assumed_shape or reported
    shape = overrides.image_shape or reported or overrides.assumed_shape
    if shape is None:
        raise ValueError(f"{who}: does not say what its images are; give image_shape=")
    shape = check_image_shape(shape)
    comes = preprocessing.input_shape(shape)
    if declared is not None and not _fits(comes, declared):
        raise ValueError(
            f"image_shape: {who} takes {_sizes(declared)} an image, got {_sizes(comes)} from "
            f"images {_sizes(shape)} in layout {preprocessing.layout}; correct image_shape, layout "
            f"or resize{hint}"
        )
    return shape


def _looks_channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4)


def _fits(comes: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(comes) == len(declared) and all(
        wanted in (-1, size) for size, wanted in zip(comes, declared, strict=True)
    )


def _resolve_classes(who: str, output: TensorSpec, overrides: ModelOverrides) -> int:
    scores = output.dtype.startswith("float") and output.shape is not None
    declared = output.shape[-1] if scores and len(output.shape) == 2 else None
    declared = declared if declared is not None and declared > 1 else None
    if overrides.threshold is not None and declared is not None:
        raise ValueError(f"threshold: expected {who} to give one score an image, got {declared}")
    numbering = overrides.numbering
    if numbering is not None and declared is not None:
        # Scores may have columns that are none of the classes.
        declared = _classes_among(who, declared, numbering)
    known = {
        "the model's scores": declared,
        "classes=": overrides.classes,
        "the label file": len(overrides.names) if overrides.names else None,
        "class_numbers": len(numbering.numbers) if numbering and numbering.numbers else None,
        "threshold": None if overrides.threshold is None else 2,
    }
    counts = {where: count for where, count in known.items() if count is not None}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} by {where}" for where, count in counts.items())
        raise ValueError(f"classes: expected one number for {who}, got {listed}")
    if not counts and overrides.assumed_classes is None:
        raise ValueError(f"{who}: does not say how many classes it has; give classes=")
    if output.dtype == "text" and not overrides.names:
        raise ValueError(f"{who}: answers class names; give the file that lists them with labels=")
    return check_count(next(iter(counts.values()), overrides.assumed_classes), "classes", least=2)


def _classes_among(who: str, columns: int, numbering: Numbering) -> int:
    """How many classes the scores of a model with so many columns are of."""
    if numbering.numbers is None:
        return columns - numbering.offset
    if max(numbering.numbers) >= columns:
        raise ValueError(
            f"class_numbers: expected numbers in [0, {columns}), which are the scores of {who}, "
            f"got {max(numbering.numbers)}"
        )
    return len(numbering.numbers)


def _sizes(shape: Sequence[int]) -> str:
    return "[" + ", ".join("any" if size < 0 else str(size) for size in shape) + "]"
