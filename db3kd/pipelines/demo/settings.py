"""The sizes of the demo."""

from dataclasses import dataclass

from db3kd.argument_types import SEVERAL_RUNS_SEED_BITS, check_seed, suggests_arguments
from db3kd.pipelines.distill_settings import DistillSettings
from db3kd.planning import Strategy
from db3kd.planning.comparison_plan import check_strategies
from db3kd.training.settings import TrainSettings


@suggests_arguments
@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo.

    Example:
        >>> DemoSettings.quick().data
        'digits'

    Attributes:
        data: A data set with a train and a test split.
        teacher: The network of the teacher, as `build_model` takes it.
        student: The network of the students, as `build_model` takes it.
        teacher_epochs: Epochs of the teacher on the whole train split.
        images: Number of train images that students learn from, without their labels.
        budget: Maximum number of queries of each student.
        strategies: The strategies to compare; the report presents a student of the first one.
        steps: Training steps of each student.
        batch_size: Images per training step of each student.
        seeds: Number of students per strategy.
        seed: Seed of the first student and of everything else.

    Raises:
        ValueError: If the strategies are not known ones, each listed once, or if the seed is out of
            range.
    """

    data: str = "mnist5k"
    teacher: str = "lenet5"
    student: str = "lenet5-half"
    teacher_epochs: int = 10
    images: int = 1_000
    budget: int = 10_000
    strategies: tuple[Strategy, ...] = ("auto", "augmented", "decisions", "mbd", "zero-shot")
    steps: int = 400
    batch_size: int = 128
    seeds: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_strategies(self.strategies)
        check_seed(self.seed, bits=SEVERAL_RUNS_SEED_BITS)

    @classmethod
    def quick(cls, seed: int = 0) -> "DemoSettings":
        """Returns tiny sizes, to test the installation in seconds."""
        return cls(
            data="digits",
            teacher="linear",
            student="linear",
            teacher_epochs=30,
            images=100,
            budget=400,
            steps=30,
            batch_size=32,
            seeds=2,
            seed=seed,
        )

    @property
    def distillation(self) -> DistillSettings:
        """How students and their proxies are trained."""
        training = TrainSettings(
            steps=self.steps,
            batch_size=self.batch_size,
            schedule="cosine",
            seed=self.seed,
            device="cpu",
        )
        return DistillSettings(training=training)
