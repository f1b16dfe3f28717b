"""`train`: training on images, their decisions and their soft labels.

Training never sees a test set, and equal arguments give equal weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.errors import ArgumentError
from db3kd.training.callbacks import (
    ProgressCallback,
    StepCallback,
    TrainingCallback,
)
from db3kd.training.checkpoint import Checkpoint
from db3kd.training.loop import Model, train_batches
from db3kd.training.row_batches import RowBatches
from db3kd.training.settings import TrainSettings
from db3kd.wording import counted


def train(
    model: Model,
    images: ImagesLike,
    decisions: Tensor,
    soft_labels: Tensor | None,
    loss: Callable[..., Tensor],
    settings: TrainSettings,
    *,
    rows: Tensor | None = None,
    progress: StepCallback | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[TrainingCallback] = (),
) -> nn.Module:
    """Trains a network for a fixed number of steps.

    The result depends only on the arguments, bit for bit on a CPU with the same number of threads.
    The global random state is restored. Under `accelerate launch` each process takes an equal part
    of every batch, and gradients are averaged.

    Args:
        model: A function that makes a network, called with the seed set; or a network, of which a
            copy is trained.
        images: N images in [0, 1], as for `db3kd.label`.
        decisions: [N] int64, the class of each image; -1 (unanswered) is left out.
        soft_labels: [N, C] float, rows sum to 1, or are all 0 for images without a soft label; or
            None.
        loss: Called with logits [n, C], decisions [n] and, if there are any, soft labels [n, C];
            returns a scalar.
        settings: Steps, learning rate, seed, device and precision.
        rows: [R] int64, the images to train on; all by default. An image that occurs twice is
            trained on twice as often.
        progress: Called about a hundred times.
        checkpoint: The file to continue from and to write; see `Checkpoint`.
        callbacks: Called in this order; see `TrainingCallback`.

    Returns:
        The trained network, in eval mode, on the device of the training.

    Raises:
        ValueError: If an argument has a wrong shape, dtype or value, if no row is answered, or if
            the checkpoint is damaged or belongs to another training run.
        DivergedError: If the loss became infinite or NaN.
    """
    images = as_image_source(images)
    _check_targets(decisions, soft_labels, len(images))
    rows = torch.arange(len(images)) if rows is None else rows.cpu()
    rows = rows[decisions.cpu()[rows] >= 0]
    if len(rows) == 0:
        raise ArgumentError("decisions", "expected at least one answered row to train on, got none")
    targets = [decisions] if soft_labels is None else [decisions, soft_labels]
    if progress is not None:
        callbacks = (*callbacks, ProgressCallback(progress))
    return train_batches(
        model,
        RowBatches(images, targets, rows, settings),
        _CheckedLoss(loss, decisions, soft_labels),
        replace(settings, steps=settings.total_steps(len(rows))),
        checkpoint=checkpoint,
        callbacks=callbacks,
    )


class _CheckedLoss:
    """Checks the targets against the number of classes, known only from the network's logits.

    On a GPU, a class out of range would abort the process without naming the class.
    """

    def __init__(
        self, loss: Callable[..., Tensor], decisions: Tensor, soft_labels: Tensor | None
    ) -> None:
        self._loss, self._decisions, self._soft_labels = loss, decisions, soft_labels
        self._checked = False

    def __call__(self, logits: Tensor, *targets: Tensor) -> Tensor:
        if not self._checked:
            _check_classes(logits, self._decisions, self._soft_labels)
            self._checked = True
        return self._loss(logits, *targets)


def _check_targets(decisions: Tensor, soft_labels: Tensor | None, images: int) -> None:
    if decisions.dtype != torch.int64 or decisions.shape != (images,):
        raise ArgumentError(
            "decisions",
            f"expected [{images}] int64, one for each sample, "
            f"got {list(decisions.shape)} {str(decisions.dtype).removeprefix('torch.')}",
        )
    if soft_labels is None:
        return
    if soft_labels.ndim != 2 or len(soft_labels) != images:
        raise ArgumentError(
            "soft_labels",
            f"expected [{images}, C], one row for each sample, got {list(soft_labels.shape)}",
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


def _check_classes(logits: Tensor, decisions: Tensor, soft_labels: Tensor | None) -> None:
    if logits.ndim != 2:
        raise ArgumentError("model", f"expected logits [n, C], got {list(logits.shape)}")
    classes = logits.shape[1]
    low, high = decisions.aminmax()
    if low < -1 or high >= classes:
        raise ArgumentError(
            "decisions",
            f"expected classes from 0 to {classes - 1} or -1, got {low.item()} to {high.item()}",
        )
    if soft_labels is not None and soft_labels.shape[1] != classes:
        raise ArgumentError(
            "soft_labels",
            f"expected {counted(classes, 'column')}, the model's classes, "
            f"got {soft_labels.shape[1]}",
        )
