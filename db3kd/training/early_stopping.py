"""Held-out agreement with the teacher during training, and early stopping by it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from db3kd.arguments.arrays import IntegersLike, as_classes
from db3kd.arguments.plain import check_count, check_type
from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.data.image_reader import image_reader
from db3kd.errors import ArgumentError
from db3kd.models.state import load_whole_state, whole_state
from db3kd.training.callbacks import TrainingCallback, TrainingState
from db3kd.training.evaluation import predict_read, share_equal

AGREEMENT = "held-out agreement"
"""The measure of `HeldOutAgreement`."""


class HeldOutAgreement(TrainingCallback):
    """Measures how often the network in training predicts the class that the teacher decided.

    The images must not be among the training images.

    Example:
        >>> held_out = db3kd.HeldOutAgreement(images[900:], labels.decision[900:])
        >>> rows = torch.arange(900)
        >>> db3kd.train_student(make, images, labels, rows=rows, callbacks=[held_out])
        >>> held_out.history[-1]
        (1500, 0.97)

    Args:
        images: N held-out images in [0, 1], as for `db3kd.label`. They are read once if they fit in
            memory.
        decisions: [N] int64, the teacher's classes; -1 (unanswered) is left out.
        name: The name of the measure.

    Attributes:
        name: As above.
        history: The step and the share of answered images, in [0, 1], at each report.

    Raises:
        ValueError: If there is not one decision for each image, or if none is answered.
    """

    def __init__(self, images: ImagesLike, decisions: IntegersLike, name: str = AGREEMENT) -> None:
        self._images = as_image_source(images)
        decisions = as_classes(decisions, len(self._images), "decisions", least=-1).cpu()
        self._rows = (decisions >= 0).nonzero().flatten()
        if len(self._rows) == 0:
            raise ArgumentError("decisions", "expected at least one answer, got none")
        self._decisions = decisions[self._rows]
        self._read: Callable[[Tensor], Tensor] | None = None
        self.name = name
        self.history: list[tuple[int, float]] = []

    def on_start(self, state: TrainingState) -> None:
        """Moves the images to the device of the training."""
        parameters = state.network.parameters()
        device = next((parameter.device for parameter in parameters), torch.device("cpu"))
        self._read = image_reader(self._images, device)
        self.history = [entry for entry in self.history if entry[0] <= state.step]

    def on_report(self, state: TrainingState) -> None:
        """Measures the agreement."""
        assert self._read is not None  # on_start is called first
        predicted = predict_read(state.network, self._read, self._rows)
        state.measures[self.name] = share_equal(predicted, self._decisions)
        self.history.append((state.step, state.measures[self.name]))

    def state_dict(self) -> dict[str, Any]:
        """Returns the history."""
        return {"history": list(self.history)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the history."""
        self.history = [(step, share) for step, share in state["history"]]


class EarlyStopping(TrainingCallback):
    """Stops training when a measure no longer rises, and restores the best weights.

    At the end, the weights with the highest measure are restored, whether training was stopped or
    not. With a falling learning rate the best weights are often the last, so use a large `patience`
    then, or stop early only with a constant rate.

    Example:
        >>> held_out = db3kd.HeldOutAgreement(images[900:], labels.decision[900:])
        >>> stopping = db3kd.EarlyStopping(held_out.name, patience=10)
        >>> db3kd.train_student(make, images, labels, callbacks=[held_out, stopping], ...)
        >>> stopping.best_step, stopping.best
        (4200, 0.97)

    Args:
        measure: The name of a measure that rises as the network gets better, from a callback before
            this one.
        patience: Training stops after this many reports in a row without a new highest measure.
            There are about a hundred reports in all.

    Attributes:
        best: The highest measure so far; None before the first report.
        best_step: The step of that report.

    Raises:
        ValueError: If `patience` is below 1; during the training, if no callback before this one
            measures `measure`.
    """

    def __init__(self, measure: str = AGREEMENT, patience: int = 10) -> None:
        check_type(measure, str, "measure", "the name of a measure")
        self._measure, self._patience = measure, check_count(patience, "patience")
        self.best: float | None = None
        self.best_step = 0
        self._since = 0
        self._weights: dict[str, Tensor] = {}

    def on_start(self, state: TrainingState) -> None:
        """Forgets an earlier training, unless this one is resumed."""
        if state.step == 0:
            self.best, self.best_step, self._since, self._weights = None, 0, 0, {}

    def on_report(self, state: TrainingState) -> None:
        """Compares the measure with the highest so far."""
        if self._measure not in state.measures:
            raise ArgumentError(
                "measure",
                f"expected one of {sorted(state.measures)}, which the callbacks before "
                f"EarlyStopping report, got {self._measure!r}; put HeldOutAgreement before it",
            )
        value = state.measures[self._measure]
        # NaN, which no comparison finds lower, is lower than any number.
        if self.best is None or value > self.best or math.isnan(self.best) > math.isnan(value):
            self.best, self.best_step, self._since = value, state.step, 0
            weights = whole_state(state.network)
            self._weights = {name: tensor.clone() for name, tensor in weights.items()}
            return
        self._since += 1
        if self._since >= self._patience:
            state.request_stop()

    def on_end(self, state: TrainingState) -> None:
        """Restores the best weights."""
        if self.best is not None:
            load_whole_state(state.network, self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Returns the best weights, and the number of reports since."""
        return {
            "best": self.best,
            "best_step": self.best_step,
            "since": self._since,
            "weights": self._weights,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores them."""
        self.best, self.best_step = state["best"], state["best_step"]
        self._since, self._weights = state["since"], dict(state["weights"])
