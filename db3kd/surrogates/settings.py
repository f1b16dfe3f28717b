"""The settings of a surrogate, and the trained surrogate."""

from dataclasses import dataclass, field
from types import NoneType

from torch import nn

from db3kd.arguments.plain import (
    RUN_SEED_BITS,
    check_count_fields,
    check_fields,
    check_number,
    check_seed,
    check_type,
    suggests_arguments,
)
from db3kd.errors import ArgumentError
from db3kd.models.ensemble import MAX_NETWORKS
from db3kd.models.networks import check_model, default_model
from db3kd.training.process import check_can_train
from db3kd.training.settings import TrainSettings
from db3kd.wording import counted


@suggests_arguments
@dataclass(frozen=True)
class SurrogateSettings:
    """How a surrogate is trained, and how many queries its training data cost.

    Example:
        >>> db3kd.SurrogateSettings(queries_per_sample=20)

    Attributes:
        model: The architecture, a name for `build_model`; by default "lenet5" for images and "mlp"
            for rows of a table.
        queries_per_sample: The exact number of queries per sample, for the sample itself and its
            augmented images.
        clean_share: Share of clean images in the training rows, in [0, 1), see
            `rows_with_clean_share`.
        training: Training settings; `steps` must be set. The seed also determines the augmented
            images and the held-out samples.
        networks: How many networks of that architecture are trained, on the same decisions and from
            different initial weights. The surrogate is their mean (`db3kd.models.Ensemble`), which
            proposes nearer boundary points than each of them; training and searching take as many
            times as long.

    Raises:
        ValueError: If a value is out of range.
    """

    model: str | None = None
    queries_per_sample: int = 10
    clean_share: float = 0.5
    training: TrainSettings = field(default_factory=lambda: TrainSettings(steps=2000))
    networks: int = 3

    def __post_init__(self) -> None:
        check_type(self.training, TrainSettings, "training", "TrainSettings")
        optional = (str, NoneType)
        check_type(self.model, optional, "model", "the name of a network or None")
        check_count_fields(self, "queries_per_sample", "networks")
        if self.networks > MAX_NETWORKS:
            raise ArgumentError("networks", f"expected at most {MAX_NETWORKS}, got {self.networks}")
        share = "at least 0 and below 1"
        check_fields(self, check_number, "clean_share", expected=share)
        if not 0 <= self.clean_share < 1:
            raise ArgumentError("clean_share", f"expected {share}, got {self.clean_share}")
        if self.training.steps is None:
            raise ArgumentError("training.steps", "expected a number, got None")
        check_seed(self.training.seed, "training.seed", bits=RUN_SEED_BITS)
        object.__setattr__(self, "training", self.training.completed())

    def model_for(self, image_shape: tuple[int, ...]) -> str:
        """Returns the architecture of each network, for inputs of a shape."""
        return self.model or default_model(image_shape, "lenet5")

    def surrogate_model(self, image_shape: tuple[int, ...]) -> str:
        """Returns the name by which `build_model` builds the whole surrogate."""
        model = self.model_for(image_shape)
        return model if self.networks == 1 else f"{model}*{self.networks}"

    def check_trainable(self, image_shape: tuple[int, ...], classes: int) -> None:
        """Checks, before a query is paid for, that the networks can be trained on its answer.

        Args:
            image_shape: The shape of the teacher's inputs.
            classes: The number of the teacher's classes.

        Raises:
            ValueError: If a network does not accept the inputs; see also `check_can_train`.
        """
        check_model(self.surrogate_model(image_shape), image_shape, classes)
        check_can_train(self.training.device, self.training.precision)

    @property
    def steps(self) -> int:
        """The number of training steps of all networks."""
        assert self.training.steps is not None
        return self.training.steps * self.networks


@dataclass(frozen=True, repr=False)
class TrainedSurrogate:
    """A network that was trained on a teacher's decisions.

    Attributes:
        network: Takes images [N, *image_shape] and returns scores [N, classes]; in eval mode.
        agreement: Share of held-out images, augmented ones included, for which the network predicts
            the teacher's class, in [0, 1]; None if no image was held out.
        queries: The number of queries spent on its training data.
        held_out: The number of held-out images, augmented ones included.
    """

    network: nn.Module
    agreement: float | None
    queries: int
    held_out: int = 0

    def __repr__(self) -> str:
        agreement = "unknown"
        if self.agreement is not None:
            agreement = f"{self.agreement:.1%} on {counted(self.held_out, 'held-out sample')}"
        name = type(self.network).__name__
        return f"TrainedSurrogate({name}, agreement {agreement}, {counted(self.queries, 'query')})"
