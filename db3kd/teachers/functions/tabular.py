"""A teacher made of a classifier over rows of a table."""

import hashlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from db3kd.arguments.images import check_class_names
from db3kd.arguments.plain import check_count
from db3kd.errors import ArgumentError, ArgumentTypeError, InputError
from db3kd.tables import Features
from db3kd.teachers.answer_arrays import as_answer_array
from db3kd.teachers.base import TeacherError
from db3kd.teachers.cpu_batch import batch_for_calls
from db3kd.teachers.fingerprints import function_fingerprint
from db3kd.teachers.functions.function import FunctionTeacher
from db3kd.teachers.functions.generator import is_generator_function
from db3kd.wording import shortened

_MODEL_BATCH = 4096
"""Maximum number of rows per call of a model. A random forest of 100 trees takes 28 ms for 256 rows
and 58 ms for 4,096, because most of a call's time does not depend on the rows."""


class TabularTeacher(FunctionTeacher):
    """A teacher that decodes unit vectors to rows of a table, and asks a classifier about them.

    The classifier gets the rows as it was fitted on them: integers are whole, categories are valid
    values, and a DataFrame has its names and dtypes.

    If each row takes long or costs money, make the function a generator that yields one class after
    the other, as for `FunctionTeacher`.

    Example:
        >>> forest = RandomForestClassifier().fit(frame, colours)
        >>> features = db3kd.Features.infer(frame)
        >>> teacher = db3kd.TabularTeacher(forest, features)
        >>> labels = db3kd.label(teacher, features.encode(frame))

    Args:
        predict: A function from rows to N class labels, or an object with a method `predict`. The
            rows are a NumPy array [N, F] or a DataFrame, as `features.decode` returns them.
        features: The features of the rows.
        classes: The class labels in the order of the class numbers, or the number C of classes if
            the labels are 0 to C - 1 or `class_names`; with C = 2 they may also be booleans, and
            False is class 0. By default the attribute `classes_` of the model, as in scikit-learn.
        class_names: Class names in the order of the class numbers; by default the class labels if
            they are not the numbers 0 to C - 1.
        max_batch: Maximum number of rows per call. The default is 4,096 for a method of a model,
            and as for `FunctionTeacher` for a function, which may pay for each row.
        name: The name in errors; by default that of the model's type, or of the function.
        fingerprint: A text that changes when the model does, if `fingerprint()` cannot find out.

    Attributes:
        features: The features of the rows.

    Raises:
        TypeError: If `predict` cannot be called, or `features` is something else.
        ValueError: If the classes are unknown, or any other argument is invalid.
    """

    def __init__(
        self,
        predict: Any,
        features: Features,
        classes: int | Sequence[Any] | np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
        *,
        max_batch: int | None = None,
        name: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        if not isinstance(features, Features):
            raise ArgumentTypeError(
                "features",
                f"expected db3kd.Features, got {type(features).__name__}; infer them "
                "with db3kd.Features.infer(table)",
            )
        function = getattr(predict, "predict", predict)
        if isinstance(predict, type) or not callable(function):
            raise ArgumentTypeError(
                "predict",
                "expected a function or a fitted model with a method predict, got "
                f"{predict.__name__ if isinstance(predict, type) else type(predict).__name__}",
            )
        model = getattr(function, "__self__", None) if function is predict else predict
        self._advice = "return one of these labels, or correct classes="
        if classes is None:
            classes = _classes_of(model)
            self._advice = "pass classes=, all labels in the order of the class numbers"
        if isinstance(classes, int | np.integer):
            labels, count = None, check_count(int(classes), "classes", least=2)
        else:
            labels = _label_tuple(classes)
            count = len(labels)
            class_names = _names_of(labels) if class_names is None else class_names
        if class_names is not None:
            class_names = check_class_names(class_names, count, "teacher")
        if name is None and model is not None:
            name = type(model).__name__
        if max_batch is None and model is not None:
            max_batch = batch_for_calls(features.unit_shape, _MODEL_BATCH)
        self.features = features
        self._predict = function
        self._asked = "the function" if model is None else "predict"
        self._labels = None if labels is None or _are_numbers(labels) else labels
        self._as_frame = _takes_frame(model, features)
        self._columns = fitted_columns(model)
        super().__init__(
            self._yielded if is_generator_function(function) else self._predicted,
            features.unit_shape,
            count,
            max_batch=max_batch,
            name=name or getattr(function, "__qualname__", type(function).__name__),
            fingerprint=fingerprint,
            class_names=class_names,
        )
        self._number_of = {label: number for number, label in enumerate(self._labels or ())}

    def fingerprint(self) -> str:
        """Returns the SHA-256 digest of the model, its features and class labels."""
        if self._fingerprint is None:
            defined = (
                function_fingerprint(self._predict),
                self.features.fingerprint(),
                self._labels,
                self.class_names,
                self._as_frame,
            )
            self._fingerprint = hashlib.sha256(repr(defined).encode()).hexdigest()
        return self._fingerprint

    def _predicted(self, unit: np.ndarray) -> Any:
        answer = self._predict(self._rows(unit))
        if answer is None:
            return None
        expected = f"teacher {self.name}: expected one class per row from {self._asked}"
        answer = as_answer_array(answer, expected)
        if answer.ndim == 2 and answer.shape[1] > 1:
            table = list(answer.shape)
            raise TeacherError(
                f"{expected}, got a table {table}; if these are scores, return the class with the "
                "highest one in each row, such as labels[scores.argmax(1)] with an array of labels"
            )
        if self._labels is None:
            return self._number_or_flag(_flat(answer))
        return [
            self._number(label, row, expected)
            for row, label in enumerate(np.asarray(_flat(answer)).tolist())
        ]

    def _yielded(self, unit: np.ndarray) -> Generator[Any, None, None]:
        answers = self._predict(self._rows(unit))
        expected = f"teacher {self.name}: expected one class per row from the generator"
        try:
            for row, label in enumerate(answers):
                if self._labels is None:
                    yield self._number_or_flag(label)
                else:
                    yield self._number(label, row, expected)
        finally:
            answers.close()

    def _rows(self, unit: np.ndarray) -> Any:
        """Returns the rows of unit vectors, with the columns in the order of the model."""
        rows = self.features.decode(unit, as_frame=self._as_frame)
        return rows if self._columns is None else rows[self._columns]

    def _number_or_flag(self, answer: Any) -> Any:
        """Returns booleans as the numbers of two classes, and every other answer as it is."""
        if self.classes == 2 and isinstance(answer, bool | np.bool_):
            return int(answer)
        if self.classes == 2 and isinstance(answer, np.ndarray) and answer.dtype.kind == "b":
            return answer.astype(np.int64)
        return answer

    def _number(self, label: Any, row: int, expected: str) -> int:
        """Returns the class number of a class label."""
        value = label.item() if isinstance(label, np.generic) else label
        try:
            return self._number_of[value]
        except (KeyError, TypeError):
            known = shortened(map(repr, self._number_of))
            raise TeacherError(
                f"{expected}, one of {known}, got {value!r} for row {row}; {self._advice}"
            ) from None


def states_classes(predict: Any) -> bool:
    """Returns whether a model, or the model of a method, states its class labels."""
    model = predict if hasattr(predict, "predict") else getattr(predict, "__self__", None)
    return getattr(model, "classes_", None) is not None


def fitted_columns(model: Any) -> list[str] | None:
    """Returns the names of the columns that a model was fitted on, if it states them."""
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _flat(answer: Any) -> Any:
    """Returns labels [N, 1], as some libraries answer, as [N]; all else as it is."""
    shape = np.shape(answer)
    return np.asarray(answer)[:, 0] if len(shape) == 2 and shape[1] == 1 else answer


def _classes_of(model: Any) -> Any:
    """Returns the class labels that a fitted model knows."""
    classes = getattr(model, "classes_", None)
    if classes is None and hasattr(model, "fit"):
        raise ArgumentError(
            "predict",
            f"expected a fitted classifier, got {type(model).__name__} without the "
            "attribute classes_; call its method fit first, or, if it is fitted, pass classes=",
        )
    if classes is None:
        raise ArgumentError(
            "classes",
            "expected the class labels, or their number if they are 0 to C - 1; only a "
            "fitted model with the attribute classes_ states them",
        )
    return classes


def _label_tuple(classes: Any) -> tuple[Any, ...]:
    """Returns class labels as a tuple of plain values."""
    values = classes.tolist() if isinstance(classes, np.ndarray) else list(classes)
    labels = tuple(value.item() if isinstance(value, np.generic) else value for value in values)
    if any(isinstance(label, list | tuple | np.ndarray) for label in labels):
        raise ArgumentError(
            "classes",
            "expected one list of class labels, got several; a model with several outputs "
            "needs a function that returns one of them",
        )
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ArgumentError(
            "classes", f"expected two or more different labels, got {list(labels)!r:.200}"
        )
    return labels


def _names_of(labels: tuple[Any, ...]) -> tuple[str, ...] | None:
    """Returns the names of class labels, or None if they equal the class numbers."""
    whole = tuple(
        int(label) if isinstance(label, float) and label.is_integer() else label for label in labels
    )
    return None if _are_numbers(whole) else tuple(str(label) for label in whole)


def _are_numbers(labels: tuple[Any, ...]) -> bool:
    """Returns whether class labels are the class numbers 0 to C - 1."""
    return labels == tuple(range(len(labels))) and all(type(label) is int for label in labels)


def _takes_frame(model: Any, features: Features) -> bool:
    """Returns whether a model takes DataFrames: scikit-learn says how it was fitted.

    Raises:
        ValueError: If it was fitted on other columns.
    """
    fitted = fitted_columns(model)
    if fitted is None:
        return features.as_frame and not hasattr(model, "n_features_in_")
    missing = [name for name in fitted if name not in features.names]
    unknown = [name for name in features.names if name not in fitted]
    if missing:
        raise ArgumentError(
            "features",
            f"expected the columns that {type(model).__name__} was fitted on, "
            f"{', '.join(missing)} are missing",
        )
    if unknown:
        raise InputError(
            f"{type(model).__name__}: expected features of the columns that it was fitted on, got "
            f"also {', '.join(unknown)}; name the column of the class labels as label_column=, "
            "and pass features= without the others"
        )
    return True
