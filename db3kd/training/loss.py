"""`KDLoss`: the distillation loss for decisions and soft labels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.arguments.plain import check_choice, check_not_negative, check_positive
from db3kd.errors import ArgumentError

_REDUCTIONS = ("batchmean", "sum", "none")


class KDLoss(nn.Module):
    """alpha · CE(student, decision) + beta · T² · KL(q ‖ softmax(student / T)).

    The soft labels q are probabilities that were made with temperature T. The factor T² keeps the
    magnitude of their gradient independent of T (Hinton et al. 2015, section 2).

    A row with decision -1 (unanswered) adds nothing to the loss. An all-zero soft label means
    that the row has none: its loss is alpha times the cross-entropy with its decision.

    Example:
        >>> loss = KDLoss(temperature=4.0, alpha=0.5)
        >>> loss(logits, decisions, soft_labels).backward()

    Args:
        temperature: T > 0, the temperature of the soft labels; None for the temperature recorded in
            the labels that `train_student` gets.
        alpha: Weight of the cross-entropy with the decisions, at least 0.
        beta: Weight of the soft labels, at least 0; 1 - alpha by default.
        reduction: "batchmean" (mean over the answered rows), "sum" or "none" (one loss per row).

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        temperature: float | None = 4.0,
        alpha: float = 0.5,
        beta: float | None = None,
        reduction: str = "batchmean",
    ) -> None:
        super().__init__()
        if temperature is not None:
            temperature = check_positive(temperature, "temperature")
        alpha = check_not_negative(alpha, "alpha")
        if beta is None and alpha > 1:
            raise ArgumentError(
                "alpha", f"expected at most 1, since beta is 1 - alpha, got {alpha}; pass beta too"
            )
        beta = 1 - alpha if beta is None else check_not_negative(beta, "beta")
        if alpha == beta == 0:
            raise ArgumentError("alpha, beta", "expected at least one weight above 0, got 0 and 0")
        check_choice(reduction, "reduction", _REDUCTIONS)
        self._temperature = temperature
        self.alpha = alpha
        self.beta = beta
        self.reduction = reduction

    @classmethod
    def paper(cls) -> "KDLoss":
        """Returns the loss of DB3KD (ICML 2021): CE + KL at T = 20, summed over the batch."""
        temperature = 20.0
        # beta = 1 / T² cancels the factor T².
        return cls(temperature, alpha=1.0, beta=temperature**-2, reduction="sum")

    @property
    def temperature(self) -> float:
        """The temperature T.

        Raises:
            ValueError: If it is None; only `train_student` fills it in.
        """
        if self._temperature is None:
            raise ArgumentError(
                "loss.temperature",
                "expected a number, got None; pass "
                "KDLoss(temperature=...) with the temperature of the soft labels",
            )
        return self._temperature

    def with_temperature(self, temperature: float | None, name: str) -> "KDLoss":
        """Returns this loss for soft labels of a given temperature.

        Args:
            temperature: Temperature of the soft labels; None if it is unknown.
            name: How error messages refer to that temperature.

        Returns:
            This loss, or, if its own temperature is None, a copy with the given one.

        Raises:
            ValueError: If the two temperatures differ, or if both are None.
        """
        if self._temperature is None and temperature is None:
            raise ArgumentError(
                "loss.temperature",
                f"expected a number because {name} is unknown, got None; pass "
                "KDLoss(temperature=...) with the temperature of the soft labels",
            )
        if self._temperature is None:
            return KDLoss(temperature, self.alpha, self.beta, self.reduction)
        if temperature is not None and temperature != self.temperature:
            raise ArgumentError(
                "loss.temperature",
                f"expected {temperature:g}, which is {name}, got "
                f"{self.temperature:g}; use KDLoss(temperature={temperature:g}), or make soft "
                f"labels of temperature {self.temperature:g}",
            )
        return self

    def forward(self, logits: Tensor, decisions: Tensor, soft_labels: Tensor) -> Tensor:
        """Computes the loss of a batch.

        Args:
            logits: [n, C] float, the student's logits.
            decisions: [n] int64, the teacher's classes; -1 if unanswered.
            soft_labels: [n, C] float, rows sum to 1 or are all 0.

        Returns:
            A scalar float32, or [n] float32 if reduction is "none".

        Raises:
            ValueError: If the shapes differ, or if the loss has no temperature.
        """
        temperature = self.temperature
        if logits.ndim != 2 or soft_labels.shape != logits.shape:
            raise ArgumentError(
                "soft_labels",
                f"expected the logits' shape [n, C] = {list(logits.shape)}, "
                f"got {list(soft_labels.shape)}",
            )
        if decisions.shape != logits.shape[:1]:
            raise ArgumentError(
                "decisions", f"expected shape [{len(logits)}], got {list(decisions.shape)}"
            )
        logits = logits.float()
        answered = decisions >= 0
        # Unanswered rows are zeroed before the logarithm, because a NaN in one of them would reach
        # the gradient through any later mask.
        soft = torch.where(answered[:, None], soft_labels.float(), 0.0)
        hard_rows = F.cross_entropy(logits, decisions, ignore_index=-1, reduction="none")
        soft_rows = F.kl_div(F.log_softmax(logits / temperature, 1), soft, reduction="none").sum(1)
        rows = self.alpha * hard_rows + self.beta * temperature**2 * soft_rows
        if self.reduction == "none":
            return rows
        return rows.sum() if self.reduction == "sum" else rows.sum() / answered.sum().clamp(min=1)

    def extra_repr(self) -> str:
        """Returns the arguments for `repr`."""
        return (
            f"temperature={self._temperature}, alpha={self.alpha}, beta={self.beta}, "
            f"reduction={self.reduction!r}"
        )
