"""`TrackerCallback`: logs training to TensorBoard, Weights & Biases and the like."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db3kd.arguments.plain import check_choice
from db3kd.errors import ArgumentError, MissingPackageError
from db3kd.training.callbacks import TrainingCallback, TrainingState

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker


class TrackerCallback(TrainingCallback):
    """Logs the loss, the learning rate and the measures of each report through accelerate.

    Place callbacks that measure something before this one.

    Example:
        >>> tracker = db3kd.TrackerCallback("tensorboard", "student", logging_dir="runs/logs")
        >>> db3kd.train_student(make, images, labels, callbacks=[held_out, tracker])

    Args:
        tracker: A name that accelerate knows, such as "tensorboard" or "wandb", whose package is
            installed; or a started tracker of your own, as returned by
            `accelerate.Accelerator.get_tracker`, which is left open.
        run_name: The folder within `logging_dir`, or the project.
        logging_dir: The folder for trackers that write files. Weights & Biases uses its own folder
            by default.
        configuration: Numbers, texts and flags that are stored with the run, such as
            `dataclasses.asdict(settings)`. Values that are None are left out.
        **options: Passed to the tracker, for example `id=` and `resume=` of "wandb".

    Raises:
        ValueError: If `tracker` is unknown, or if it needs a `logging_dir`.
        ModuleNotFoundError: If its package is not installed.
    """

    def __init__(
        self,
        tracker: "str | GeneralTracker",
        run_name: str = "db3kd",
        logging_dir: str | Path | None = None,
        configuration: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._given = tracker
        self._run_name = run_name
        # Other callbacks may change the working directory.
        self._logging_dir = None if logging_dir is None else Path(logging_dir).absolute()
        self._configuration = {
            name: value for name, value in (configuration or {}).items() if value is not None
        }
        self._options = options
        self._tracker: GeneralTracker | None = None
        if isinstance(tracker, str):
            _tracker_class(tracker, logging_dir)

    def on_start(self, state: TrainingState) -> None:
        """Opens the tracker."""
        if not state.is_main:
            return
        if not isinstance(self._given, str):
            self._tracker = self._given
        else:
            self._tracker = self._open(self._given, state)
        if self._configuration and state.step == 0:
            self._tracker.store_init_configuration(self._configuration)

    def on_report(self, state: TrainingState) -> None:
        """Logs the report."""
        if self._tracker is not None:
            values = {"loss": state.loss, "learning_rate": state.learning_rate, **state.measures}
            self._tracker.log(values, step=state.step)

    def on_end(self, state: TrainingState) -> None:
        """Closes the tracker that this callback opened."""
        if self._tracker is not None and isinstance(self._given, str):
            self._tracker.finish()
        self._tracker = None

    def on_exception(self, state: TrainingState, error: BaseException) -> None:
        """Closes the tracker too, so that what was logged is written."""
        self.on_end(state)

    def _open(self, name: str, state: TrainingState) -> "GeneralTracker":
        from accelerate import PartialState

        PartialState()  # Trackers need this state; the caller's is left unchanged.
        made = _tracker_class(name, self._logging_dir)
        options = dict(self._options)
        if made.requires_logging_directory:
            options["logging_dir"] = self._logging_dir
        elif name == "wandb" and self._logging_dir is not None:
            Path(self._logging_dir).mkdir(parents=True, exist_ok=True)  # wandb does not
            options.setdefault("dir", str(self._logging_dir))
        if name == "tensorboard" and state.step:
            # What was logged after the checkpoint is logged again.
            options.setdefault("purge_step", state.step + 1)
        tracker = made(self._run_name, **options)
        tracker.start()
        return tracker


def _tracker_class(name: str, logging_dir: str | Path | None) -> "type[GeneralTracker]":
    try:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            'tracker: needs the package accelerate: pip install "db3kd[train]"', name=error.name
        ) from error
    check_choice(name, "tracker", sorted(LOGGER_TYPE_TO_CLASS))
    if name not in [str(available) for available in get_available_trackers()]:
        raise MissingPackageError(
            f"tracker: the package of {name!r} is not installed: pip install {name}", name=name
        )
    made = LOGGER_TYPE_TO_CLASS[name]
    if made.requires_logging_directory and logging_dir is None:
        raise ArgumentError(
            "logging_dir", f"{name!r} writes files, so a folder is needed, got None"
        )
    return made
