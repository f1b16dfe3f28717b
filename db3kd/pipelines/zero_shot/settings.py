"""Settings of a zero-shot run."""

from dataclasses import dataclass, field
from types import NoneType

from db3kd.argument_types import (
    SEVERAL_RUNS_SEED_BITS,
    check_number,
    check_seed,
    check_type,
    suggests_arguments,
)
from db3kd.labelling.settings import LabelSettings
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings
from db3kd.validation import check_count


@suggests_arguments
@dataclass(frozen=True)
class ZeroShotSettings:
    """How pseudo samples are made and labelled, and how students are trained on them.

    Attributes:
        synthesis: How the pseudo samples are made.
        labelling: How distances of the pseudo samples are measured, if soft labels made of them are
            distilled in addition to the decisions; None for the decisions alone.
        student: The architecture of the students, a name for `build_model`.
        training: How every student is trained, with a number of steps. By default, or if they are
            not set, the learning rate is 3e-3 and the schedule "cosine".
        loss: The loss of students with soft labels.
        balance: How much more often samples of rare classes are trained on, from 0 (equally often)
            to 1 (every class equally often).
        seeds: Number of students per transfer set.
        shares: Shares of the pseudo samples, in (0, 1). Students are also trained on each of these
            shares, the first samples, to show how accuracy depends on the number of queries.

    Raises:
        ValueError: If a value is out of range.
    """

    synthesis: SynthesisSettings = field(default_factory=SynthesisSettings)
    labelling: LabelSettings | None = None
    student: str = "lenet5-half"
    training: TrainSettings = field(default_factory=lambda: TrainSettings(steps=12_000))
    loss: KDLoss = field(default_factory=KDLoss)
    balance: float = 0.5
    seeds: int = 3
    shares: tuple[float, ...] = (0.1, 0.3)

    def __post_init__(self) -> None:
        for name, kind in (
            ("synthesis", SynthesisSettings),
            ("training", TrainSettings),
            ("loss", KDLoss),
        ):
            check_type(getattr(self, name), kind, name, kind.__name__)
        optional = (LabelSettings, NoneType)
        check_type(self.labelling, optional, "labelling", "LabelSettings or None")
        check_type(self.student, str, "student", "the name of a network")
        check_type(self.shares, (tuple, list), "shares", "a tuple of numbers")
        if self.training.steps is None:
            raise ValueError(
                "training.steps: expected a number, so that all students train equally long, got "
                "None"
            )
        check_seed(self.training.seed, "training.seed", bits=SEVERAL_RUNS_SEED_BITS)
        completed = self.training.completed(learning_rate=3e-3, schedule="cosine")
        object.__setattr__(self, "training", completed)
        if not 0 <= check_number(self.balance, "balance", "a number in [0, 1]") <= 1:
            raise ValueError(f"balance: expected a number in [0, 1], got {self.balance}")
        check_count(self.seeds, "seeds")
        for share in self.shares:
            if not 0 < check_number(share, "shares", "numbers in (0, 1)") < 1:
                raise ValueError(f"shares: expected numbers in (0, 1), got {share}")
