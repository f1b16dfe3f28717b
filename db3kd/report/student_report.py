"""What the report of a student shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from db3kd.arguments.arrays import as_classes
from db3kd.errors import ArgumentError
from db3kd.report.intervals import check_matches
from db3kd.tables import Features
from db3kd.wording import InputNoun, held_out_noun


class ReportStage(NamedTuple):
    """A stage of a run: what it queried, and what that cost.

    The page shows its texts as they are, even if the images are rows of a table.

    Attributes:
        name: The stage, such as "augmented decisions".
        asked: What was asked, such as "4,000 mixed images".
        reason: Why it was queried.
        queries: Number of queries that the stage spent.
        seconds: How long it took, training included.
    """

    name: str
    asked: str
    reason: str
    queries: int
    seconds: float


class PlanChoice(NamedTuple):
    """A choice of the plan, and what its alternatives were worth.

    Attributes:
        name: What was chosen, such as "learning rate".
        chosen: The alternative that was taken; one of `agreements`.
        agreements: Agreement of each alternative on the validation images, in [0, 1]; None if it
            was not measured.
    """

    name: str
    chosen: str
    agreements: Mapping[str, float | None]


class Disagreements(NamedTuple):
    """Images that teacher and student put in different classes.

    Attributes:
        images: [n, channels, height, width] in [0, 1], or rows of features [n, D] in their own
            units.
        teacher_classes: [n] int64.
        student_classes: [n] int64.
        names: What each image is called, such as its file; "image 1", "image 2", … without names.
    """

    images: Tensor
    teacher_classes: Tensor
    student_classes: Tensor
    names: Sequence[str] = ()


class SoftExamples(NamedTuple):
    """Images with the soft labels that the student was trained on.

    Attributes:
        images: As for `Disagreements`.
        probabilities: [n, C] float, rows sum to 1.
        source: Where they come from.
        names: As for `Disagreements`.
    """

    images: Tensor
    probabilities: Tensor
    source: str = "What the student was trained on"
    names: Sequence[str] = ()


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StudentReport:
    """Everything that the report of a student shows, as plain values and CPU tensors.

    The page has no section for what is left out.

    Example:
        >>> report = StudentReport(
        ...     title="Digits", teacher="lenet5", student="lenet5-fifth", data="mnist5k",
        ...     strategy="auto", agreement=(652, 700),
        ... )
        >>> write_student_report("runs/mine/report", report)
        PosixPath('runs/mine/report/report.html')

    Attributes:
        title: The heading of the page.
        teacher: The teacher, as the user named it.
        student: The student's architecture.
        data: The transfer set.
        strategy: The strategy, such as "auto".
        taught_by: Who taught the student, such as "decisions and 2 proxies".
        dates: When the run was started and finished.
        pseudo_samples: Whether the held-out images are pseudo samples.
        agreement: (matches, total): held-out images that the student puts in the teacher's class.
        accuracy: (matches, total): test images that the student puts in their true class.
        test_agreement: (matches, total): test images that it puts in the teacher's class.
        price_per_1000: Price of 1,000 queries, in the user's currency.
        stages: The stages in the order of the run. Their queries are the total.
        curve: (queries, agreement) of the proxies after each round of acquisition and, last, of the
            student; queries in ascending order, agreement in [0, 1] on the held-out images.
        paid_twice: At most how many of the queries were paid twice, because an answer was lost.
        validation: Number of images by which the choices were made: the held-out images, and
            augmented versions of them. None if nothing is known about it.
        choices: The choices of the plan.
        class_names: C names; the numbers of the classes by default.
        class_counts: [C] integers, the teacher's decisions for the images asked.
        confusion: [C, C] integers, held-out images by teacher's class (rows) and student's class
            (columns). Its sum and trace are those of `agreement`.
        disagreements: Images they disagree on; the first 24 are shown.
        soft_examples: Images with soft labels; the first 8 are shown.
        features: The features of a table, if an image is an encoded row: its values are shown as
            the table has them.
        reproduce: What a rerun needs: command line, Python call, versions, seeds, fingerprints.
        usage: Lines of code that load, measure or export the student, by what they do.
        warnings: Paragraphs below the headline that say what makes the student or its agreement
            less useful than it seems.
        notes: Other paragraphs below the headline.
    """

    title: str
    teacher: str
    student: str
    data: str
    strategy: str
    agreement: tuple[int, int]
    taught_by: str | None = None
    dates: str | None = None
    pseudo_samples: bool = False
    accuracy: tuple[int, int] | None = None
    test_agreement: tuple[int, int] | None = None
    price_per_1000: float | None = None
    stages: Sequence[ReportStage] = ()
    curve: Sequence[tuple[int, float]] = ()
    paid_twice: int = 0
    validation: int | None = None
    choices: Sequence[PlanChoice] = ()
    class_names: Sequence[str] | None = None
    class_counts: Tensor | None = None
    confusion: Tensor | None = None
    disagreements: Disagreements | None = None
    soft_examples: SoftExamples | None = None
    features: Features | None = None
    reproduce: Mapping[str, str] = field(default_factory=dict)
    usage: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_matches(self.agreement, "agreement")
        for name in ("accuracy", "test_agreement"):
            if (value := getattr(self, name)) is not None:
                check_matches(value, name)
        if self.price_per_1000 is not None and not 0 <= self.price_per_1000 < torch.inf:
            raise ArgumentError(
                "price_per_1000", f"expected a number of at least 0, got {self.price_per_1000!r}"
            )
        for stage in self.stages:
            if stage.queries < 0 or not 0 <= stage.seconds < torch.inf:
                raise ArgumentError(
                    "stages",
                    f"expected queries and seconds of at least 0, got {stage.queries!r} "
                    f"and {stage.seconds!r} in stage {stage.name!r}",
                )
        self._check_curve()
        self._check_choices()
        self._check_counts()
        self._check_images()

    def __repr__(self) -> str:
        matches, total = self.agreement
        return f"StudentReport({self.title!r}, agreement {matches:,} of {total:,})"

    @property
    def classes(self) -> int | None:
        """The number of classes; None if nothing in the report tells it."""
        if self.class_names is not None:
            return len(self.class_names)
        if self.confusion is not None:
            return len(self.confusion)
        if self.class_counts is not None:
            return len(self.class_counts)
        return None if self.soft_examples is None else self.soft_examples.probabilities.shape[-1]

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What the page begins with: names and values."""
        names = ("teacher", "student", "data", "strategy", "taught_by", "dates")
        found = [(name.replace("_", " "), getattr(self, name)) for name in names]
        return [(name, value) for name, value in found if value is not None]

    @property
    def queries(self) -> int | None:
        """The total number of queries; None without stages."""
        return sum(stage.queries for stage in self.stages) if self.stages else None

    @property
    def is_tabular(self) -> bool:
        """Whether an image is a row of features."""
        shown = self.disagreements or self.soft_examples
        return self.features is not None or (shown is not None and shown.images.ndim == 2)

    @property
    def noun(self) -> InputNoun:
        """What the page calls an image."""
        return "row" if self.is_tabular else "image"

    @property
    def held_out_noun(self) -> str:
        """What the page calls a held-out image."""
        return held_out_noun(self.noun, pseudo_samples=self.pseudo_samples)

    def price(self, queries: int) -> float | None:
        """Returns the price of queries; None without `price_per_1000`."""
        return None if self.price_per_1000 is None else queries * self.price_per_1000 / 1000

    def _check_curve(self) -> None:
        queries = [point[0] for point in self.curve]
        if queries != sorted(set(queries)) or any(count < 0 for count in queries):
            raise ArgumentError("curve", f"expected ascending numbers of queries, got {queries}")
        for _, share in self.curve:
            if not 0 <= share <= 1:
                raise ArgumentError("curve", f"expected agreement in [0, 1], got {share!r}")

    def _check_choices(self) -> None:
        for choice in self.choices:
            if choice.chosen not in choice.agreements:
                raise ArgumentError(
                    "choices",
                    f"expected the chosen {choice.name} among the alternatives "
                    f"{list(choice.agreements)}, got {choice.chosen!r}",
                )
            for share in choice.agreements.values():
                if share is not None and not 0 <= share <= 1:
                    raise ArgumentError("choices", f"expected agreement in [0, 1], got {share!r}")

    def _check_counts(self) -> None:
        classes = self.classes
        for name, counts, shape in (
            ("class_counts", self.class_counts, (classes,)),
            ("confusion", self.confusion, (classes, classes)),
        ):
            if counts is None:
                continue
            if tuple(counts.shape) != shape or counts.is_floating_point() or (counts < 0).any():
                raise ArgumentError(
                    name,
                    f"expected {list(shape)} counts as int64, got {list(counts.shape)} "
                    f"{str(counts.dtype).removeprefix('torch.')}",
                )
        if self.confusion is not None:
            found = int(self.confusion.trace()), int(self.confusion.sum())
            if found != self.agreement:
                raise ArgumentError(
                    "confusion",
                    f"expected {self.agreement[0]} matches of {self.agreement[1]} as in "
                    f"agreement, got {found[0]} of {found[1]}; count the same held-out images",
                )

    def _check_images(self) -> None:
        classes = self.classes
        if self.disagreements is not None:
            images = _checked_images(self.disagreements.images, "disagreements")
            limit = classes or torch.iinfo(torch.int64).max
            as_classes(self.disagreements.teacher_classes, len(images), "teacher_classes", limit)
            as_classes(self.disagreements.student_classes, len(images), "student_classes", limit)
            _check_names(self.disagreements.names, images, "disagreements")
            self._check_features(images)
        if self.soft_examples is not None:
            images = _checked_images(self.soft_examples.images, "soft_examples")
            shape = tuple(self.soft_examples.probabilities.shape)
            if shape != (len(images), classes):
                raise ArgumentError(
                    "soft_examples",
                    f"expected probabilities [{len(images)}, {classes}], got {list(shape)}",
                )
            _check_names(self.soft_examples.names, images, "soft_examples")
            self._check_features(images)

    def _check_features(self, images: Tensor) -> None:
        if self.features is not None and tuple(images.shape[1:]) != self.features.unit_shape:
            raise ArgumentError(
                "features",
                f"expected those of encoded rows {list(images.shape[1:])}, got ones of "
                f"rows {list(self.features.unit_shape)}",
            )


def _check_names(names: Sequence[str], images: Tensor, argument: str) -> None:
    if len(names) not in (0, len(images)):
        raise ArgumentError(argument, f"expected {len(images)} names or none, got {len(names)}")


def _checked_images(images: Tensor, name: str) -> Tensor:
    is_image = images.ndim == 4
    if not is_image and images.ndim != 2:
        raise ArgumentError(
            name,
            f"expected images [n, channels, height, width] or rows [n, D], got "
            f"{list(images.shape)}",
        )
    if is_image and not bool(((images >= 0) & (images <= 1)).all()):
        raise ArgumentError(name, "expected images in [0, 1]; scale or clamp them")
    return images
