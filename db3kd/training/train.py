"""`train`: training on images, their decisions and their soft labels.

Training never sees a test set, and equal arguments give equal weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from db3kd.arguments.arrays import IntegersLike, as_classes, as_index
from db3kd.arguments.plain import check_type
from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.errors import ArgumentError
from db3kd.models.networks import build_model
from db3kd.progress import ProgressListener
from db3kd.training.batch_checks import check_loss
from db3kd.training.callbacks import TrainingCallback, check_callbacks
from db3kd.training.checkpoint import CheckpointLike
from db3kd.training.loop import Model, train_batches
from db3kd.training.row_batches import RowBatches
from db3kd.training.settings import TrainSettings
from db3kd.wording import counted


def train(
    model: Model | str,
    images: ImagesLike,
    decisions: IntegersLike,
    soft_labels: Tensor | None,
    loss: Callable[..., Tensor],
    settings: TrainSettings,
    *,
    rows: IntegersLike | None = None,
    progress: ProgressListener | bool = False,
    checkpoint: CheckpointLike | None = None,
    callbacks: Sequence[TrainingCallback] = (),
    name: str = "decisions",
) -> nn.Module:
    """Trains a network for a fixed number of steps.

    The result depends only on the arguments, bit for bit on a CPU with the same number of threads.
    The global random states of torch, NumPy and Python are seeded, and restored afterwards. Under
    `accelerate launch` each process takes an equal part of every batch, and gradients are averaged.

    Args:
        model: A function that makes a network, called with the seed set; a network, of which a copy
            is trained; or a name that `build_model` takes.
        images: N images in [0, 1], as for `db3kd.label`.
        decisions: [N] int64, the class of each image; -1 (unanswered) is left out.
        soft_labels: [N, C] float, rows sum to 1, or are all 0 for images without a soft label; or
            None.
        loss: Called with logits [n, C], decisions [n] and, if there are any, soft labels [n, C];
            returns a scalar.
        settings: Steps, learning rate, seed, device and precision.
        rows: [R] int64, the images to train on; all by default. An image that occurs twice is
            trained on twice as often.
        progress: See `train_batches`.
        checkpoint: The file to continue from and to write; see `Checkpoint`.
        callbacks: Called in this order; see `TrainingCallback`.
        name: What errors call `decisions`.

    Returns:
        The trained network, in eval mode, on the device of the training.

    Raises:
        ValueError: If an argument has a wrong shape, dtype or value, if no row is answered, or if
            the checkpoint is damaged or belongs to another training run.
        DivergedError: If the loss became infinite or NaN.
    """
    images = as_image_source(images)
    decisions = as_classes(decisions, len(images), name, least=-1)
    check_type(settings, TrainSettings, "settings", "TrainSettings")
    check_callbacks(callbacks)
    if soft_labels is not None:
        _check_soft_labels(soft_labels, decisions)
        soft_labels = soft_labels.detach()  # training does not go back into what made them
    check_loss(loss)
    rows = torch.arange(len(images)) if rows is None else as_index(rows, len(images), "rows")
    rows = rows[decisions.cpu()[rows] >= 0]
    if len(rows) == 0:
        raise ArgumentError(name, "expected at least one answered row to train on, got none")
    if isinstance(model, str):
        known = getattr(images, "classes", None) if soft_labels is None else soft_labels.shape[1]
        shape = tuple(images.read(rows[:1]).shape[1:])
        classes = known or int(decisions.max()) + 1
        model = partial(build_model, model, shape, classes)
    targets = [decisions] if soft_labels is None else [decisions, soft_labels]
    checked = False

    def checked_loss(logits: Tensor, *batch: Tensor) -> Tensor:
        # Only the logits tell the number of classes. On a GPU, a class out of range would abort the
        # process without naming the class.
        nonlocal checked
        if not checked:
            _check_classes(logits, decisions, soft_labels, name)
            checked = True
        return loss(logits, *batch)

    steps = settings.total_steps(len(rows))
    return train_batches(
        model,
        RowBatches(images, targets, rows, settings),
        checked_loss,
        replace(settings, epochs=None, steps=steps),
        progress=progress,
        checkpoint=checkpoint,
        callbacks=callbacks,
    )


def _check_soft_labels(soft_labels: Tensor, decisions: Tensor) -> None:
    check_type(soft_labels, Tensor, "soft_labels", "a tensor [N, C]")
    if soft_labels.ndim != 2 or len(soft_labels) != len(decisions):
        raise ArgumentError(
            "soft_labels",
            f"expected [{len(decisions)}, C], one row for each sample, got "
            f"{list(soft_labels.shape)}",
        )
    answered = soft_labels[decisions >= 0]
    is_distribution = (answered >= 0).all(1) & ((answered.sum(1) - 1).abs() < 1e-3)
    is_absent = (answered == 0).all(1)
    wrong = ~(is_distribution | is_absent)
    if wrong.any():
        row = int((decisions >= 0).nonzero()[wrong][0])
        raise ArgumentError(
            "soft_labels",
            f"expected probabilities that sum to 1, or zeros for samples without "
            f"a soft label, got {soft_labels[row].tolist()} in row {row}",
        )


def _check_classes(
    logits: Tensor, decisions: Tensor, soft_labels: Tensor | None, name: str
) -> None:
    if logits.ndim != 2:
        raise ArgumentError("model", f"expected logits [n, C], got {list(logits.shape)}")
    classes = logits.shape[1]
    low, high = decisions.aminmax()
    if low < -1 or high >= classes:
        raise ArgumentError(
            name,
            f"expected classes from 0 to {classes - 1} or -1, got {low.item()} to {high.item()}",
        )
    if soft_labels is not None and soft_labels.shape[1] != classes:
        raise ArgumentError(
            "soft_labels",
            f"expected {counted(classes, 'column')}, the model's classes, "
            f"got {soft_labels.shape[1]}",
        )
