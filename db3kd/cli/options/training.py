"""Options of training: one network, or the students of a label run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from db3kd.cli.errors import naming_options
from db3kd.cli.options.sets import OptionSet
from db3kd.cli.options.shared import DEVICE_HELP, Seed
from db3kd.errors import ArgumentError

if TYPE_CHECKING:
    from db3kd.training.callbacks import TrainingCallback
    from db3kd.training.settings import TrainSettings

TRAINING = "Training"
DEFAULT_STEPS = 1500
PAPER_EPOCHS = 200

Precision = Annotated[
    Literal["no", "bf16", "fp16"],
    typer.Option(
        "--precision",
        help="Precision: no (float32), bf16, or fp16 (CUDA only).",
        rich_help_panel=TRAINING,
    ),
]
TrainingDevice = Annotated[
    str, typer.Option("--device", help=DEVICE_HELP, rich_help_panel=TRAINING)
]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(OptionSet):
    """How a single network is trained."""

    panel = TRAINING

    batch_size: Annotated[
        int, typer.Option(min=1, help="Maximum number of images or rows per step.")
    ] = 128
    learning_rate: Annotated[float, typer.Option(help="Initial learning rate.")] = 1e-3
    precision: Precision = "no"
    seed: Seed = 0

    def settings(
        self, device: str, *, steps: int | None = None, epochs: int | None = None
    ) -> "TrainSettings":
        """Returns the settings of training for `steps` or for `epochs`."""
        from db3kd.training.settings import TrainSettings

        return TrainSettings(
            epochs=epochs,
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            device=device,
            precision=self.precision,
        )


@dataclass(frozen=True, kw_only=True)
class StudentTrainingOptions(OptionSet):
    """How students are trained."""

    panel = TRAINING

    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of training steps.",
            show_default=f"6,000 to 12,000; with --labels: {DEFAULT_STEPS:,}",
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="With --labels: passes over the data, instead of --steps."),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of images or rows per step.",
            show_default="128; with --preset paper: 512",
        ),
    ] = None
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Learning rate.",
            show_default="chosen by validation agreement; with --labels: 0.001",
        ),
    ] = None
    optimizer: Annotated[
        Literal["adam", "adamw", "sgd"] | None,
        typer.Option(
            help="Optimizer; sgd has a Nesterov momentum of 0.9.",
            show_default="adam; without --data and --learning-rate: sgd",
        ),
    ] = None
    schedule: Annotated[
        Literal["constant", "cosine"] | None,
        typer.Option(
            help="Schedule of the learning rate; cosine lowers it to 0.",
            show_default="cosine; with --labels: constant",
        ),
    ] = None
    weight_decay: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Weight decay of the optimizer.",
            show_default="0; without --data and --learning-rate: 0.0005",
        ),
    ] = None
    ema: Annotated[
        float | None,
        typer.Option(
            help="Use an exponential moving average of the weights with this decay, such as 0.999.",
            show_default="no average",
        ),
    ] = None
    precision: Precision = "no"
    tracker: Annotated[
        Literal["tensorboard", "wandb"] | None,
        typer.Option(
            help="Log losses and measurements with this package.", show_default="do not log them"
        ),
    ] = None
    tracker_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the logs.", show_default="logs, next to the student"),
    ] = None
    seed: Seed = 0

    def patient_settings(self, device: str) -> "TrainSettings":
        """Returns the settings of all networks of a distillation without labels."""
        if self.epochs is not None:
            raise ArgumentError("epochs", "needs --labels; use --steps")
        return self._settings(
            device,
            steps=self.steps,
            batch_size=self.batch_size or 128,
        )

    def settings(self, preset: str | None, device: str) -> "TrainSettings":
        """Returns the settings of a student of labels; a preset sets the paper's batch size."""
        if self.epochs is not None and self.steps is not None:
            raise ArgumentError("steps", "expected --epochs or --steps, got both")
        epochs, steps = self.epochs, self.steps
        if epochs is None and steps is None:
            epochs, steps = (PAPER_EPOCHS, None) if preset else (None, DEFAULT_STEPS)
        return self._settings(
            device,
            epochs=epochs,
            steps=steps,
            batch_size=self.batch_size or (512 if preset else 128),
        ).completed()

    def _settings(self, device: str, **particular: Any) -> "TrainSettings":
        from db3kd.training.settings import TrainSettings

        return TrainSettings(
            seed=self.seed,
            device=device,
            precision=self.precision,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            ema=self.ema,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            **particular,
        )

    def check_tracker(self, student: Path) -> None:
        """Refuses `--tracker-dir` without `--tracker`, and a folder of logs below a file.

        Raises:
            ValueError: If `--tracker` is missing.
            NotADirectoryError: If the path of the logs leads through a file.
        """
        from db3kd.storage.filesystem import check_parents

        if self.tracker is not None:
            with naming_options(out="--tracker-dir"):
                check_parents(self._logs_folder(student) / student.stem)
        elif self.tracker_dir is not None:
            raise ArgumentError("tracker_dir", "needs --tracker tensorboard or --tracker wandb")

    def _logs_folder(self, student: Path) -> Path:
        return self.tracker_dir or student.parent / "logs"

    def callbacks(self, student: Path, settings: "TrainSettings") -> "list[TrainingCallback]":
        """Returns the callbacks of a student's training.

        The stem of the student's file is its name in logs, and the settings of the training are
        logged.
        """
        self.check_tracker(student)
        if self.tracker is None:
            return []
        folder = self._logs_folder(student)
        from db3kd.training.tracker import TrackerCallback

        name: dict[str, Any] = {"name": student.stem}
        if self.tracker == "tensorboard":
            name = {"run_name": student.stem}
        configuration = asdict(settings)
        return [
            TrackerCallback(self.tracker, logging_dir=folder, configuration=configuration, **name)
        ]
