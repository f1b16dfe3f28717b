"""Callbacks that report on training while it runs, or stop it early."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from db3kd.arguments.plain import check_type
from db3kd.errors import ArgumentTypeError
from db3kd.progress import ProgressListener, report_units


@dataclass(kw_only=True)
class TrainingState:
    """The state of training that callbacks receive.

    Attributes:
        step: Number of steps done.
        steps: Number of steps in total, unless training is stopped early.
        network: The network as it would be returned now; with `TrainSettings.ema`, it has the
            averaged weights. Callbacks may evaluate it in any mode, and load other weights into it
            in `on_end`.
        learning_rate: The learning rate of the last step.
        loss: The mean loss since the last report; NaN before the first.
        seconds: Training time so far, including the time before a resumption.
        measures: What callbacks measured at the last report, by name. `HeldOutAgreement` adds to
            this, and `EarlyStopping` and `TrackerCallback` read it.
        is_main: Whether this is the first process, which prints and logs for all.
        stopped: Whether a stop was requested.
    """

    step: int
    steps: int
    network: nn.Module
    learning_rate: float
    loss: float = float("nan")
    seconds: float = 0.0
    measures: dict[str, float] = field(default_factory=dict)
    is_main: bool = True
    stopped: bool = False

    def request_stop(self) -> None:
        """Ends training before the next step.

        If there are several processes, only the request of the first one counts.
        """
        self.stopped = True


class TrainingCallback:
    """Base class of callbacks; methods that are not overridden do nothing.

    Callbacks run in the order in which they are given, in each process. They do not change the
    result of training unless they request a stop or load weights in `on_end`: the random state and
    the mode of the network are restored after them.

    When training is resumed from a checkpoint, the reports after the checkpoint are repeated.

    Example:
        >>> class StopAfterAnHour(db3kd.TrainingCallback):
        ...     def on_report(self, state):
        ...         if state.seconds > 3600:
        ...             state.request_stop()
        >>> db3kd.train_student(make, images, labels, callbacks=[StopAfterAnHour()])
    """

    def on_start(self, state: TrainingState) -> None:
        """Called before the first step, and before the first step after a resumption."""

    def on_report(self, state: TrainingState) -> None:
        """Called about a hundred times, with a new `loss` and empty `measures`."""

    def on_end(self, state: TrainingState) -> None:
        """Called after the last step."""

    def on_exception(self, state: TrainingState, error: BaseException) -> None:
        """Called if an exception ends the training between `on_start` and `on_end`.

        The exception is raised afterwards. Errors of this method become a note of it.
        """

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps: tensors and plain values, by name.

        A callback whose decisions depend on earlier reports returns those here, so that it decides
        the same after a resumption. Such a callback always returns at least one entry.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned; called before `on_start`."""


def check_callbacks(callbacks: Sequence[TrainingCallback]) -> None:
    """Raises TypeError unless the argument is a list of callbacks."""
    if isinstance(callbacks, TrainingCallback):
        raise ArgumentTypeError(
            "callbacks", "expected a list of callbacks, got a single one; pass [it]"
        )
    check_type(callbacks, (list, tuple), "callbacks", "a list of callbacks")
    for each in callbacks:
        check_type(each, TrainingCallback, "callbacks", "instances of TrainingCallback")


class ProgressCallback(TrainingCallback):
    """Tells a listener at each report the number of steps done, as `samples`."""

    def __init__(self, listener: ProgressListener) -> None:
        self._listener = listener

    def on_report(self, state: TrainingState) -> None:
        """Passes the report on."""
        report_units(self._listener, state.step, state.steps)
