"""Teachers of a data set, as `db3kd teacher` and the demo train them."""

from functools import partial
from pathlib import Path

from torch import nn

from db3kd.data.image_set import ImageSet, true_classes
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.progress import Progress
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier


def train_teacher(train: ImageSet, model: str, settings: TrainSettings, file: Path) -> nn.Module:
    """Trains a network on the true classes of images, shows progress, and writes its weights.

    Args:
        train: Images with labels.
        model: The name of the network.
        settings: How it is trained.
        file: The new weights file.

    Returns:
        The network.
    """
    shape, (labels, classes) = train.image_shape, true_classes(train)
    make, steps = partial(build_model, model, shape, classes), settings.total_steps(len(train))
    with Progress(steps, title="training the teacher", unit="steps") as progress:
        network = train_classifier(make, train, labels, settings=settings, progress=progress)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_model(
        file,
        network,
        model=model,
        image_shape=shape,
        classes=classes,
        class_names=train.class_names,
        features=train.features,
    )
    return network
