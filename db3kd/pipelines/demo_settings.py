"""The sizes of the demo."""

import dataclasses
from dataclasses import dataclass

from db3kd.distillation.scale import RELATIVE_SCALES
from db3kd.distillation.train_settings import TrainSettings
from db3kd.pipelines.zero_shot_settings import ZeroShotSettings
from db3kd.synthesis.acquisition import AcquisitionSettings
from db3kd.synthesis.settings import SynthesisSettings


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo. They were chosen on training images; test images had no influence.

    Example:
        >>> DemoSettings.quick().data
        'digits'

    Attributes:
        data: A data set with a train and a test split.
        teacher: The network of the teacher, as `build_model` takes it.
        student: The network of the students, as `build_model` takes it.
        teacher_epochs: Epochs of the teacher on the whole train split.
        transfer: Number of train images that are labelled and that students are trained on.
        queries_per_pair: Maximum queries of MBD per sample and class.
        snapshots: Queries per pair after which distances are stored.
        steps: Training steps of each student.
        batch_size: Maximum images per step of each student.
        scale_steps: Training steps of the students that choose the scale.
        relative_scales: The scales to choose from, relative to that of the median sample.
        pseudo_samples: Number of pseudo samples of the part without images.
        acquisition_rounds: Rounds in which students choose the pseudo samples.
        acquisition_steps: Training steps of the students that choose.
        zero_shot_steps: Training steps of the students of pseudo samples.
        seeds: Number of students per row of the table.
        seed: Seed of the first student and of everything else.
    """

    data: str = "mnist5k"
    teacher: str = "lenet5"
    student: str = "lenet5-half"
    teacher_epochs: int = 10
    transfer: int = 200
    queries_per_pair: int = 200
    snapshots: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 80, 100, 150)
    steps: int = 300
    batch_size: int = 50
    scale_steps: int = 100
    relative_scales: tuple[float, ...] = RELATIVE_SCALES
    pseudo_samples: int = 10_000
    acquisition_rounds: int = 3
    acquisition_steps: int = 300
    zero_shot_steps: int = 800
    seeds: int = 3
    seed: int = 0

    @classmethod
    def quick(cls, seed: int = 0) -> "DemoSettings":
        """Returns tiny sizes, which test the installation in seconds."""
        return cls(
            data="digits",
            teacher="linear",
            student="linear",
            teacher_epochs=30,
            transfer=60,
            queries_per_pair=60,
            snapshots=(5, 10, 20, 40),
            steps=20,
            scale_steps=5,
            relative_scales=(1.0, 4.0),
            pseudo_samples=300,
            acquisition_rounds=2,
            acquisition_steps=10,
            zero_shot_steps=20,
            seeds=2,
            seed=seed,
        )

    @property
    def training(self) -> TrainSettings:
        """How each student of labelled images is trained."""
        return TrainSettings(
            steps=self.steps, batch_size=self.batch_size, seed=self.seed, device="cpu"
        )

    @property
    def zero_shot(self) -> ZeroShotSettings:
        """How students are trained without images."""
        acquisition = AcquisitionSettings(
            self.student, rounds=self.acquisition_rounds, steps=self.acquisition_steps, device="cpu"
        )
        synthesis = SynthesisSettings.guided(
            samples=self.pseudo_samples, acquisition=acquisition, seed=self.seed
        )
        training = dataclasses.replace(
            ZeroShotSettings().training, steps=self.zero_shot_steps, seed=self.seed, device="cpu"
        )
        return ZeroShotSettings(
            synthesis, student=self.student, training=training, seeds=self.seeds, shares=()
        )
