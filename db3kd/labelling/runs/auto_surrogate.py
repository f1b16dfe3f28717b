"""`AutoSurrogate`: a surrogate that a label run trains itself, on a part of its budget."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from db3kd.arguments.images import UNIT_BOUNDS, interval_text
from db3kd.arguments.plain import check_type, suggests_arguments
from db3kd.errors import ArgumentError
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.chunk_search import check_surrogate_measure
from db3kd.labelling.runs.run_surrogate import RunSurrogate
from db3kd.labelling.settings import LabelSettings
from db3kd.planning.surrogate_plan import plan_surrogate_training
from db3kd.surrogates.boundary_points import max_boundary_points
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.teachers import Teacher, describe
from db3kd.training.settings import TrainSettings

DEFAULT_STEPS = 2000
"""Training steps of each network."""


@suggests_arguments
@dataclass(frozen=True)
class AutoSurrogate:
    """Trains a surrogate inside a label run, on a part of the run's budget, if that pays.

    The budget and the numbers of images and pairs decide, before the first query. The total of
    both parts never exceeds the budget. The run's folder keeps the answers and the weights.

    About half of the surrogate's queries are for augmented versions of the run's images, and the
    others about points near its own boundaries, to which the search goes first (see
    `db3kd.surrogates.boundary_points`). Rows of tables have no such points.

    Example:
        >>> labels = db3kd.label(
        ...     teacher, images, db3kd.LabelSettings(queries=100_000),
        ...     surrogate=db3kd.AutoSurrogate(), out="runs/mine", resume=True,
        ... )

    Attributes:
        model: As for `SurrogateSettings`. A network of the teacher's architecture is best.
        networks: As for `SurrogateSettings`. With one network, training takes half of the time
            and searching a third, and the distances are longer.
        training: How the networks are trained; `steps` must be set.

    Raises:
        ValueError: If a value is out of range.
    """

    model: str | None = None
    networks: int = SurrogateSettings.networks
    training: TrainSettings = field(default_factory=lambda: TrainSettings(steps=DEFAULT_STEPS))

    def __post_init__(self) -> None:
        check_type(self.training, TrainSettings, "training", "TrainSettings")
        self._settings()  # raises if a value is out of range

    def plan(
        self, teacher: Teacher, images: int, settings: LabelSettings, index: Tensor
    ) -> tuple[RunSurrogate, LabelSettings]:
        """Decides whether a run trains a surrogate, without a query.

        Args:
            teacher: The teacher of the run.
            images: The number of images of the run.
            settings: The settings of the run, with its whole budget.
            index: [n] int64, the images to label.

        Returns:
            The surrogate, and the settings to label with, without its queries.

        Raises:
            ValueError: If the measure uses no surrogate, the teacher takes other images than those
                in [0, 1], or the network does not fit the teacher or cannot be trained here.
        """
        check_surrogate_measure(settings)
        shape, classes = tuple(teacher.image_shape), teacher.classes
        if tuple(teacher.bounds) != UNIT_BOUNDS:
            raise ArgumentError(
                "surrogate",
                f"expected a teacher that takes images in [0, 1], got bounds "
                f"{interval_text(teacher.bounds)} of {describe(teacher)}; pass the images as a "
                "db3kd.ImageSet, or train a network of your own and pass it",
            )
        trained = self._settings()
        trained.check_trainable(shape, classes)
        limits, labelled = divide_budget(settings, images, classes), len(index)
        decisions = int((limits > 0).sum())
        distances = int((limits[index] - 1).clamp_min(0).sum())
        plan = plan_surrogate_training(
            decisions + distances,
            images,
            labelled * settings.targets_among(classes),
            max_boundary_points(shape),
        )
        trained = replace(
            trained, model=trained.model_for(shape), queries_per_sample=1 + plan.versions
        )
        surrogate = RunSurrogate(trained, plan)
        if not plan.queries:
            return surrogate, settings
        left = distances - plan.queries
        # A budget is divided over all images, including those that are not labelled.
        if labelled < images:
            left = images * (left // labelled)
        return surrogate, replace(settings, queries=decisions + left)

    def _settings(self) -> SurrogateSettings:
        return SurrogateSettings(self.model, networks=self.networks, training=self.training)
