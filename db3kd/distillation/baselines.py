"""The DB3KD baselines (section 4) whose soft labels do not come from distances."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.data.image_reader import image_reader
from db3kd.distillation.evaluation import predict_logits
from db3kd.distillation.loss import KDLoss
from db3kd.distillation.methods import TrainingMethod, check_steps, soft_label_method
from db3kd.distillation.student import train_classifier, train_on_soft_labels
from db3kd.distillation.train_settings import TrainSettings
from db3kd.distillation.training_loop import Model
from db3kd.teachers.cpu_batch import batch_for_images


def white_box_method(
    student: Model,
    images: ImagesLike,
    decisions: Tensor,
    logits: Callable[[Tensor], Tensor],
    loss: KDLoss,
    settings: TrainSettings,
    batch: int | None = None,
) -> TrainingMethod:
    """Distils the teacher's own logits (Hinton et al. 2015).

    This is not a black-box method. It shows what a student could reach if the teacher returned
    its logits.

    Args:
        student: The network, as for `train_student`.
        images: N images, as for `train_student`.
        decisions: [N] int64, the teacher's classes; -1 (unanswered) is left out.
        logits: Takes images [n, *shape] float32 and returns [n, C]. It is called once per image,
            not once per seed.
        loss: The student's loss; the soft labels are made with its temperature.
        settings: Training settings; `steps` must be set. The seed comes from the comparison.
        batch: Images per call of `logits`; by default a number that suits a network on a CPU.
    """
    check_steps(settings)
    temperature = loss.temperature
    images = as_image_source(images)
    read = image_reader(images, "cpu")
    with torch.no_grad():
        shape = read(torch.zeros(1, dtype=torch.int64)).shape[1:]
        parts = torch.arange(len(images)).split(batch or batch_for_images(shape))
        answers = torch.cat([torch.as_tensor(logits(read(part))).cpu() for part in parts])
    soft = F.softmax(answers.float() / temperature, 1)
    return soft_label_method("white-box KD", None, student, images, decisions, soft, loss, settings)


def surrogate_method(
    student: Model,
    surrogate: Callable[[], nn.Module],
    images: ImagesLike,
    decisions: Tensor,
    loss: KDLoss,
    settings: TrainSettings,
) -> TrainingMethod:
    """Distils a surrogate of the teacher, which is trained on the teacher's decisions first.

    Args:
        student: See `white_box_method`.
        surrogate: Makes a network of the teacher's architecture. A new one is trained for every
            seed, for `settings.steps` steps.
        images: See `white_box_method`.
        decisions: See `white_box_method`.
        loss: See `white_box_method`.
        settings: Training settings of the student and the surrogate; `steps` must be set.
    """
    check_steps(settings)
    temperature = loss.temperature

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        network = train_classifier(surrogate, images, decisions, seeded)
        soft = F.softmax(predict_logits(network, images) / temperature, 1)
        return train_on_soft_labels(student, images, decisions, soft, loss, seeded)

    return TrainingMethod("surrogate KD", 1.0, run)


def noise_logit_method(
    student: Model,
    images: ImagesLike,
    decisions: Tensor,
    classes: int,
    loss: KDLoss,
    settings: TrainSettings,
    spread: float = 20.0,
) -> TrainingMethod:
    """Distils random soft labels, new ones for every seed: a control without information.

    Args:
        student: See `white_box_method`.
        images: See `white_box_method`.
        decisions: See `white_box_method`.
        classes: The number of classes.
        loss: See `white_box_method`.
        settings: See `white_box_method`.
        spread: See `noise_soft_labels`.
    """
    check_steps(settings)
    temperature = loss.temperature

    def run(seed: int) -> nn.Module:
        soft = noise_soft_labels(decisions, classes, temperature, seed, spread)
        seeded = replace(settings, seed=seed)
        return train_on_soft_labels(student, images, decisions, soft, loss, seeded)

    return TrainingMethod("noise logits", 1.0, run)


def noise_soft_labels(
    decisions: Tensor, classes: int, temperature: float, seed: int, spread: float = 20.0
) -> Tensor:
    """Returns random soft labels in which the predicted class is the most likely one.

    The predicted class has the logit 0, and every other class an independent uniform logit in
    [-spread, 0). The paper has this control but does not name its distribution.

    Args:
        decisions: [N] int64. Rows with -1 (unanswered) become uniform.
        classes: The number of classes C.
        temperature: Temperature of the softmax.
        seed: Seed of the random logits.
        spread: Above 0.

    Returns:
        [N, C] float32, rows sum to 1.

    Raises:
        ValueError: If `spread` is not above 0.
    """
    if not spread > 0:
        raise ValueError(f"spread: expected a number above 0, got {spread}")
    generator = torch.Generator().manual_seed(seed)
    # 1 - [0, 1) is above 0, so no other class can tie with the predicted one.
    logits = -spread * (1 - torch.rand(len(decisions), classes, generator=generator))
    answered = decisions >= 0
    logits[answered, decisions[answered]] = 0.0
    logits[~answered] = 0.0
    return F.softmax(logits / temperature, 1)
