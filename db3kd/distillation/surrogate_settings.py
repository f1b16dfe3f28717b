"""How a surrogate is made, and what comes out."""

from dataclasses import dataclass, field

from torch import nn

from db3kd.distillation.training import TrainSettings
from db3kd.validation import check_count


@dataclass(frozen=True)
class SurrogateSettings:
    """How a surrogate is made, and what that costs.

    Example:
        >>> db3kd.SurrogateSettings(queries_per_sample=20)

    Attributes:
        model: its architecture, a name for `build_model`.
        queries_per_sample: the exact number of queries a sample: itself and augmented images of it.
        clean_share: share of clean images in the training rows, in [0, 1), see
            `rows_with_clean_share`.
        training: with a number of steps. Its seed also draws the augmented images and the held-out
            samples.

    Raises:
        ValueError: if a value is not as above.
    """

    model: str = "lenet5"
    queries_per_sample: int = 10
    clean_share: float = 0.5
    training: TrainSettings = field(default_factory=lambda: TrainSettings(steps=2000))

    def __post_init__(self) -> None:
        check_count(self.queries_per_sample, "queries_per_sample")
        if not 0 <= self.clean_share < 1:
            raise ValueError(
                f"clean_share: expected at least 0 and below 1, got {self.clean_share}"
            )
        if self.training.steps is None:
            raise ValueError("training.steps: expected a number, got None")

    @property
    def steps(self) -> int:
        """The number of training steps."""
        assert self.training.steps is not None
        return self.training.steps


@dataclass(frozen=True, repr=False)
class TrainedSurrogate:
    """A network that was trained on a teacher's decisions.

    Attributes:
        network: takes images [N, *image_shape] and returns scores [N, classes]; in eval mode.
        agreement: share of held-out images, augmented ones included, that it puts in the teacher's
            class, in [0, 1]; None if no image was held out.
        queries: the cost of its training data.
    """

    network: nn.Module
    agreement: float | None
    queries: int

    def __repr__(self) -> str:
        agreement = "unknown" if self.agreement is None else f"{self.agreement:.1%}"
        name = type(self.network).__name__
        return f"TrainedSurrogate({name}, agreement {agreement}, {self.queries:,} queries)"
