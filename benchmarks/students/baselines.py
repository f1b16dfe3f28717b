"""Further methods of training, which students of distances are compared with.

Most are the baselines of DB3KD (section 4), whose soft labels do not come from distances.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.students.methods import TrainingMethod, check_steps, soft_label_method
from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.data.image_reader import image_reader
from db3kd.surrogates.augmented_decisions import AugmentedDecisions, rows_with_clean_share
from db3kd.teachers.cpu_batch import batch_for_images
from db3kd.training.evaluation import predict_logits
from db3kd.training.loop import Model
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier, train_on_soft_labels

_CLEAN_SHARE = 0.5
"""Share of clean images in the training rows. Without repetition, clean images would be rare if
there are many queries per sample."""

_NOISE_SPREAD = 20.0
"""The range of the random logits of other classes than the predicted one."""


def augmented_decision_method(
    student: Model, augmented: AugmentedDecisions, settings: TrainSettings
) -> TrainingMethod:
    """Trains by cross-entropy on decisions for augmented images, clean ones included.

    The settings need `steps`; their seed comes from the comparison.
    """
    check_steps(settings)
    rows = rows_with_clean_share(augmented.images, _CLEAN_SHARE)

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        return train_classifier(
            student,
            augmented.images,
            augmented.decisions,
            settings=seeded,
            rows=rows,
            progress=False,
        )

    per_sample = float(augmented.images.queries_per_sample)
    return TrainingMethod("cross-entropy on augmented decisions", per_sample, run)


def combined_method(
    name: str,
    label_queries: float,
    student: Model,
    augmented: AugmentedDecisions,
    soft_labels: Tensor,
    loss: KDLoss,
    settings: TrainSettings,
) -> TrainingMethod:
    """Trains on soft labels for the clean images and on decisions for the augmented ones.

    Augmented images have no soft label, because each would cost a search. Their loss is the
    cross-entropy part of `loss`.

    Args:
        name: The name of the method's row in the table.
        label_queries: The cost of a soft label, including the decision of its sample. The queries
            of the method count that decision once.
        student: See `augmented_decision_method`.
        augmented: The augmented images of N samples, and their decisions.
        soft_labels: [N, C] float32, for the clean samples only; rows sum to 1.
        loss: The loss; its temperature must be that of the soft labels.
        settings: See `augmented_decision_method`.

    Raises:
        ValueError: If there is not one soft label per sample.
    """
    check_steps(settings)
    images, per_sample = augmented.images, augmented.images.queries_per_sample
    if soft_labels.ndim != 2 or len(soft_labels) != images.samples:
        raise ValueError(
            f"soft_labels: expected [{images.samples}, C], one row for each sample, "
            f"got {list(soft_labels.shape)}"
        )
    rows = rows_with_clean_share(images, _CLEAN_SHARE)
    soft = torch.zeros(len(images), soft_labels.shape[1])
    soft[::per_sample] = soft_labels

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        return train_on_soft_labels(
            student, images, augmented.decisions, soft, loss, seeded, rows=rows
        )

    return TrainingMethod(name, label_queries + per_sample - 1, run)


def white_box_method(
    student: Model,
    images: ImagesLike,
    decisions: Tensor,
    logits: Callable[[Tensor], Tensor],
    loss: KDLoss,
    settings: TrainSettings,
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
    """
    check_steps(settings)
    temperature = loss.temperature
    images = as_image_source(images)
    read = image_reader(images, "cpu")
    with torch.no_grad():
        shape = read(torch.zeros(1, dtype=torch.int64)).shape[1:]
        parts = torch.arange(len(images)).split(batch_for_images(shape))
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

    `surrogate` makes a network of the teacher's architecture. A new one is trained for every seed,
    for `settings.steps` steps. The other arguments are those of `white_box_method`.
    """
    check_steps(settings)
    temperature = loss.temperature

    def run(seed: int) -> nn.Module:
        seeded = replace(settings, seed=seed)
        network = train_classifier(surrogate, images, decisions, settings=seeded, progress=False)
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
) -> TrainingMethod:
    """Distils random soft labels, new ones for every seed: a control without information.

    The arguments are those of `white_box_method`.
    """
    check_steps(settings)
    temperature = loss.temperature

    def run(seed: int) -> nn.Module:
        soft = noise_soft_labels(decisions, classes, temperature, seed)
        seeded = replace(settings, seed=seed)
        return train_on_soft_labels(student, images, decisions, soft, loss, seeded)

    return TrainingMethod("noise logits", 1.0, run)


def noise_soft_labels(decisions: Tensor, classes: int, temperature: float, seed: int) -> Tensor:
    """Returns random soft labels in which the predicted class is the most likely one.

    The predicted class has the logit 0, and every other class an independent uniform logit in
    [-20, 0). The paper has this control but does not name its distribution.

    Args:
        decisions: [N] int64. Rows with -1 (unanswered) become uniform.
        classes: The number of classes C.
        temperature: Temperature of the softmax.
        seed: Seed of the random logits.

    Returns:
        [N, C] float32, rows sum to 1.
    """
    generator = torch.Generator().manual_seed(seed)
    # 1 - [0, 1) is above 0, so no other class can tie with the predicted one.
    logits = -_NOISE_SPREAD * (1 - torch.rand(len(decisions), classes, generator=generator))
    answered = decisions >= 0
    logits[answered, decisions[answered]] = 0.0
    logits[~answered] = 0.0
    return F.softmax(logits / temperature, 1)
