"""`AutoSurrogate`: a surrogate that a label run trains itself, on a part of its budget."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.arguments.arrays import seeded_permutation
from db3kd.arguments.images import UNIT_BOUNDS, interval_text
from db3kd.arguments.plain import check_type, suggests_arguments
from db3kd.data.image_source import NamedImages, SelectedImages
from db3kd.data.table_rows import projection_of
from db3kd.errors import ArgumentError
from db3kd.labelling.chunk_search import check_surrogate_measure
from db3kd.labelling.settings import LabelSettings
from db3kd.models.networks import check_model
from db3kd.planning.surrogate_plan import SurrogatePlan, plan_surrogate_training
from db3kd.progress import Progress, ProgressListener, adding_up, listening, show_progress
from db3kd.progress.answers import show_answers
from db3kd.querying.driver import decide_all
from db3kd.querying.session import AnswerJournal
from db3kd.storage.choice_log import ChoiceLog
from db3kd.surrogates.augmented_decisions import AugmentedDecisions
from db3kd.surrogates.boundary_points import (
    ROUNDS,
    BoundaryPoints,
    collect_boundary_points,
    max_boundary_points,
    propose_boundary_points,
)
from db3kd.surrogates.files import save_surrogate
from db3kd.surrogates.queries import HELD_OUT_SHARE, augment_shuffled, decide_versions
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.surrogates.training import train_surrogate
from db3kd.teachers import ModuleTeacher, Teacher, describe, load_teacher
from db3kd.training.settings import TrainSettings

DEFAULT_STEPS = 2000
"""Training steps of each network."""

_ASKING = "querying for the surrogate"
"""The title of the display while the teacher is queried."""


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
        self, teacher: Teacher, images: int, labelled: int, settings: LabelSettings, budget: int
    ) -> "PlannedAutoSurrogate":
        """Decides whether a run trains a surrogate, without a query.

        Args:
            teacher: The teacher of the run.
            images: The number of images of the run.
            labelled: How many of them are labelled.
            settings: The settings of the run.
            budget: Maximum number of queries of the run, whichever of its settings limits them.

        Raises:
            ValueError: If the measure uses no surrogate, the teacher takes other images than those
                in [0, 1], or the network does not fit the teacher.
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
        model = trained.surrogate_model(shape)
        check_model(model, shape, classes)
        pairs = labelled * settings.targets_among(classes)
        plan = plan_surrogate_training(budget, images, pairs, max_boundary_points(shape))
        trained = replace(
            trained, model=trained.model_for(shape), queries_per_sample=1 + plan.versions
        )
        return PlannedAutoSurrogate(trained, model, plan)

    def _settings(self) -> SurrogateSettings:
        return SurrogateSettings(self.model, networks=self.networks, training=self.training)


@dataclass(frozen=True)
class PlannedAutoSurrogate:
    """The surrogate of one run, from `AutoSurrogate.plan`.

    Attributes:
        settings: How it is trained.
        model: The name by which `build_model` builds it.
        plan: The numbers of images, augmented versions and points, and why.
    """

    settings: SurrogateSettings
    model: str
    plan: SurrogatePlan

    @property
    def queries(self) -> int:
        """The exact number of queries; 0 if no surrogate is trained."""
        return self.plan.queries

    @property
    def why(self) -> str:
        """The reason, in one sentence."""
        return self.plan.why

    @property
    def entries(self) -> Mapping[str, Any]:
        """What the queries and the weights depend on, for the run's manifest."""
        training = asdict(self.settings.training)
        for name in ("device", "precision"):  # a run may be resumed on another machine
            training.pop(name)
        return {
            **asdict(self.settings),
            "training": training,
            "samples": self.plan.samples,
            "points": self.plan.points,
            "queries": self.queries,
            "held_out_share": HELD_OUT_SHARE,
        }

    def train(
        self,
        teacher: Teacher,
        images: NamedImages,
        decisions: Tensor,
        journal: AnswerJournal,
        log: ChoiceLog,
        weights: Path,
        *,
        progress: ProgressListener | bool,
    ) -> tuple[float, int] | None:
        """Asks the teacher, trains the surrogate and writes its weights; see `PlannedSurrogate`.

        Returns:
            Its agreement with the teacher on held-out images, in [0, 1], and their number,
            augmented ones included.
        """
        order = seeded_permutation(len(images), self.settings.training.seed)
        drawn = order[decisions[order] >= 0][: self.plan.samples]
        augmented = augment_shuffled(
            SelectedImages(images, drawn), self.settings, projection_of(teacher, images)
        )
        asked = len(augmented) - len(drawn)
        with show_answers(_ASKING, asked, "queries", progress) as on_answers:
            decided = decide_versions(
                teacher,
                augmented,
                decisions[drawn],
                journal,
                on_answers,
            )
        points = collect_boundary_points(
            self.plan.points,
            augmented.image_shape,
            partial(self._propose, decided, teacher.classes, progress),
            partial(_decide, teacher, journal, progress),
            log,
        )
        surrogate = train_surrogate(decided, teacher.classes, self.settings, progress, points)
        save_surrogate(weights, surrogate.network, self.settings, teacher, images)
        agreement = surrogate.agreement
        return None if agreement is None else (agreement, surrogate.held_out)

    def load(self, weights: Path) -> nn.Module:
        """Returns the network of a weights file that `train` wrote, in eval mode on the CPU."""
        loaded = load_teacher(weights, model=self.model, device="cpu")
        assert isinstance(loaded, ModuleTeacher)  # as any .safetensors file
        return loaded.module

    def _propose(
        self,
        decided: AugmentedDecisions,
        classes: int,
        progress: ProgressListener | bool,
        points: BoundaryPoints,
        count: int,
        round_number: int,
    ) -> Tensor:
        """Trains a network for a part of the steps, and returns points near its boundaries."""
        training, images = self.settings.training, decided.images
        assert training.steps is not None  # `SurrogateSettings` checks it
        short = replace(
            training,
            steps=max(1, training.steps // ROUNDS),
            seed=training.seed + self.settings.networks + round_number,
        )
        one = replace(self.settings, networks=1, training=short)
        title = f"choosing points, round {round_number + 1}"
        with listening(
            progress, lambda: Progress(one.steps, title=title, unit="steps")
        ) as listener:
            network = train_surrogate(decided, classes, one, listener, points).network
        # Held-out samples, which are the last ones, start no pair.
        clean = torch.arange(images.partners) * images.queries_per_sample
        finding = f"finding points, round {round_number + 1}"
        with show_progress(finding, count, "points", progress) as show:
            return propose_boundary_points(
                network,
                SelectedImages(images, clean),
                decided.decisions[clean],
                count,
                classes,
                (training.seed, round_number),
                adding_up(show),
            )


def _decide(
    teacher: Teacher, journal: AnswerJournal, progress: ProgressListener | bool, points: Tensor
) -> Tensor:
    with show_answers(_ASKING, len(points), "queries", progress) as on_answers:
        return decide_all(
            teacher,
            lambda rows: points[rows],
            torch.arange(len(points)),
            on_answers=on_answers,
            journal=journal,
        )
