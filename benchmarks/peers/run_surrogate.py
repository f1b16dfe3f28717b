"""The surrogate of a label run, trained on as many queries as a benchmark gives it."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from db3kd.data.image_set import ImageSet
from db3kd.labelling.runs.run_surrogate import RunSurrogate
from db3kd.planning import SurrogatePlan
from db3kd.storage.choice_log import ChoiceLog
from db3kd.storage.journal import Journal
from db3kd.surrogates.settings import SurrogateSettings, TrainedSurrogate
from db3kd.teachers import ModuleTeacher


def train_run_surrogate(
    teacher: ModuleTeacher,
    images: ImageSet,
    decisions: Tensor,
    queries: int,
    *,
    model: str = "lenet5",
    networks: int = 3,
    steps: int = 2000,
    seed: int = 1,
    per_image: int = 9,
    point_share: float = 0.5,
) -> TrainedSurrogate:
    """Trains a surrogate as a label run does.

    Args:
        teacher: The teacher.
        images: The images of the run.
        decisions: [N] int64, their classes.
        queries: Maximum number of further queries.
        model: The architecture of each network.
        networks: The number of networks.
        steps: Training steps of each network.
        seed: Seed of the training. It must not be that of the teacher's training: a surrogate that
            starts from the teacher's own initial weights resembles it far more than a user's ever
            would.
        per_image: Maximum number of queries per image, unless there are too few images.
        point_share: Share of the queries that ask about points near the surrogate's boundaries.

    Returns:
        The surrogate that `label --surrogate auto` trains if its plan is this one. Its queries are
        those without the decisions for the images themselves.
    """
    samples = min(len(images), queries // per_image)
    versions = round(queries * (1 - point_share)) // samples
    points = queries - samples * versions if point_share else 0
    plan = SurrogatePlan(samples, versions, points, "")
    settings = SurrogateSettings(model, queries_per_sample=1 + versions, networks=networks)
    training = replace(settings.training, seed=seed, device="cpu", steps=steps)
    settings = replace(settings, training=training)
    surrogate = RunSurrogate(settings, plan)
    with TemporaryDirectory() as folder:
        log = ChoiceLog(Path(folder))
        with Journal(Path(folder) / "journal", teacher.classes, "surrogate") as journal:
            trained = surrogate.train(teacher, images, decisions, journal, log, progress=False)
    return replace(trained, queries=plan.queries)
