"""Teachers whose boundaries are known in closed form, and teachers that fail on purpose.

A decision does not depend on the batch of an image: scores are float64 sums over one row, in a
fixed order.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError


class AnalyticTeacher:
    """The common part of these teachers. Images of any shape become rows of float64."""

    def __init__(
        self,
        image_shape: Sequence[int],
        classes: int,
        bounds: tuple[float, float] = (0.0, 1.0),
        max_batch: int = 512,
        parameters: Sequence[Tensor] = (),
    ) -> None:
        self.image_shape = tuple(image_shape)
        self.classes = classes
        self.bounds = bounds
        self.max_batch = max_batch
        self.device = torch.device("cpu")
        self._parameters = parameters

    def decide(self, images: Tensor) -> Tensor:
        return self._decide_rows(images.flatten(1).double())

    def fingerprint(self) -> str:
        digest = hashlib.sha256(type(self).__name__.encode())
        for parameter in self._parameters:
            digest.update(parameter.numpy().tobytes())
        return digest.hexdigest()

    def _decide_rows(self, rows: Tensor) -> Tensor:
        raise NotImplementedError


class LinearTeacher(AnalyticTeacher):
    """argmax of weights [C, D] x + bias [C]; the first class wins a tie."""

    def __init__(
        self,
        weights: Tensor,
        bias: Tensor,
        image_shape: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        self.weights, self.bias = weights.double(), bias.double()
        shape = image_shape or weights.shape[1:]
        super().__init__(shape, len(weights), parameters=(self.weights, self.bias), **options)

    def scores(self, images: Tensor) -> Tensor:
        """images [N, ...] -> float64 [N, C]."""
        return (images.flatten(1).double().unsqueeze(1) * self.weights).sum(-1) + self.bias

    def distance(self, images: Tensor, target: int) -> Tensor:
        """Distance to the hyperplane where `target` ties with the predicted class, float64 [N].

        Class `target` is a polytope behind that plane, so it is at least this far away; with two
        classes it is exactly this far. The bounds are not considered.
        """
        scores = self.scores(images)
        own = scores.argmax(1)
        gap = scores.gather(1, own[:, None])[:, 0] - scores[:, target]
        return gap / (self.weights[own] - self.weights[target]).norm(dim=1)

    def _decide_rows(self, rows: Tensor) -> Tensor:
        return self.scores(rows).argmax(1)


class BallTeacher(AnalyticTeacher):
    """Class 1 inside the ball, 0 on its surface and outside."""

    def __init__(
        self,
        center: Tensor,
        radius: float,
        image_shape: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        self.center, self.radius = center.double().flatten(), float(radius)
        parameters = (self.center, torch.tensor(self.radius))
        super().__init__(image_shape or center.shape, 2, parameters=parameters, **options)

    def distance(self, images: Tensor) -> Tensor:
        """Distance from each image to the sphere, float64 [N]; the bounds are not considered."""
        return (self._from_center(images.flatten(1).double()) - self.radius).abs()

    def _from_center(self, rows: Tensor) -> Tensor:
        return (rows - self.center).square().sum(-1).sqrt()

    def _decide_rows(self, rows: Tensor) -> Tensor:
        return (self._from_center(rows) < self.radius).long()


class NearestCentroidTeacher(LinearTeacher):
    """The class of the nearest of centroids [C, D]: linear, with weights 2c and bias -|c|^2."""

    def __init__(
        self, centroids: Tensor, image_shape: Sequence[int] | None = None, **options: Any
    ) -> None:
        centroids = centroids.double().flatten(1)
        shape = image_shape or centroids.shape[1:]
        super().__init__(2 * centroids, -centroids.square().sum(1), shape, **options)


class ConstantTeacher(AnalyticTeacher):
    """One class for all images."""

    def __init__(
        self, answer: int, image_shape: Sequence[int], classes: int, **options: Any
    ) -> None:
        super().__init__(image_shape, classes, parameters=(torch.tensor(answer),), **options)
        self.answer = answer

    def _decide_rows(self, rows: Tensor) -> Tensor:
        return torch.full((len(rows),), self.answer)


class RareTeacher(AnalyticTeacher):
    """Puts images whose first value is above 0.9 in class 1, and all others in class 0."""

    def __init__(self, image_shape: Sequence[int], **options: Any) -> None:
        super().__init__(image_shape, 2, **options)

    def _decide_rows(self, rows: Tensor) -> Tensor:
        return (rows[:, 0] > 0.9).long()


class WrappedTeacher:
    """Forwards everything to another teacher; subclasses change `decide`."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.image_shape = inner.image_shape
        self.classes = inner.classes
        self.bounds = inner.bounds
        self.max_batch = inner.max_batch
        self.device = inner.device

    def decide(self, images: Tensor) -> Tensor:
        return self.inner.decide(images)

    def fingerprint(self) -> str:
        return self.inner.fingerprint()


class CountingTeacher(WrappedTeacher):
    """Counts the queries of another teacher.

    Attributes:
        total: The number of queries.
        calls: The sizes of the batches, in order.
        per_image: The queries of each image, by `image_key`.
        images: All batches, if `keep` is set.
    """

    def __init__(self, inner: Any, keep: bool = False) -> None:
        super().__init__(inner)
        self.total = 0
        self.calls: list[int] = []
        self.per_image: Counter[str] = Counter()
        self.images: list[Tensor] = []
        self._keep = keep

    def decide(self, images: Tensor) -> Tensor:
        self.total += len(images)
        self.calls.append(len(images))
        self.per_image.update(image_key(image) for image in images)
        if self._keep:
            self.images.append(images.clone())
        return super().decide(images)


class RaisingTeacher(WrappedTeacher):
    """Answers `queries` images, and raises `error` for any call that would exceed them."""

    def __init__(self, inner: Any, queries: int, error: BaseException | None = None) -> None:
        super().__init__(inner)
        self.left = queries
        self.error = error or ConnectionError("the line is dead")

    def decide(self, images: Tensor) -> Tensor:
        if len(images) > self.left:
            raise self.error
        self.left -= len(images)
        return super().decide(images)


class LateTeacher(WrappedTeacher):
    """Returns pending decisions, as a teacher on a GPU does.

    Args:
        inner: Makes the decisions.
        invalid_from: The number of the first image with an invalid decision, over all calls.

    Attributes:
        launched: The images of all calls.
        waits: How often decisions were awaited.
        open: The calls whose decisions were not awaited yet.
        max_open: The most such calls at once.
    """

    def __init__(self, inner: Any, invalid_from: int | None = None) -> None:
        super().__init__(inner)
        self.invalid_from = invalid_from
        self.launched = 0
        self.waits = 0
        self.open = 0
        self.max_open = 0

    def decide_async(self, images: Tensor) -> "LateDecisions":
        decisions = torch.cat([self.inner.decide(part) for part in images.split(self.max_batch)])
        if self.invalid_from is not None:
            numbers = torch.arange(self.launched, self.launched + len(images))
            decisions = decisions.masked_fill(numbers >= self.invalid_from, -1)
        self.launched += len(images)
        self.open += 1
        self.max_open = max(self.max_open, self.open)
        return LateDecisions(self, decisions)


class LateDecisions:
    """The pending decisions of a LateTeacher."""

    def __init__(self, teacher: LateTeacher, decisions: Tensor) -> None:
        self.decisions = decisions
        self._teacher = teacher

    def done(self) -> bool:
        return False

    def result(self) -> Tensor:
        self._teacher.waits += 1
        self._teacher.open -= 1
        missing = (self.decisions < 0).nonzero()
        if len(missing):
            raise TeacherError("no answer", self.decisions[: int(missing[0])])
        return self.decisions


class WrongTeacher(WrappedTeacher):
    """Answers `change(decisions)` instead of the inner teacher's decisions."""

    def __init__(self, inner: Any, change: Callable[[Tensor], Any]) -> None:
        super().__init__(inner)
        self._change = change

    def decide(self, images: Tensor) -> Any:
        return self._change(super().decide(images))


def brightness(images: np.ndarray) -> np.ndarray:
    """A teacher as a function: class 1 if the mean of an image is above 0.5, else 0."""
    return (images.reshape(len(images), -1).mean(1) > 0.5).astype(np.int64)


def one_short(decisions: Tensor) -> Tensor:
    """Too few decisions."""
    return decisions[:-1]


def as_float(decisions: Tensor) -> Tensor:
    """The right classes with the wrong dtype."""
    return decisions.float()


def beyond_range(decisions: Tensor) -> Tensor:
    """Classes far outside the range."""
    return decisions + 1000


def image_key(image: Tensor) -> str:
    """Returns a digest of the bits of one image."""
    return hashlib.sha256(image.contiguous().cpu().numpy().tobytes()).hexdigest()
