"""The distillation loss, the training of students, and how good a student is."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.data.image_source import Images, image_reader
from db3kd.distillation.training import (
    Model,
    StepCallback,
    TrainSettings,
    check_choice,
    check_positive,
    train,
)
from db3kd.teachers.cpu_batch import batch_for_module

_REDUCTIONS = ("batchmean", "sum", "none")


class KDLoss(nn.Module):
    """alpha · CE(student, decision) + beta · T² · KL(q ‖ softmax(student / T)).

    The soft labels q are probabilities, already taken at temperature T. T² keeps the size of their
    gradient when T changes (Hinton et al. 2015, section 2). Rows whose decision is -1 (the budget
    refused the query) add nothing, whatever their soft label holds. A row whose soft label is all
    zero has none: its loss is alpha times the cross-entropy with its decision.

    Args:
        temperature: T > 0, the temperature at which the soft labels were taken.
        alpha: weight of the cross-entropy with the decisions, at least 0.
        beta: weight of the soft labels, at least 0; 1 - alpha by default.
        reduction: "batchmean" (mean over the answered rows), "sum", or "none" (a loss for each
            row).
    """

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 0.5,
        beta: float | None = None,
        reduction: str = "batchmean",
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha: expected a finite number of at least 0, got {alpha}")
        if beta is None and alpha > 1:
            raise ValueError(
                f"alpha: expected at most 1 where beta is 1 - alpha, got {alpha}; give beta too"
            )
        beta = 1 - alpha if beta is None else beta
        if not (math.isfinite(beta) and beta >= 0):
            raise ValueError(f"beta: expected a finite number of at least 0, got {beta}")
        if alpha == beta == 0:
            raise ValueError("alpha, beta: expected at least one weight above 0, got 0 and 0")
        check_choice("reduction", reduction, _REDUCTIONS)
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta
        self.reduction = reduction

    @classmethod
    def paper(cls) -> "KDLoss":
        """The loss of DB3KD (ICML 2021): CE + KL at T = 20, summed over the batch."""
        # beta = 1 / T² undoes the factor T²
        temperature = 20.0
        return cls(temperature, alpha=1.0, beta=temperature**-2, reduction="sum")

    def forward(self, logits: Tensor, decisions: Tensor, soft_labels: Tensor) -> Tensor:
        """The loss of a batch.

        logits [n, C], decisions [n] int64 (-1: unanswered), soft_labels [n, C] -> a scalar float32,
        or [n] where reduction is "none".
        """
        if logits.ndim != 2 or soft_labels.shape != logits.shape:
            raise ValueError(
                f"soft_labels: expected the logits' shape [n, C] = {list(logits.shape)}, "
                f"got {list(soft_labels.shape)}"
            )
        if decisions.shape != logits.shape[:1]:
            raise ValueError(
                f"decisions: expected shape [{len(logits)}], got {list(decisions.shape)}"
            )
        logits = logits.float()
        answered = decisions >= 0
        # Zeroed before the logarithm: a NaN in an unanswered row would reach the gradient through
        # any later mask.
        soft = torch.where(answered[:, None], soft_labels.float(), 0.0)
        hard_rows = F.cross_entropy(logits, decisions, ignore_index=-1, reduction="none")
        soft_rows = F.kl_div(
            F.log_softmax(logits / self.temperature, 1), soft, reduction="none"
        ).sum(1)
        rows = self.alpha * hard_rows + self.beta * self.temperature**2 * soft_rows
        if self.reduction == "none":
            return rows
        return rows.sum() if self.reduction == "sum" else rows.sum() / answered.sum().clamp(min=1)

    def extra_repr(self) -> str:
        return (
            f"temperature={self.temperature}, alpha={self.alpha}, beta={self.beta}, "
            f"reduction={self.reduction!r}"
        )


def train_classifier(
    model: Model,
    images: Images,
    labels: Tensor,
    settings: TrainSettings,
    *,
    rows: Tensor | None = None,
    progress: StepCallback | None = None,
) -> nn.Module:
    """Train on classes alone, by cross-entropy. Arguments as for `train`."""
    return train(
        model, images, labels, None, F.cross_entropy, settings, rows=rows, progress=progress
    )


def train_student(
    model: Model,
    images: Images,
    decisions: Tensor,
    soft_labels: Tensor,
    loss: KDLoss,
    settings: TrainSettings,
    *,
    rows: Tensor | None = None,
    progress: StepCallback | None = None,
) -> nn.Module:
    """Train on a teacher's decisions and soft labels. Arguments as for `train`."""
    check_choice("loss.reduction", loss.reduction, ("batchmean", "sum"))
    return train(
        model, images, decisions, soft_labels, loss, settings, rows=rows, progress=progress
    )


def predict_logits(
    model: nn.Module, images: Images, batch: int | None = None, rows: Tensor | None = None
) -> Tensor:
    """The network's logits for all images, or the rows named, in eval mode.

    batch: images of one pass; by default 512, and on a CPU what suits the network and its images.

    -> [n, C] float32 on the CPU; the network stays on its device and in its mode.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    read = image_reader(images, device)
    rows = torch.arange(len(images)) if rows is None else rows.cpu()
    was_training = model.training
    model.eval()
    try:
        if batch is None:
            batch = _batch(model, read(rows[:1]))
        with torch.inference_mode():
            logits = torch.cat([model(read(part)).float().cpu() for part in rows.split(batch)])
    finally:
        model.train(was_training)
    return logits.clone()  # out of inference mode: the result may take part in training


def _batch(model: nn.Module, image: Tensor) -> int:
    if image.is_cpu:
        return batch_for_module(model, model, image.shape[1:], image)
    return 512


def predict(
    model: nn.Module, images: Images, batch: int | None = None, rows: Tensor | None = None
) -> Tensor:
    """The network's classes for all images, or the rows named -> [n] int64 on the CPU."""
    return predict_logits(model, images, batch, rows).argmax(1)


def evaluate(model: nn.Module, images: Images, labels: Tensor, batch: int | None = None) -> float:
    """The share, 0 to 1, of N images that the network puts in their label's class, [N] int64."""
    return share_equal(predict(model, images, batch), labels, "labels")


def agreement(
    model: nn.Module, images: Images, decisions: Tensor, batch: int | None = None
) -> float:
    """The share, 0 to 1, of answered images on which the network decides like the teacher.

    decisions [N] int64, -1 where unanswered.
    """
    answered = (decisions >= 0).nonzero().flatten()
    return share_equal(predict(model, images, batch, answered), decisions[answered], "decisions")


def share_equal(predicted: Tensor, expected: Tensor, name: str = "expected") -> float:
    """The share of equal entries of two class vectors."""
    if expected.shape != predicted.shape or len(expected) == 0:
        raise ValueError(
            f"{name}: expected a class for each of {len(predicted)} images, "
            f"got {list(expected.shape)}"
        )
    return (predicted.cpu() == expected.cpu()).double().mean().item()
