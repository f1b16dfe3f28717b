"""Options of trainings: one network, or the students of a label run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from db3kd.cli.option_sets import COMMON, OptionSet
from db3kd.cli.options import DEVICE_HELP, Seed

if TYPE_CHECKING:
    from db3kd.distillation.training import TrainSettings

TRAINING = "Training"
DEFAULT_STEPS = 1500
PAPER_EPOCHS = 200

Steps = Annotated[
    int,
    typer.Option("--steps", min=1, help="Number of training steps.", rich_help_panel=TRAINING),
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch-size",
        min=1,
        help="Maximum number of images per step.",
        rich_help_panel=TRAINING,
    ),
]
LearningRate = Annotated[
    float,
    typer.Option("--learning-rate", help="Learning rate of Adam.", rich_help_panel=TRAINING),
]
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

    batch_size: BatchSize = 128
    learning_rate: LearningRate = 1e-3
    precision: Precision = "no"
    seed: Seed = 0

    def settings(
        self, device: str, *, steps: int | None = None, epochs: int | None = None
    ) -> "TrainSettings":
        """Returns the settings of the training, which lasts for `steps` or for `epochs`."""
        from db3kd.distillation.training import TrainSettings

        return TrainSettings(
            epochs=epochs or TrainSettings.epochs,
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            device=device,
            precision=self.precision,
        )


@dataclass(frozen=True, kw_only=True)
class StudentTrainingOptions(OptionSet):
    """How the students of a label run are trained."""

    panel = TRAINING

    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            help="Number of training steps.",
            show_default=f"{DEFAULT_STEPS}",
            rich_help_panel=COMMON,
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", min=1, help="Passes over the images, instead of --steps."),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Maximum number of images per step.", show_default="128"
        ),
    ] = None
    learning_rate: LearningRate = 1e-3
    precision: Precision = "no"
    device: TrainingDevice = "auto"
    seed: Seed = 0

    def settings(self, preset: str | None) -> "TrainSettings":
        """Returns the settings of a student; a preset has the paper's epochs and batches."""
        from db3kd.distillation.training import TrainSettings

        if self.epochs is not None and self.steps is not None:
            raise ValueError("steps: expected --epochs or --steps, got both")
        chosen = self.epochs or self.steps or preset
        return TrainSettings(
            epochs=self.epochs or PAPER_EPOCHS,
            steps=self.steps if chosen else DEFAULT_STEPS,
            batch_size=self.batch_size or (512 if preset else 128),
            learning_rate=self.learning_rate,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
        )
